"""Writes data/things.parquet: three things, the last one with nulls."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

T0 = datetime(2026, 11, 20, 12, tzinfo=UTC)


def table() -> pa.Table:
    """One row per thing, all features null in the third."""
    times = pa.timestamp("us", tz="UTC")
    uuids = ["8d7f5b9a-0000-4000-8000-000000000001", "8d7f5b9a-0000-4000-8000-000000000002", None]
    columns = {
        "thing_id": pa.array([1, 2, 3], pa.int64()),
        "event_timestamp": pa.array(
            [T0, T0 + timedelta(minutes=1), T0 + timedelta(minutes=2)], times
        ),
        "created": pa.array([T0, T0, T0], times),
        "a_bytes": pa.array([b"\x00\xff", b"", None], pa.binary()),
        "a_string": pa.array(["abc", "é", None], pa.string()),
        "an_int32": pa.array([-1, 2**31 - 1, None], pa.int32()),
        "an_int64": pa.array([0, -(2**62), None], pa.int64()),
        "a_double": pa.array([0.5, -1e300, None], pa.float64()),
        "a_float": pa.array([0.5, 0.1, None], pa.float32()),
        "a_bool": pa.array([True, False, None], pa.bool_()),
        "a_time": pa.array([T0, T0 + timedelta(days=1), None], times),
        "some_bytes": pa.array([[b"a", b"\xff"], [b""], None], pa.list_(pa.binary())),
        "some_strings": pa.array([["a", "b"], ["é"], None], pa.list_(pa.string())),
        "some_int32": pa.array([[1, -1], [0], None], pa.list_(pa.int32())),
        "some_int64": pa.array([[1, 300], [-5], None], pa.list_(pa.int64())),
        "some_doubles": pa.array([[1.5, -2.5], [0.0], None], pa.list_(pa.float64())),
        "some_floats": pa.array([[1.0, 2.0], [0.5], None], pa.list_(pa.float32())),
        "some_bools": pa.array([[True, False], [True], None], pa.list_(pa.bool_())),
        "some_times": pa.array([[T0, T0 + timedelta(hours=1)], [T0], None], pa.list_(times)),
        "a_json": pa.array(['{"a": [1, 2]}', '"text"', None], pa.string()),
        "a_uuid": pa.array(uuids, pa.string()),
        "a_decimal": pa.array(["1.50", "-0.001", None], pa.string()),
        "a_map": pa.array(
            [{"k": "v", "l": "w"}, {"k": "é", "l": ""}, None],
            pa.struct([("k", pa.string()), ("l", pa.string())]),
        ),
        "a_struct": pa.array(
            [{"x": 1, "y": "one"}, {"x": -2, "y": "two"}, None],
            pa.struct([("x", pa.int64()), ("y", pa.string())]),
        ),
        "a_string_set": pa.array([["a", "b"], ["c"], None], pa.list_(pa.string())),
        "an_int_set": pa.array([[1, 2], [3], None], pa.list_(pa.int64())),
    }
    return pa.table(columns)


def write(repository: Path) -> None:
    """Writes the file where the definitions look for it."""
    (repository / "data").mkdir(exist_ok=True)
    pq.write_table(table(), repository / "data" / "things.parquet")


if __name__ == "__main__":
    write(Path.cwd())
