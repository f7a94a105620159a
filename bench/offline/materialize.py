"""Materialization beside Feast and beside the floor: a bare bulk insert, or pipeline, of the same bytes.

    python bench/offline/materialize.py --ours ENVIRONMENT [--peer ENVIRONMENT] [--stores sqlite;redis]
        [--rows N] [--keys N] [--feast-rows N] [--rounds N]

Each side runs in a process of its own, in turns; medians are shown. The floor writes what feast-rs has written, bytes
and order included, with nothing else to do: it reads no Parquet, encodes nothing and compares no times. `ratio` is the
floor's wall time over that of feast-rs, which includes the scan. Feast gets fewer rows, because it takes minutes for a
million; its figures are of those rows, and rows per CPU second make them comparable. Rows are counted afterwards.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from measure import machine

MILLION = 1_000_000
FEATURES = ["n0", "n1", "n2", "d0", "d1", "d2", "f0", "f1", "s0", "s1"]
START = 1_767_225_600  # 2026-01-01
DAYS = 30

DEFINITIONS = f"""
from feast import Entity, FeatureView, Field, FileSource, ValueType
from feast.types import Float32, Float64, Int64, String

TYPES = {{"n": Int64, "d": Float64, "f": Float32, "s": String}}
user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.INT64)
stats = FeatureView(
    name="stats",
    entities=[user],
    schema=[Field(name=name, dtype=TYPES[name[0]]) for name in {FEATURES!r}],
    source=FileSource(name="rows", path="rows.parquet", timestamp_field="event_timestamp"),
)
"""

# What Feast's SQLite store makes on apply, its index included.
FEAST_TABLE = """
CREATE TABLE bench_stats (entity_key BLOB, feature_name TEXT, value BLOB, value_text TEXT, vector_value BLOB,
    event_ts timestamp, created_ts timestamp, PRIMARY KEY(entity_key, feature_name));
CREATE INDEX bench_stats_ek ON bench_stats (entity_key);
"""

DATA = f"""
import sys
import numpy as np, pyarrow as pa, pyarrow.parquet as pq

path, rows, keys = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
random = np.random.default_rng(7)
versions = rows // keys
span = {DAYS} * 86_400_000_000 // versions
texts = pa.array([f"segment-{{number:04d}}" for number in range(1000)])
writer = None
for version in range(versions):
    ids = random.permutation(keys).astype(np.int64)
    columns = {{"user_id": pa.array(ids)}}
    for name in {FEATURES!r}:
        gaps = random.random(keys) < 0.02
        columns[name] = {{
            "n": lambda: pa.array(random.integers(0, 1_000_000, keys), mask=gaps),
            "d": lambda: pa.array(random.random(keys), mask=gaps),
            "f": lambda: pa.array(random.random(keys, dtype=np.float32), mask=gaps),
            "s": lambda: texts.take(pa.array(random.integers(0, len(texts), keys))),
        }}[name[0]]()
    times = {START} * 1_000_000 + version * span + random.integers(0, span, keys)
    columns["event_timestamp"] = pa.array(times).cast(pa.timestamp("us", tz="UTC"))
    table = pa.table(columns)
    writer = writer or pq.ParquetWriter(path, table.schema)
    writer.write_table(table, row_group_size=1 << 20)
writer.close()
"""

FEAST_RUN = f"""
from datetime import datetime, timezone
from feast import FeatureStore

start = datetime.fromtimestamp({START}, timezone.utc)
end = datetime.fromtimestamp({START + DAYS * 86_400}, timezone.utc)
FeatureStore(".").materialize(start, end)
"""

# Takes the rows in the order in which feast-rs wrote them. Everything is in memory before the clock starts.
SQLITE_FLOOR = """
import json, resource, sqlite3, sys, time

source, target, ddl, how = sys.argv[1:5]
database = sqlite3.connect(target, isolation_level=None)
database.executescript("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA cache_size = -65536;" + ddl)
columns = "entity_key, feature_name, value, value_text, event_ts, created_ts"
usage = lambda: sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
if how == "rows":
    rows = sqlite3.connect(source).execute(f"SELECT {columns} FROM bench_stats ORDER BY rowid").fetchall()
    wall, cpu = time.perf_counter(), usage()
    for start in range(0, len(rows), 200_000):
        database.execute("BEGIN")
        marks = "?, ?, ?, ?, ?, ?"
        database.executemany(f"INSERT INTO bench_stats ({columns}) VALUES ({marks})", rows[start : start + 200_000])
        database.execute("COMMIT")
else:
    database.execute("ATTACH ? AS source", (source,))
    wall, cpu = time.perf_counter(), usage()
    database.execute(f"INSERT INTO bench_stats ({columns}) SELECT {columns} FROM source.bench_stats ORDER BY rowid")
print(json.dumps({"wall": time.perf_counter() - wall, "cpu": usage() - cpu}))
"""

# The commands are written into memory before the clock starts; the answers are read as they come.
REDIS_FLOOR = """
import json, resource, socket, sys, threading, time

source, target = int(sys.argv[1]), int(sys.argv[2])
import redis

server = redis.Redis(port=source)
commands, count = [], 0
def part(text): return b"$%d\\r\\n%s\\r\\n" % (len(text), text)
keys = list(server.scan_iter(count=10_000))
for start in range(0, len(keys), 10_000):
    pipeline = server.pipeline(transaction=False)
    for key in keys[start : start + 10_000]:
        pipeline.hgetall(key)
    for key, fields in zip(keys[start : start + 10_000], pipeline.execute()):
        parts = [b"HSET", key, *(text for pair in fields.items() for text in pair)]
        commands.append(b"*%d\\r\\n" % len(parts) + b"".join(map(part, parts)))
        count += 1
chunks = [b"".join(commands[at : at + 2000]) for at in range(0, len(commands), 2000)]
del commands, keys
usage = lambda: sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
connection = socket.create_connection(("127.0.0.1", target))
wall, cpu = time.perf_counter(), usage()
def read():
    answered = 0
    while answered < count:
        answered += connection.recv(1 << 20).count(b"\\n")
reader = threading.Thread(target=read)
reader.start()
for chunk in chunks:
    connection.sendall(chunk)
reader.join()
print(json.dumps({"wall": time.perf_counter() - wall, "cpu": usage() - cpu}))
"""


class Redis:
    """A Redis server of our own, without persistence, on a free port."""

    def __init__(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        binary = shutil.which("redis-server")
        if binary is None:
            sys.exit("error: there is no `redis-server`: install it (`scripts/services.sh`)")
        command = [binary, "--port", str(self.port), "--save", "", "--appendonly", "no"]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 10
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            except OSError:
                if time.monotonic() > deadline:
                    sys.exit("error: redis-server does not answer")

    def cpu(self) -> float:
        """CPU seconds of the server so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(") ", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def keys(self) -> int:
        """Number of keys."""
        with socket.create_connection(("127.0.0.1", self.port)) as connection:
            connection.sendall(b"DBSIZE\r\n")
            return int(connection.recv(64)[1:].strip())

    def stop(self) -> None:
        """Ends the server."""
        self.process.kill()
        self.process.wait()


def run(command: list[str | Path], folder: Path, environment: dict[str, str] | None = None) -> dict[str, float]:
    """Runs a command: wall and CPU seconds and the most memory in MiB, children included."""
    variables = {**os.environ, "FEAST_USAGE": "False", "PYTHONWARNINGS": "ignore", **(environment or {})}
    with tempfile.TemporaryFile() as log:
        start = time.perf_counter()
        process = subprocess.Popen(
            [str(part) for part in command],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=variables,
        )
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        log.seek(0)
        output = log.read().decode(errors="replace")
    if process.returncode != 0:
        sys.exit(f"error: `{command[0]}` ended with {process.returncode}:\n{output[-4000:]}")
    took = {"wall": wall, "cpu": usage.ru_utime + usage.ru_stime, "memory": usage.ru_maxrss / 1024}
    last = output.strip().splitlines()[-1:] or [""]
    # A floor tells what it took without its preparations; its memory holds all rows and says nothing.
    return json.loads(last[0]) if last[0].startswith('{"wall"') else took


def repository(folder: Path, store: str, rows: Path, redis: Redis | None) -> None:
    """A feature repository over the rows."""
    online = "type: sqlite\n  path: online.db"
    if redis is not None:
        online = f"type: redis\n  connection_string: 127.0.0.1:{redis.port}"
    folder.mkdir()
    folder.joinpath("feature_store.yaml").write_text(
        f"project: bench\nregistry: registry.db\nprovider: local\nonline_store:\n  {online}\n"
        "entity_key_serialization_version: 3\n"
    )
    folder.joinpath("definitions.py").write_text(DEFINITIONS)
    folder.joinpath("rows.parquet").symlink_to(rows)


class Bench:
    """Materializes the same rows on each side."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments
        self.ours: Path = arguments.ours.absolute()
        self.peer: Path | None = arguments.peer.absolute() if arguments.peer else None
        self.samples: dict[tuple[str, str, int], list[dict[str, float]]] = {}

    def rows(self, rows: int, keys: int) -> Path:
        """A file with rows, made once."""
        folder = self.arguments.data.absolute()
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"materialize-{rows}-{keys}.parquet"
        if not path.exists():
            partial = path.with_suffix(".partial")
            subprocess.run([self.ours / "bin/python", "-c", DATA, partial, str(rows), str(keys)], check=True)
            partial.rename(path)
        return path

    def keep(self, store: str, side: str, rows: int, sample: dict[str, float]) -> None:
        """Keeps a sample and shows it."""
        self.samples.setdefault((store, side, rows), []).append(sample)
        shown = ", ".join(f"{name} {value:.1f}" for name, value in sample.items())
        print(f"{store}, {side}, {rows} rows: {shown}", file=sys.stderr)

    def side(self, environment: Path, command: list[str | Path], store: str, rows: int, keys: int) -> tuple:
        """Applies and materializes with one side; returns what it took, its folder and its server."""
        folder = Path(tempfile.mkdtemp(prefix="bench-")) / "repository"
        redis = Redis() if store == "redis" else None
        repository(folder, store, self.rows(rows, keys), redis)
        run([environment / "bin/feast", "apply"], folder)
        before = redis.cpu() if redis else 0.0
        took = run(command, folder)
        if redis:
            took["server"] = redis.cpu() - before
        return took, folder, redis

    def round(self, store: str) -> None:
        """Runs every side once."""
        rows, keys = self.arguments.rows, self.arguments.keys
        end = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(START + DAYS * 86_400))
        start = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(START))
        command = [self.ours / "bin/feast", "materialize", start, end]
        took, folder, redis = self.side(self.ours, command, store, rows, keys)
        self.check(folder, redis, keys)
        self.keep(store, "feast-rs", rows, took)
        for name, floor in self.floors(store, folder, redis):
            self.keep(store, name, rows, floor)
        shutil.rmtree(folder.parent)
        if redis:
            redis.stop()
        if self.peer and self.arguments.feast_rows:
            rows = self.arguments.feast_rows
            keys = max(rows // max(self.arguments.rows // self.arguments.keys, 1), 1)
            command = [self.peer / "bin/python", "-c", FEAST_RUN]
            took, folder, redis = self.side(self.peer, command, store, rows, keys)
            self.check(folder, redis, keys)
            self.keep(store, "Feast 0.67.0", rows, took)
            shutil.rmtree(folder.parent)
            if redis:
                redis.stop()

    def check(self, folder: Path, redis: Redis | None, keys: int) -> None:
        """Counts what was written."""
        if redis:
            found, expected = redis.keys(), keys
        else:
            database = sqlite3.connect(folder / "online.db")
            found, expected = database.execute("SELECT count(*) FROM bench_stats").fetchone()[0], keys * len(FEATURES)
        if found != expected:
            sys.exit(f"error: {found} rows were written, expected {expected}")

    def floors(self, store: str, folder: Path, redis: Redis | None):
        """Writes the same bytes with nothing else to do."""
        python = self.ours / "bin/python"
        if redis:
            target = Redis()
            took = run([python, "-c", REDIS_FLOOR, str(redis.port), str(target.port)], folder)
            took["server"] = target.cpu()
            yield "floor: one pipeline", took
            target.stop()
            return
        bare = FEAST_TABLE.split(";")[0] + ";"
        for name, ddl, how in [
            ("floor: executemany", FEAST_TABLE, "rows"),
            ("floor: executemany, without Feast's second index", bare, "rows"),
            ("floor: INSERT ... SELECT, without the second index", bare, "select"),
        ]:
            target = folder / "floor.db"
            yield name, run([python, "-c", SQLITE_FLOOR, folder / "online.db", target, ddl, how], folder)
            for file in folder.glob("floor.db*"):
                file.unlink()

    def report(self) -> str:
        """The table."""
        ours = {store: self.median(key, "wall") for key in self.samples for store in [key[0]] if key[1] == "feast-rs"}
        lines = [
            "| store | side | rows read | wall s | CPU s | server CPU s | peak MiB | rows / CPU s | ratio |",
            "| --- | --- | --: | --: | --: | --: | --: | --: | --: |",
        ]
        for key in self.samples:
            store, side, rows = key
            wall, cpu, memory = (self.median(key, name) for name in ("wall", "cpu", "memory"))
            server = self.median(key, "server")
            ratio = f"{wall / ours[store]:.2f}" if side.startswith("floor") else ""
            cells = [store, side, f"{rows:,}", f"{wall:.1f}", f"{cpu:.1f}"]
            cells += ["" if server is None else f"{server:.1f}", "" if memory is None else f"{memory:.0f}"]
            cells += ["" if side.startswith("floor") else f"{rows / cpu:,.0f}", ratio]
            lines.append(f"| {' | '.join(cells)} |")
        return "\n".join(lines)

    def median(self, key: tuple[str, str, int], of: str) -> float | None:
        """The median of a measure; none where it was not taken."""
        values = [sample[of] for sample in self.samples[key] if of in sample]
        return statistics.median(values) if values else None


def main(args: list[str] | None = None) -> None:
    """Measures and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ours", type=Path, required=True, help="environment with feast-rs and pyarrow")
    parser.add_argument("--peer", type=Path, help="environment with feast==0.67.0; left out where it is not given")
    parser.add_argument("--data", type=Path, default=Path(".build/bench-data"), help="folder for the rows, kept")
    parser.add_argument("--stores", default="sqlite;redis")
    parser.add_argument("--rows", type=int, default=10 * MILLION)
    parser.add_argument("--keys", type=int, default=MILLION)
    parser.add_argument("--feast-rows", type=int, default=MILLION, help="rows that Feast gets; 0: none")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--results", type=Path, help="folder for the report")
    bench = Bench(parser.parse_args(args))
    for _ in range(bench.arguments.rounds):
        for store in bench.arguments.stores.split(";"):
            bench.round(store)
    report = f"Materialization, medians of {bench.arguments.rounds} rounds, {machine()}\n\n{bench.report()}\n"
    print(report)
    if folder := bench.arguments.results:
        folder.mkdir(parents=True, exist_ok=True)
        folder.joinpath(time.strftime("materialize-%Y%m%dT%H%M%SZ.md", time.gmtime())).write_text(report)


if __name__ == "__main__":
    main()
