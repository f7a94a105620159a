"""The same inputs give the same on-demand features offline and online: every type, every mode, values and nulls at random."""

from __future__ import annotations

import decimal
import json
import random
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RequestSource
from feast.on_demand_feature_view import OnDemandFeatureView
from feast.types import (
    Array,
    Bool,
    Bytes,
    Decimal,
    Float32,
    Float64,
    Int32,
    Int64,
    Json,
    Map,
    Set,
    String,
    UnixTimestamp,
    Uuid,
)

T0 = datetime(2026, 11, 20, 12, tzinfo=UTC)
ROWS = 40


def text(chance: random.Random) -> str:
    return "".join(chance.choice("aä\U0001f600 \"\\'\n0") for _ in range(chance.randrange(6)))


def instant(chance: random.Random) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=chance.randrange(4_000_000_000))


def whole(bits: int) -> Callable[[random.Random], int]:
    return lambda chance: chance.choice(
        [0, 1, -1, 2 ** (bits - 1) - 1, -(2 ** (bits - 1)), chance.randrange(1000)]
    )


def number(chance: random.Random) -> float:
    return chance.choice(
        [0.0, -0.0, 1.5, -2.25, 1e30, float("inf"), float(chance.randrange(1000)) / 8]
    )


def several(one: Callable[[random.Random], Any]) -> Callable[[random.Random], list[Any]]:
    return lambda chance: [one(chance) for _ in range(chance.randrange(4))]


# By name of the feature: its type, its type in the file, and how its values are made.
TYPES: dict[str, tuple[Any, pa.DataType, Callable[[random.Random], Any]]] = {
    "int32": (Int32, pa.int32(), whole(32)),
    "int64": (Int64, pa.int64(), lambda chance: chance.randrange(-(2**53), 2**53)),
    "float32": (Float32, pa.float32(), number),
    "float64": (Float64, pa.float64(), number),
    "text": (String, pa.string(), text),
    "data": (Bytes, pa.binary(), lambda chance: text(chance).encode()),
    "flag": (Bool, pa.bool_(), lambda chance: chance.random() < 0.5),
    "time": (UnixTimestamp, pa.timestamp("us", "UTC"), instant),
    "uuid": (Uuid, pa.string(), lambda chance: str(uuid.UUID(int=chance.getrandbits(128)))),
    "decimal": (
        Decimal,
        pa.string(),
        lambda chance: str(decimal.Decimal(chance.randrange(10**6)) / 100),
    ),
    "json": (
        Json,
        pa.string(),
        lambda chance: json.dumps({"k": text(chance), "n": chance.randrange(9)}),
    ),
    "ints": (Array(Int64), pa.list_(pa.int64()), several(lambda chance: chance.randrange(100))),
    "floats": (
        Array(Float32),
        pa.list_(pa.float32()),
        several(lambda chance: chance.randrange(100) / 4),
    ),
    "texts": (Array(String), pa.list_(pa.string()), several(text)),
    "flags": (Array(Bool), pa.list_(pa.bool_()), several(lambda chance: chance.random() < 0.5)),
    "times": (Array(UnixTimestamp), pa.list_(pa.timestamp("us", "UTC")), several(instant)),
    "tags": (
        Set(String),
        pa.list_(pa.string()),
        lambda chance: sorted({text(chance) for _ in range(3)}),
    ),
    "map": (
        Map,
        pa.map_(pa.string(), pa.int64()),
        lambda chance: [("a", chance.randrange(9)), ("b", 1)],
    ),
}

COPY = {
    "python": "def copy(inputs):\n    return {'out_' + name: inputs[name] for name in NAMES}\n",
    "rows": "def copy(inputs):\n    return {'out_' + name: inputs[name] for name in NAMES}\n",
    "pandas": "def copy(df):\n    return pd.DataFrame({'out_' + name: df[name] for name in NAMES})\n",
}


UNUSED = RequestSource(name="unused", schema=[Field(name="val", dtype=Int64)])


def view(mode: str, source: FeatureView, names: list[str]) -> OnDemandFeatureView:
    source_text = COPY[mode].replace("NAMES", repr(names))
    namespace: dict[str, Any] = {}
    exec("import pandas as pd\n" + source_text, namespace)  # noqa: S102
    return OnDemandFeatureView(
        name=mode,
        sources=[source, UNUSED],
        schema=[Field(name="out_" + name, dtype=TYPES[name][0]) for name in names],
        udf=namespace["copy"],
        udf_string=source_text,
        mode="pandas" if mode == "pandas" else "python",
        singleton=mode == "rows",
    )


def plain(value: Any) -> Any:
    """A value as both answers can hold it."""
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    if isinstance(value, (uuid.UUID, decimal.Decimal)):
        return str(value)
    if isinstance(value, datetime):
        return value.astimezone(UTC)
    if isinstance(value, list):
        return [plain(one) for one in value]
    if isinstance(value, float):
        return repr(value)
    return value


@pytest.mark.parametrize("seed", range(3))
def test_all_types_are_the_same_offline_and_online(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    columns: dict[str, Any] = {
        "id": pa.array(range(ROWS), pa.int64()),
        "event_timestamp": pa.array([T0] * ROWS, pa.timestamp("us", "UTC")),
    }
    made: dict[str, list[Any]] = {}
    for name, (_, arrow_type, make) in TYPES.items():
        made[name] = [None if chance.random() < 0.3 else make(chance) for _ in range(ROWS)]
        columns[name] = pa.array(made[name], arrow_type)
    pq.write_table(pa.table(columns), tmp_path / "rows.parquet")
    (tmp_path / "feature_store.yaml").write_text(
        "project: p\nregistry: registry.db\nonline_store: {type: sqlite, path: online.db}\n"
    )
    thing = Entity(name="thing", join_keys=["id"])
    source = FeatureView(
        name="all",
        entities=[thing],
        schema=[
            Field(name="id", dtype=Int64),
            *(Field(name=name, dtype=TYPES[name][0]) for name in TYPES),
        ],
        source=FileSource(name="rows", path="rows.parquet", timestamp_field="event_timestamp"),
    )
    names = list(TYPES)
    store = FeatureStore(repo_path=str(tmp_path))
    store.apply([thing, source])
    store.apply([view(mode, source, names) for mode in COPY])
    store.materialize(T0 - timedelta(days=1), T0 + timedelta(days=1))
    ids = [*range(ROWS), ROWS + 1]
    entity = pa.table(
        {
            "id": pa.array(ids, pa.int64()),
            "event_timestamp": pa.array([T0] * len(ids), pa.timestamp("us", "UTC")),
            "val": pa.array([0] * len(ids)),
        }
    )
    stored = store.get_online_features(
        features=[f"all:{name}" for name in names], entity_rows=[{"id": one} for one in ids]
    ).to_dict()
    for mode in COPY:
        features = [f"{mode}:out_{name}" for name in names]
        online = store.get_online_features(
            features=features, entity_rows=[{"id": one, "val": 0} for one in ids]
        ).to_dict()
        offline = store.get_historical_features(entity_df=entity, features=features).to_arrow()
        for name in names:
            there = [plain(one) for one in offline["out_" + name].to_pylist()]
            here = [plain(one) for one in online["out_" + name]]
            if name == "map":
                there = [None if one is None else json.loads(one) for one in there]
            if name == "json":
                there = [None if one is None else json.loads(one) for one in there]
            if name == "tags":
                there = [None if one is None else sorted(one) for one in there]
            assert here == there, (mode, name)
            # And it is what the sources have.
            assert here == [plain(one) for one in stored[name]], (mode, name)
            assert here[-1] is None
