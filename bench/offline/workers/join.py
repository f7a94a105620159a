"""One engine joins once, and says as JSON what that took: from entity rows in memory and files to Arrow.

    python bench/offline/workers/join.py duckdb|polars|feast|scan ENTITIES TTL_DAYS FEATURES...

The answer is a table or, with `--stream`, read batch by batch and dropped. Imports and reading the entity rows are outside
of the clock, and what reading them takes beside the rows is left in another process. With `--values` the answer is summed up
as well, which is not outside of the clock where it is streamed: a run of its own. `--entity-file` is for data larger than
memory: the engine reads the entity rows itself.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

if TYPE_CHECKING:
    import polars as pl

sys.path.insert(0, str(Path(__file__).parents[1]))
from data import FEATURES

# A table, or batches.
Answer = pa.Table | Iterable[pa.RecordBatch]
BATCH_ROWS = 65_536


def names(view: int) -> list[str]:
    """What the features of a view are called in the answer."""
    return [f"v{view}__{feature}" for feature in FEATURES]


def duckdb_join(entities: pa.Table, files: list[str], ttl: int, stream: bool) -> Callable[[], Answer]:
    """DuckDB's ASOF join, one per view."""
    import duckdb

    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'; SET preserve_insertion_order = false")
    # Above it, the disk: a machine that others use has no more, and without it large cases end.
    spill = Path(files[0]).parent / "duckdb-spill"
    connection.execute(f"SET memory_limit = '10GB'; SET temp_directory = '{spill}'")
    connection.register("entities", entities)
    columns, joins = ["e.user_id", "e.event_timestamp"], []
    for view, file in enumerate(files):
        fresh = f"v{view}.event_timestamp >= e.event_timestamp - INTERVAL {ttl} DAY"
        for feature, name in zip(FEATURES, names(view)):
            value = f"v{view}.{feature}"
            columns.append(f"CASE WHEN {fresh} THEN {value} END AS {name}" if ttl else f"{value} AS {name}")
        joins.append(
            f"ASOF LEFT JOIN read_parquet('{file}') v{view} "
            f"ON e.user_id = v{view}.user_id AND e.event_timestamp >= v{view}.event_timestamp"
        )
    query = f"SELECT {', '.join(columns)} FROM entities e {' '.join(joins)}"
    if stream:
        return lambda: connection.sql(query).to_arrow_reader(BATCH_ROWS)
    return lambda: connection.sql(query).to_arrow_table()


def polars_join(entities: pa.Table, files: list[str], ttl: int, stream: bool) -> Callable[[], Answer]:
    """Polars' join_asof, one per view; both sides have to be sorted by time."""
    import polars as pl

    frame = pl.from_arrow(entities).lazy()

    def joined() -> pl.LazyFrame:
        joined = frame.sort("event_timestamp")
        for view, file in enumerate(files):
            right = (
                pl.scan_parquet(file)
                .select("user_id", pl.col("event_timestamp").alias("at"), *FEATURES)
                .rename(dict(zip(FEATURES, names(view))))
                .sort("at")
            )
            joined = joined.join_asof(
                right,
                left_on="event_timestamp",
                right_on="at",
                by="user_id",
                strategy="backward",
                tolerance=f"{ttl}d" if ttl else None,
                check_sortedness=False,
            ).drop("at", strict=False)
        return joined

    def batches() -> Iterator[pa.RecordBatch]:
        # The engine that streams takes less memory here and as much time.
        for frame in joined().collect_batches(chunk_size=BATCH_ROWS, maintain_order=False, engine="streaming"):
            yield from frame.to_arrow().to_batches()

    return batches if stream else lambda: joined().collect().to_arrow()


def feast_join(entities: pa.Table | str, repository: str, n_views: int, stream: bool) -> Callable[[], Answer]:
    """get_historical_features of the Feast or feast-rs that this Python has."""
    from feast import FeatureStore

    store = FeatureStore(repo_path=repository)
    references = [f"v{view}:{feature}" for view in range(n_views) for feature in FEATURES]
    # Feast takes pandas only.
    frame = entities.to_pandas() if os.environ.get("BENCH_ENTITY_FRAME") == "pandas" else entities

    def run() -> Answer:
        job = store.get_historical_features(entity_df=frame, features=references, full_feature_names=True)
        return job.to_arrow_batches() if stream else job.to_arrow()

    return run


def scan(files: list[str]) -> Callable[[], Answer]:
    """Reads the columns a join needs and does nothing with them."""

    def run() -> pa.Table:
        for file in files:
            for batch in pq.ParquetFile(file).iter_batches(65_536, columns=["user_id", "event_timestamp", *FEATURES]):
                del batch
        return pa.table({})

    return run


def checksum(table: pa.Table, columns: list[str]) -> int:
    """Binds every value to its key and time, whatever the order of the rows; sums of parts are the sum of all."""
    if table.num_rows == 0:
        return 0
    with np.errstate(over="ignore"):
        times = table.column("event_timestamp").cast(pa.timestamp("us", tz="UTC")).cast(pa.int64())
        row = np.asarray(table.column("user_id")).astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        row ^= np.asarray(times).astype(np.uint64) * np.uint64(0xD6E8FEB86659FD93)
        total = 0
        for number, name in enumerate(columns, start=1):
            column = table.column(name)
            if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
                column = pc.utf8_slice_codeunits(column.cast(pa.large_string()), -4, 2**31 - 1).cast(pa.int64())
            present = np.asarray(pc.is_valid(column))
            values = np.nan_to_num(np.asarray(column.cast(pa.float64()).fill_null(0.0)))
            bits = np.round(values * 1000).astype(np.int64).astype(np.uint64) + np.uint64(number)
            total += int(np.where(present, row * bits, np.uint64(0)).sum(dtype=np.uint64))
    return total


CONVERT = """
import sys, pyarrow as pa, pyarrow.parquet as pq
table = pq.read_table(sys.argv[1])
with pa.OSFile(sys.argv[2], "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
    writer.write_table(table)
"""


def in_memory(path: str) -> pa.Table:
    """Entity rows in memory, and nothing else: readers of Parquet keep up to as much again for themselves."""
    mapped = Path(path).with_suffix(".arrow")
    if not mapped.exists():
        partial = mapped.with_suffix(".partial")
        subprocess.run([sys.executable, "-c", CONVERT, path, partial], check=True)
        partial.rename(mapped)
    table = pa.ipc.open_file(pa.memory_map(str(mapped))).read_all()
    # All of it is in memory before the clock starts.
    for name in table.column_names:
        pc.min_max(table.column(name))
    return table


def peak_mib() -> float:
    """The most memory this process had; unlike `ru_maxrss` it knows nothing of the process that started it."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1024


def main() -> None:
    """Measures one join."""
    parser = argparse.ArgumentParser()
    parser.add_argument("engine")
    parser.add_argument("entities")
    parser.add_argument("ttl", type=int)
    parser.add_argument("features", nargs="+")
    parser.add_argument("--repository")
    parser.add_argument("--entity-file", action="store_true")
    parser.add_argument("--stream", action="store_true")
    parser.add_argument("--values", action="store_true")
    arguments = parser.parse_args()
    entities = arguments.entities if arguments.entity_file else in_memory(arguments.entities)
    n_views = len(arguments.features)
    run = {
        "duckdb": lambda: duckdb_join(entities, arguments.features, arguments.ttl, arguments.stream),
        "polars": lambda: polars_join(entities, arguments.features, arguments.ttl, arguments.stream),
        "scan": lambda: scan(arguments.features),
        "feast": lambda: feast_join(entities, arguments.repository, n_views, arguments.stream),
    }[arguments.engine]()
    columns = [name for view in range(n_views) for name in names(view)]
    wall, cpu = time.perf_counter(), time.process_time()
    answer = run()
    rows, total = 0, 0
    if not isinstance(answer, pa.Table):
        for batch in answer:
            rows += batch.num_rows
            if arguments.values:
                total += checksum(pa.table(batch), columns)
    measured = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu, "memory": peak_mib()}
    if isinstance(answer, pa.Table):
        rows = answer.num_rows
        total = checksum(answer, columns) if arguments.values else 0
    measured["rows"] = rows
    if arguments.values:
        measured["checksum"] = f"{total % 2**64:016x}"
    print(json.dumps(measured), flush=True)
    # Some engines take seconds to give their memory back.
    os._exit(0)


if __name__ == "__main__":
    main()
