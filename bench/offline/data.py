"""Makes the files of the offline benches, once: feature rows and entity rows as Parquet, the same for the same numbers.

    python bench/offline/data.py FOLDER features|entities ROWS KEYS SEED

Feature rows lie in the order of time, as a pipeline that appends writes them: each of the `ROWS / KEYS` versions of all
keys fills one slice of thirty days, in random order within. Entity rows have random keys and random times.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

START = 1_767_225_600_000_000  # 2026-01-01 in microseconds
SPAN = 30 * 86_400_000_000
TIME = pa.timestamp("us", tz="UTC")
FEATURES = ["n0", "n1", "n2", "d0", "d1", "d2", "f0", "f1", "s0", "s1"]
PER_GROUP = 1 << 20


def features_file(folder: Path, rows: int, keys: int, seed: int) -> Path:
    """The path of a file with `rows` feature rows of `keys` keys."""
    return folder / f"features-{rows}-{keys}-{seed}.parquet"


def entities_file(folder: Path, rows: int, keys: int, seed: int) -> Path:
    """The path of a file with `rows` entity rows."""
    return folder / f"entities-{rows}-{keys}-{seed}.parquet"


def feature_rows(random: np.random.Generator, ids: np.ndarray, times: np.ndarray) -> pa.Table:
    """Ten features: three integers, three doubles, two floats, two short texts; one value in fifty is null."""
    rows = len(ids)

    def with_gaps(values: np.ndarray | pa.Array) -> pa.Array:
        if isinstance(values, pa.Array):
            return values
        return pa.array(values, mask=random.random(rows) < 0.02)

    texts = pa.array([f"segment-{number:04d}" for number in range(1000)])
    columns: dict[str, pa.Array] = {"user_id": pa.array(ids)}
    for name in ("n0", "n1", "n2"):
        columns[name] = with_gaps(random.integers(0, 1_000_000, rows))
    for name in ("d0", "d1", "d2"):
        columns[name] = with_gaps(random.random(rows))
    for name in ("f0", "f1"):
        columns[name] = with_gaps(random.random(rows, dtype=np.float32))
    for name in ("s0", "s1"):
        columns[name] = texts.take(pa.array(random.integers(0, len(texts), rows)))
    columns["event_timestamp"] = pa.array(times).cast(TIME)
    return pa.table(columns)


def write_features(path: Path, rows: int, keys: int, seed: int) -> None:
    """Writes feature rows a row group at a time."""
    random = np.random.default_rng(seed)
    versions = rows // keys
    slice_of_time = SPAN // versions
    writer = None
    ids: list[np.ndarray] = []
    times: list[np.ndarray] = []
    pending = 0
    partial = path.with_suffix(".partial")

    def flush() -> None:
        nonlocal writer, pending
        table = feature_rows(random, np.concatenate(ids), np.concatenate(times))
        writer = writer or pq.ParquetWriter(partial, table.schema)
        for start in range(0, len(table), PER_GROUP):
            writer.write_table(table.slice(start, PER_GROUP), row_group_size=PER_GROUP)
        ids.clear()
        times.clear()
        pending = 0

    for version in range(versions):
        ids.append(random.permutation(keys).astype(np.int64))
        times.append(START + version * slice_of_time + random.integers(0, slice_of_time, keys))
        pending += keys
        if pending >= PER_GROUP or version == versions - 1:
            flush()
    writer.close()
    partial.rename(path)


def write_entities(path: Path, rows: int, keys: int, seed: int) -> None:
    """Writes entity rows."""
    random = np.random.default_rng(seed)
    table = pa.table(
        {
            "user_id": random.integers(0, keys, rows),
            "event_timestamp": pa.array(START + random.integers(0, SPAN, rows)).cast(TIME),
        }
    )
    partial = path.with_suffix(".partial")
    pq.write_table(table, partial)
    partial.rename(path)


def main() -> None:
    """Writes one file unless it is there."""
    folder, kind, numbers = Path(sys.argv[1]), sys.argv[2], [int(argument) for argument in sys.argv[3:6]]
    folder.mkdir(parents=True, exist_ok=True)
    path_of, write = {"features": (features_file, write_features), "entities": (entities_file, write_entities)}[kind]
    path = path_of(folder, *numbers)
    if not path.exists():
        write(path, *numbers)
    print(path)


if __name__ == "__main__":
    main()
