"""A function sees and gives the same values online and offline: random rows of every type, with nulls, in every mode."""

from __future__ import annotations

import random
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from drivers import T0

from feast import Entity, FeatureStore, FeatureView, Field, FileSource
from feast.on_demand_feature_view import OnDemandFeatureView
from feast.types import (
    Array,
    Bool,
    Bytes,
    Float32,
    Float64,
    Int32,
    Int64,
    Json,
    String,
    UnixTimestamp,
    Uuid,
)

Random = random.Random


def moment(chance: Random) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=chance.randrange(-(2**31), 2**33))


def number(chance: Random) -> float:
    return chance.choice([0.0, -0.0, 1e-300, -1.5, 1e300, float("inf"), chance.uniform(-9, 9)])


def text(chance: Random) -> str:
    return chance.choice(["", " ", "Zürich", "a'b\"c\n", "🚕", "null", "1", "x" * 300])


# By name: the type, the type of the column in the file, and a random value.
SCALARS: dict[str, tuple[Any, pa.DataType, Any]] = {
    "i32": (Int32, pa.int32(), lambda chance: chance.choice([0, -(2**31), 2**31 - 1, 7])),
    "i64": (Int64, pa.int64(), lambda chance: chance.choice([0, -(2**63), 2**63 - 1, 2**53 + 1])),
    "f32": (Float32, pa.float32(), lambda chance: chance.choice([0.0, 0.1, -1.5, 3e38])),
    "f64": (Float64, pa.float64(), number),
    "bool": (Bool, pa.bool_(), lambda chance: chance.random() < 0.5),
    "text": (String, pa.string(), text),
    "bytes": (Bytes, pa.binary(), lambda chance: chance.randbytes(chance.randrange(5))),
    "time": (UnixTimestamp, pa.timestamp("us", "UTC"), moment),
}
TYPES = dict(SCALARS)
for _name, (_type, _arrow, _value) in SCALARS.items():
    TYPES[f"{_name}_list"] = (
        Array(_type),
        pa.list_(_arrow),
        lambda chance, value=_value: [value(chance) for _ in range(chance.randrange(4))],
    )
# A lone text comes to functions without its quotes, and gets them back, unless it looks like JSON without them.
TYPES["json"] = (
    Json,
    pa.string(),
    lambda chance: chance.choice(['{"a":[1,null]}', "[]", "1.5", '"a text"', '""']),
)
TYPES["uuid"] = (Uuid, pa.string(), lambda chance: str(uuid.UUID(int=chance.getrandbits(128))))

ECHO = """\
def echo(inputs):
    return {f"out_{name}": inputs[name] for name in NAMES}
"""
FRAME = """\
def echo(inputs):
    import pandas
    return pandas.DataFrame({f"out_{name}": inputs[name] for name in NAMES}, index=inputs.index)
"""
# What pandas has no value for that is both missing and of the type: it widens such columns, so that large whole numbers
# and truth values change where one is missing. That is pandas, online and offline alike, and in Feast.
WIDENED = {"i32", "i64", "bool"}


def store_of(
    folder: Path, seed: int, mode: str, singleton: bool, names: list[str]
) -> tuple[FeatureStore, list[int]]:
    chance = Random(seed)
    drivers = list(range(1, 31))
    missing = 0.3 if mode == "python" else 0.25
    columns: dict[str, Any] = {
        "driver_id": drivers,
        "event_timestamp": pa.array([T0] * len(drivers), pa.timestamp("us", "UTC")),
    }
    for name in names:
        _, arrow, value = TYPES[name]
        whole = mode == "pandas" and name in WIDENED
        values = [
            None if not whole and chance.random() < missing else value(chance) for _ in drivers
        ]
        columns[name] = pa.array(values, arrow)
    pq.write_table(pa.table(columns), folder / "rows.parquet")
    (folder / "feature_store.yaml").write_text(
        "project: p\nregistry: registry.db\nonline_store: {type: sqlite, path: online.db}\n"
    )
    driver = Entity(name="driver", join_keys=["driver_id"])
    view = FeatureView(
        name="rows",
        entities=[driver],
        ttl=timedelta(days=1),
        schema=[
            Field(name="driver_id", dtype=Int64),
            *(Field(name=name, dtype=TYPES[name][0]) for name in names),
        ],
        source=FileSource(name="rows", path="rows.parquet", timestamp_field="event_timestamp"),
    )
    source = (ECHO if mode == "python" else FRAME).replace("NAMES", repr(names))
    namespace: dict[str, Any] = {}
    exec(source, namespace)  # noqa: S102
    echo = OnDemandFeatureView(
        name="echo",
        sources=[view],
        schema=[Field(name=f"out_{name}", dtype=TYPES[name][0]) for name in names],
        udf=namespace["echo"],
        udf_string=source,
        mode=mode,
        singleton=singleton,
    )
    store = FeatureStore(repo_path=str(folder))
    store.apply([driver, view, echo])
    store.materialize(T0 - timedelta(days=1), T0 + timedelta(days=1))
    asked = drivers if mode == "pandas" else [*drivers, 99]
    chance.shuffle(asked)
    return store, asked


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    ("mode", "singleton"), [("python", False), ("python", True), ("pandas", False)]
)
def test_what_comes_out_is_the_same_online_and_offline(
    tmp_path: Path, mode: str, singleton: bool, seed: int
) -> None:
    names = list(TYPES)
    store, asked = store_of(tmp_path, seed, mode, singleton, names)
    features = [f"echo:out_{name}" for name in names]
    features += [f"rows:{name}" for name in names]
    online = store.get_online_features(
        features=features, entity_rows=[{"driver_id": one} for one in asked]
    )
    entity = pd.DataFrame(
        {"driver_id": asked, "event_timestamp": [T0 + timedelta(hours=1)] * len(asked)}
    )
    offline = store.get_historical_features(entity_df=entity, features=features).to_arrow()
    served = online.to_arrow()
    for name in names:
        column = f"out_{name}"
        assert served[column].type == offline[column].type, name
        assert served[column].to_pylist() == offline[column].to_pylist(), name
        # And an echo is an echo.
        assert served[column].to_pylist() == served[name].to_pylist(), name
        assert offline[column].to_pylist() == offline[name].to_pylist(), name
    if mode == "python":
        assert served["out_text"].null_count > 0
