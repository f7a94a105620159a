"""The point-in-time join beside hand-written ASOF joins and Feast, on the same files in the same run."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from data import FEATURES
from measure import HERE, Measured, made, markdown, run_worker, shown

MILLION = 1_000_000


@dataclass(frozen=True)
class Case:
    """How much is joined to how much."""

    entities: int
    features: int
    keys: int
    views: int = 1
    ttl_days: int = 0
    """None where zero."""
    stream: bool = True
    """Whether the answer is read batch by batch; else it is a table."""
    memory_limit: str = ""
    """Of feast-rs; nobody else takes part then."""


CASES = {
    "100 k x 1 M": Case(100_000, MILLION, 10_000),
    "1 M x 10 M": Case(MILLION, 10 * MILLION, 100_000),
    "1 M x 10 M, ttl": Case(MILLION, 10 * MILLION, 100_000, ttl_days=1),
    "1 M x 10 M, 5 views": Case(MILLION, 10 * MILLION, 100_000, views=5),
    "10 M x 10 M": Case(10 * MILLION, 10 * MILLION, 100_000),
    "1 M x 10 M, table": Case(MILLION, 10 * MILLION, 100_000, stream=False),
    "1 M x 10 M, 5 views, table": Case(MILLION, 10 * MILLION, 100_000, views=5, stream=False),
    "10 M x 10 M, table": Case(10 * MILLION, 10 * MILLION, 100_000, stream=False),
    "1 M x 100 M": Case(MILLION, 100 * MILLION, MILLION),
    "10 M x 100 M in 1 GiB": Case(10 * MILLION, 100 * MILLION, MILLION, memory_limit="1GiB"),
}
DEFAULT = ["100 k x 1 M", "1 M x 10 M", "1 M x 10 M, ttl", "1 M x 10 M, 5 views", "10 M x 10 M"]
PEERS = ["DuckDB", "Polars"]

DEFINITIONS = """
from datetime import timedelta

from feast import Entity, FeatureView, Field, FileSource, ValueType
from feast.types import Float32, Float64, Int64, String

TYPES = {{"n": Int64, "d": Float64, "f": Float32, "s": String}}
user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.INT64)
for number, path in enumerate({files!r}):
    globals()[f"v{{number}}"] = FeatureView(
        name=f"v{{number}}",
        entities=[user],
        ttl=timedelta(days={ttl_days}),
        schema=[Field(name=name, dtype=TYPES[name[0]]) for name in {features!r}],
        source=FileSource(name=f"source_{{number}}", path=path, timestamp_field="event_timestamp"),
    )
"""


def repository(folder: Path, environment: Path, offline_store: str, files: list[Path], case: Case) -> Path:
    """A feature repository over the files, applied."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "feature_store.yaml").write_text(
        "project: bench\nregistry: registry.db\nprovider: local\nentity_key_serialization_version: 3\n"
        f"offline_store:\n    type: {offline_store}\n"
        + (f"    memory_limit: {case.memory_limit}\n" if case.memory_limit and offline_store == "file" else "")
        + "online_store:\n    type: sqlite\n    path: online.db\n"
    )
    paths = [str(file) for file in files]
    definitions = DEFINITIONS.format(files=paths, ttl_days=case.ttl_days, features=FEATURES)
    (folder / "definitions.py").write_text(definitions)
    applied = subprocess.run(
        [environment / "bin" / "feast", "apply"], cwd=folder, capture_output=True, text=True, check=False
    )
    if applied.returncode != 0:
        sys.exit(f"error: `feast apply` in `{folder}` failed:\n{applied.stderr}")
    return folder


@dataclass
class Sides:
    """The environments that take part."""

    ours: Path
    """With feast-rs, DuckDB and Polars."""
    peer: Path | None
    """With Feast; none to leave it out."""


def measure(name: str, case: Case, sides: Sides, data: Path, rounds: int, feast_cap: int) -> list[Measured]:
    """All samples of one case; the sides take turns."""
    python = sides.ours / "bin" / "python"
    entities = made(python, data, "entities", case.entities, case.keys, 99)
    files = [made(python, data, "features", case.features, case.keys, 1 + view) for view in range(case.views)]
    worker, common = HERE / "workers" / "join.py", [entities, case.ttl_days, *files]
    ours = repository(data / "ours", sides.ours, "file", files, case)
    work: list[tuple[Measured, list, dict[str, str]]] = []
    how = [*(["--stream"] if case.stream else []), *(["--entity-file"] if case.memory_limit else [])]
    work.append((Measured(name, "feast-rs"), [python, worker, "feast", *common, "--repository", ours, *how], {}))
    if not case.memory_limit:
        for peer in PEERS:
            work.append((Measured(name, peer), [python, worker, peer.lower(), *common, *how], {}))
        work.append((Measured(name, "scan only (pyarrow)"), [python, worker, "scan", *common], {}))
        if sides.peer and case.entities * case.features * case.views <= feast_cap:
            theirs = repository(data / "theirs", sides.peer, "duckdb", files, case)
            command = [sides.peer / "bin" / "python", worker, "feast", *common, "--repository", theirs]
            work.append((Measured(name, "Feast (duckdb)"), command, {"BENCH_ENTITY_FRAME": "pandas"}))
    for number in range(rounds + 1):
        # Summing up the values of a stream takes time: the first round does, and is not counted.
        values = number == 0
        what = "values" if values else f"round {number} of {rounds}"
        print(f"    {name}: {what}", file=sys.stderr)
        for measured, command, environment in work:
            if measured.failure or (values and command[2] == "scan"):
                continue
            sample = run_worker([*command, *(["--values"] if values else [])], environment, memory_cap=16 << 30)
            measured.failure = sample.get("failure", "")
            if values:
                measured.checksum = sample.get("checksum", "")
            elif not measured.failure:
                measured.samples.append(sample)
    return [measured for measured, _, _ in work]


def table(results: list[Measured]) -> str:
    """Medians as Markdown. The ratios say how much more each side takes than feast-rs."""
    ours = {measured.work: measured for measured in results if measured.side == "feast-rs"}
    rows = []
    for measured in results:
        reference = ours[measured.work]
        cells = [measured.work, measured.side]
        for of, digits in (("wall", 2), ("cpu", 2), ("memory", 0)):
            cells.append(shown(measured.median(of), digits))
        for of in ("wall", "cpu", "memory"):
            own, other = reference.median(of), measured.median(of)
            cells.append(f"{other / own:.2f}" if own and other and measured is not reference else "")
        same = "same" if measured.checksum == reference.checksum else "DIFFERENT"
        cells.append(measured.failure or (same if measured.checksum else ""))
        rows.append(cells)
    header = ["entity rows x feature rows", "side", "wall s", "CPU s", "peak MiB", "wall ratio", "CPU ratio"]
    return markdown([*header, "memory ratio", "values"], rows)
