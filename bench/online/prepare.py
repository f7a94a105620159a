"""Makes the repository that both servers serve; run by Feast's Python, which also applies and materializes it.

python prepare.py FOLDER [REDIS_ADDRESS]
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

VIEWS, KEYS = 25, 5000
# The views that have a push source: the first one, and the one in the middle.
PUSHED = (0, VIEWS // 2)
NOON = datetime(2026, 2, 1, 12, tzinfo=UTC)

DEFINITIONS = """
from datetime import timedelta
from feast import Entity, FeatureView, Field, FileSource, PushSource, ValueType
from feast.types import Bool, Float32, Float64, Int32, Int64, String

driver = Entity(name="driver", join_keys=["driver_id"], value_type=ValueType.INT64)
TYPES = [Int64, Float64, Float32, String, Int32, Int64, Float64, Bool, String, Int64]
for number in range({views}):
    source = FileSource(
        name=f"source_{{number:02}}", path=f"data/view_{{number:02}}.parquet", timestamp_field="event_timestamp"
    )
    if number in {pushed}:
        source = globals()[f"pushed_{{number:02}}"] = PushSource(name=f"pushed_{{number:02}}", batch_source=source)
    globals()[f"view_{{number:02}}"] = FeatureView(
        name=f"view_{{number:02}}",
        entities=[driver],
        ttl=timedelta(days=3650),
        schema=[Field(name="driver_id", dtype=Int64)]
        + [Field(name=f"f{{number:02}}_{{at}}", dtype=dtype) for at, dtype in enumerate(TYPES)],
        source=source,
    )
"""


def columns(number: int) -> dict[str, pa.Array]:
    """Ten features of the types of the definitions."""
    random = np.random.default_rng(number)
    prefix = f"f{number:02}_"
    made = [
        pa.array(random.integers(0, 100, KEYS), pa.int64()),
        pa.array(random.random(KEYS), pa.float64()),
        pa.array(random.random(KEYS).astype("float32"), pa.float32()),
        pa.array([f"city-{value}" for value in random.integers(0, 500, KEYS)]),
        pa.array(random.integers(0, 1_000_000, KEYS), pa.int32()),
        pa.array(random.integers(0, 2**40, KEYS), pa.int64()),
        pa.array(random.normal(size=KEYS) * 1000, pa.float64()),
        pa.array(random.random(KEYS) > 0.5, pa.bool_()),
        pa.array([f"segment/{value:08x}" for value in random.integers(0, 2**31, KEYS)]),
        pa.array(random.integers(0, 2**62, KEYS), pa.int64()),
    ]
    return {f"{prefix}{at}": array for at, array in enumerate(made)}


def main() -> None:
    """Writes data, definitions and configuration."""
    folder = Path(sys.argv[1])
    (folder / "data").mkdir(parents=True)
    times = pa.array([NOON - timedelta(seconds=at) for at in range(KEYS)], pa.timestamp("us", "UTC"))
    for number in range(VIEWS):
        table = pa.table({"driver_id": pa.array(range(KEYS)), "event_timestamp": times, **columns(number)})
        pq.write_table(table, folder / "data" / f"view_{number:02}.parquet")
    (folder / "definitions.py").write_text(DEFINITIONS.format(views=VIEWS, pushed=PUSHED))
    online = "{type: sqlite, path: data/online.db}"
    if len(sys.argv) > 2:
        online = f"{{type: redis, connection_string: '{sys.argv[2]}'}}"
    (folder / "feature_store.yaml").write_text(
        f"project: bench\nprovider: local\nregistry: data/registry.db\nonline_store: {online}\n"
        "offline_store: {type: file}\nentity_key_serialization_version: 3\n"
    )


main()
