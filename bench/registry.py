"""Measures registries beside Feast in the same run: in SQLite and in PostgreSQL, with few and with many feature views.

    make bench-registry
    python bench/registry.py --ours ENVIRONMENT --binary FILE [--peer ENVIRONMENT] [--registry postgres] [--views 1000,5000]

CPU time, children included, is what a busy machine distorts least. Importing the definitions is Python's work on both sides
and is measured apart; the column beside it is what is left.

**One changed view** is committed to a registry of 50 and to one of thousands, with an online store in SQLite: by `feast
apply` in a repository that defines it alone, and by `store.apply([view])` in a process that has the store open already
(the median of some calls). Feast does the same on a copy of the same registry: the tables are Feast's own. Its command
takes minutes with thousands of views and is only run with 50.

**The server** is started on a registry in PostgreSQL and asked for `/ready` until that says so. A refresh is what the
server itself says that it took, in its log, from asking the database to having the new snapshot in place; the view is
changed by another process. The registry is polled once a second meanwhile.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from postgres import Postgres, postgres
from run import Command

HEAD = """
from datetime import timedelta
from feast import Entity, FeatureView, Field, FileSource, ValueType
from feast.types import Float32, Int64

driver = Entity(name="driver", join_keys=["driver_id"], value_type=ValueType.INT64)
for number in {numbers}:
    source = FileSource(name=f"source_{{number}}", path="data.parquet", timestamp_field="event_timestamp")
    globals()[f"source_{{number}}"] = source
    globals()[f"view_{{number}}"] = FeatureView(
        name=f"view_{{number}}",
        entities=[driver],
        ttl=timedelta(days=1),
        schema=[
            Field(name="driver_id", dtype=Int64),
            *(Field(name=f"feature_{{at}}", dtype=Float32) for at in range(10)),
        ],
        source=source,
        description="{description}" if number == 7 else "",
    )
"""

DATA = """
import pandas as pd
frame = pd.DataFrame({"driver_id": [1], "event_timestamp": pd.to_datetime(["2026-11-20T00:00:00Z"]),
    **{f"feature_{at}": pd.Series([0.5], dtype="float32") for at in range(10)}})
frame.to_parquet("data.parquet")
"""

# Changes one view as often as asked, in one process; prints the median wall and CPU time in milliseconds.
SDK = """
import json, statistics, sys, time
from feast import FeatureStore
from definitions import driver, source_7, view_7

store = FeatureStore(repo_path=".")
store.apply([driver, source_7, view_7])
samples = []
for number in range(int(sys.argv[1])):
    view_7.description = f"change {number}"
    wall, cpu = time.perf_counter(), time.process_time()
    store.apply([view_7])
    samples.append((time.perf_counter() - wall, time.process_time() - cpu))
print(json.dumps([statistics.median(column) * 1000 for column in zip(*samples)]))
"""


@dataclass
class Side:
    """One of the two products."""

    name: str
    environment: Path
    binary: Path | None = None

    def program(self, name: str) -> str:
        """A program of its environment."""
        return str(self.environment.absolute() / "bin" / name)


@dataclass
class Bench:
    """What is measured into one table."""

    scratch: Path
    kind: str
    server: Postgres | None
    rows: list[dict] = field(default_factory=list)

    def repository(self, side: Side, name: str, copy_of: Path | None = None) -> Path:
        """An empty repository with a registry of its own, or with a copy of another's."""
        folder = self.scratch / name
        folder.mkdir(parents=True)
        if copy_of:
            for file in copy_of.iterdir():
                if file.is_file() and file.name != "feature_store.yaml":
                    shutil.copy(file, folder)
        if self.server:
            url = self.server.create(name, *([copy_of.name] if copy_of else []))
        else:
            url = f"sqlite:///{folder}/registry.sqlite"
        (folder / "feature_store.yaml").write_text(
            f"project: bench\nprovider: local\nregistry:\n  registry_type: sql\n  path: {url}\n"
            "online_store:\n  type: sqlite\n  path: online.db\nentity_key_serialization_version: 3\n"
        )
        if not copy_of:
            subprocess.run([side.program("python"), "-c", DATA], cwd=folder, check=True)
        return folder

    def measure(
        self, what: str, side: Side, views: int, command: list[str], folder: Path, imported: float = 0
    ) -> float:
        """Runs a command once; returns its CPU time in milliseconds, without the import."""
        found = Command(what, side.name, command, folder).run()
        found["rest_ms"] = max(found["cpu_ms"] - imported, 0)
        self.add(what, side, views, found)
        return found["rest_ms"]

    def add(self, what: str, side: Side, views: int, found: dict) -> None:
        """Adds a row."""
        self.rows.append({"registry": self.kind, "what": what, "side": side.name, "views": views, **found})
        print(f"    {self.kind}: {side.name}: {what}, {views} views: {found}", file=sys.stderr, flush=True)

    def of(self, what: str, side: str, views: int, measure: str) -> float | None:
        """What was measured; the median of several samples."""
        found = [row[measure] for row in self.rows if (row["what"], row["side"], row["views"]) == (what, side, views)]
        return statistics.median(found) if found else None


def define(folder: Path, numbers: str, description: str = "") -> None:
    """Writes the definitions of these views."""
    (folder / "definitions.py").write_text(HEAD.format(numbers=numbers, description=description))


def import_of(bench: Bench, side: Side, views: int, folder: Path) -> float:
    """CPU time of importing the definitions."""
    return bench.measure(
        "import of the definitions", side, views, [side.program("python"), "-c", "import definitions"], folder
    )


def fill(bench: Bench, side: Side, views: int, name: str) -> tuple[Path, float]:
    """A repository of so many views, applied for the first time."""
    folder = bench.repository(side, name)
    define(folder, f"range({views})")
    imported = import_of(bench, side, views, folder)
    bench.measure("first apply", side, views, [side.program("feast"), "apply"], folder, imported)
    return folder, imported


def one_change(bench: Bench, side: Side, views: int, filled: Path, commands: int, calls: int) -> None:
    """One changed view in a registry of so many, by the command and by the SDK."""
    name = re.sub(r"\W", "_", f"change_{side.name}_{views}").lower()
    folder = bench.repository(side, name, filled)
    define(folder, "[7]")
    imported = import_of(bench, side, 1, folder)
    for number in range(commands):
        define(folder, "[7]", f"change {number} of {views}")
        bench.measure("one view changed, command", side, views, [side.program("feast"), "apply"], folder, imported)
    command = [side.program("python"), "-W", "ignore", "-c", SDK, str(calls)]
    done = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
    wall, cpu = json.loads(done.stdout.splitlines()[-1])
    bench.add("one view changed, SDK", side, views, {"wall_ms": wall, "cpu_ms": cpu, "rest_ms": cpu})


@contextlib.contextmanager
def serving(command: list[str], folder: Path, log: Path) -> Iterator[float]:
    """Runs a server; gives the seconds until `/ready` or `/health` answers with 200."""
    url = f"http://127.0.0.1:{command[command.index('--port') + 1]}"
    with log.open("wb") as messages:
        started = time.perf_counter()
        process = subprocess.Popen(
            command, cwd=folder, stdout=messages, stderr=messages, env={**os.environ, "NO_COLOR": "1"}
        )
        try:
            while True:
                if process.poll() is not None:
                    sys.exit(f"error: the server ended:\n{log.read_text()[-2000:]}")
                with contextlib.suppress(OSError, urllib.error.URLError):
                    urllib.request.urlopen(f"{url}/ready", timeout=10).close()
                    break
                time.sleep(0.005)
            yield time.perf_counter() - started
        finally:
            process.terminate()
            process.wait()


def server(bench: Bench, side: Side, views: int, rounds: int) -> None:
    """Start and refresh of a server on a registry of so many views."""
    folder, _ = fill(bench, side, views, f"server_{views}")
    changes = bench.repository(side, f"server_changes_{views}")
    shutil.copy(folder / "feature_store.yaml", changes)
    (changes / "online.db").symlink_to(folder / "online.db")
    command = [
        str(side.binary.absolute()),
        "--log-level",
        "info",
        "serve",
        "--port",
        "16566",
        "-r",
        "1",
        "--no-access-log",
    ]
    log = folder / "server.log"
    for _ in range(rounds):
        with serving(command, folder, log) as seconds:
            bench.add("server start until ready", side, views, {"wall_ms": seconds * 1000})
    with serving(command, folder, log):
        for number in range(rounds):
            define(changes, "[7]", f"change {number}")
            subprocess.run([side.program("feast"), "apply"], cwd=changes, check=True, capture_output=True)
            time.sleep(1.5)
    for took in re.findall(r"the registry was read anew.*?took_ms\"?[=:]([0-9.]+)", log.read_text()):
        bench.add("refresh after one change", side, views, {"wall_ms": float(took)})


def table(rows: list[dict]) -> str:
    """All samples as Markdown, the medians of those of one kind."""
    lines = [
        "| | registry | views | side | CPU ms | without the import | wall ms | memory MiB |",
        "|---|---|--:|---|--:|--:|--:|--:|",
    ]
    groups: dict[tuple, list[dict]] = {}
    for row in rows:
        groups.setdefault((row["what"], row["registry"], row["views"], row["side"]), []).append(row)
    for (what, registry, views, side), group in groups.items():
        cells = []
        for measure in ("cpu_ms", "rest_ms", "wall_ms", "memory_mib"):
            found = [row[measure] for row in group if measure in row]
            cells.append(f"{statistics.median(found):.1f}" if found else "")
        lines.append(f"| {what} | {registry} | {views} | {side} | {' | '.join(cells)} |")
    return "\n".join(lines)


def bars(bench: Bench, few: int, small: int, large: int, huge: int) -> Iterator[tuple[str, str, str]]:
    """The bars of this product, and what was found."""
    ours, peer = (bench.of("first apply", side, small, "rest_ms") for side in ("feast-rs", "Feast"))
    if ours and peer:
        yield f"first apply of {small}, beside Feast", "50x", f"{peer / ours:.0f}x"
    if (plan := bench.of("plan, no change", "feast-rs", large, "rest_ms")) is not None:
        yield f"no-change plan of {large}, CPU", "1,000 ms", f"{plan:.0f} ms"
    # What the user waits for, import and all; what is left without the import says more about the registry.
    for how, measure, said, bar in (
        ("command", "cpu_ms", "command, CPU", "2.0x"),
        ("command", "wall_ms", "command, wall", "2.0x"),
        ("command", "rest_ms", "command, CPU without the import", ""),
        ("SDK", "rest_ms", "SDK, CPU", "2.0x"),
    ):
        many, one = (bench.of(f"one view changed, {how}", "feast-rs", views, measure) for views in (large, few))
        if many and one:
            yield f"one view changed in {large} over {few}, {said}", bar, f"{many / one:.1f}x"
    for measure in ("wall_ms", "cpu_ms"):
        if (listed := bench.of("feature-views list, binary", "feast-rs", large, measure)) is not None:
            yield f"feature-views list of {large}, binary, {measure.split('_')[0]}", "100 ms", f"{listed:.0f} ms"
    if (start := bench.of("server start until ready", "feast-rs", huge, "wall_ms")) is not None:
        yield f"server start with {huge}", "2,000 ms", f"{start:.0f} ms"
    if (refresh := bench.of("refresh after one change", "feast-rs", huge, "wall_ms")) is not None:
        yield f"refresh after one change in {huge}", "50 ms", f"{refresh:.0f} ms"


def measure_all(bench: Bench, ours: Side, peer: Side | None, arguments: argparse.Namespace) -> None:
    """Everything, in one kind of registry."""
    few, small, large = 50, arguments.small, arguments.large
    fill(bench, ours, small, f"ours_{small}")
    if peer:
        fill(bench, peer, small, f"peer_{small}")
    filled = {}
    for views in (few, large):
        filled[views], imported = fill(bench, ours, views, f"ours_{views}")
    for _ in range(arguments.rounds):
        bench.measure("plan, no change", ours, large, [ours.program("feast"), "plan"], filled[large], imported)
        for name, feast in (("environment", ours.program("feast")), ("binary", str(ours.binary.absolute()))):
            what = f"feature-views list, {name}"
            bench.measure(what, ours, large, [feast, "feature-views", "list"], filled[large])
    if peer:
        what = "feature-views list, environment"
        bench.measure(what, peer, large, [peer.program("feast"), "feature-views", "list"], filled[large])
    for views in (few, large):
        one_change(bench, ours, views, filled[views], arguments.rounds, 3 * arguments.rounds)
        if peer:
            one_change(bench, peer, views, filled[views], int(views == few), 3)
    if bench.server:
        server(bench, ours, arguments.huge, arguments.rounds)


def main() -> None:
    """Measures and prints tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ours", type=Path, required=True, help="environment with feast-rs")
    parser.add_argument("--peer", type=Path, help="environment with feast==0.67.0")
    parser.add_argument("--binary", type=Path, required=True, help="the standalone command")
    parser.add_argument("--registry", choices=["sqlite", "postgres", "both"], default="both")
    parser.add_argument("--small", type=int, default=1000, help="views of the first apply that Feast does too")
    parser.add_argument("--large", type=int, default=5000)
    parser.add_argument("--huge", type=int, default=10000, help="views of the server")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--results", type=Path, help="directory for a JSON file with every sample")
    arguments = parser.parse_args()
    ours = Side("feast-rs", arguments.ours, arguments.binary)
    peer = Side("Feast", arguments.peer) if arguments.peer else None
    rows, found = [], []
    for kind in ("sqlite", "postgres"):
        if arguments.registry not in (kind, "both"):
            continue
        with (
            tempfile.TemporaryDirectory() as scratch,
            postgres() if kind == "postgres" else contextlib.nullcontext() as server,
        ):
            bench = Bench(Path(scratch), kind, server)
            measure_all(bench, ours, peer, arguments)
            rows += bench.rows
            found += [(kind, *bar) for bar in bars(bench, 50, arguments.small, arguments.large, arguments.huge)]
    print(f"\n{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, medians\n\n{table(rows)}\n")
    print("| registry | | bar | found |\n|---|---|--:|--:|")
    for row in found:
        print(f"| {' | '.join(row)} |")
    if arguments.results:
        arguments.results.mkdir(parents=True, exist_ok=True)
        file = arguments.results / f"registry-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}.json"
        file.write_text(json.dumps(rows, indent=2) + "\n")
        print(f"\nall samples: {file}")


if __name__ == "__main__":
    main()
