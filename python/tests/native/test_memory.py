"""Answers that are far larger than the memory limit stream out: the process never holds them."""

from __future__ import annotations

import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from drivers import T0

N_KEYS, N_FEATURES, N_ROWS = 5_000, 16, 1_000_000
LIMIT = 28 << 20
# On top of the limit comes what the allocator keeps for the next buffers.
MOST = 2 * LIMIT
ANSWER = N_ROWS * N_FEATURES * 8

JOB = """
import sys
from pathlib import Path

from feast import FeatureStore


def resident(word):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(word))


def to_arrow_batches(job):
    return sum(batch.num_rows for batch in job.to_arrow_batches())


def to_remote_storage(job):
    job.to_remote_storage()


store = FeatureStore(repo_path=".")
features = [f"wide:f{number}" for number in range(N_FEATURES)]
read = globals()[sys.argv[1]]
# What is loaded once is not of the answer.
read(store.get_historical_features(Path("few.parquet"), features))
before = resident("VmRSS")
Path("/proc/self/clear_refs").write_text("5")
read(store.get_historical_features(Path("many.parquet"), features))
print(resident("VmHWM") - before)
"""


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A feature store whose answer takes four times the limit."""
    folder = tmp_path_factory.mktemp("wide")
    limit = f"project: wide\nregistry: registry.db\noffline_store: {{type: file, memory_limit: {LIMIT}}}\n"
    (folder / "feature_store.yaml").write_text(limit)
    random = np.random.default_rng(5)
    features = {f"f{number}": random.random(N_KEYS) for number in range(N_FEATURES)}
    times = pa.array([T0] * N_KEYS)
    pq.write_table(
        pa.table({"id": range(N_KEYS), "event_timestamp": times, **features}),
        folder / "wide.parquet",
    )
    for name, n_rows in (("few", 10), ("many", N_ROWS)):
        ids = random.integers(0, N_KEYS, n_rows)
        times = pa.array(np.full(n_rows, np.datetime64("2026-11-21", "us")))
        pq.write_table(pa.table({"id": ids, "event_timestamp": times}), folder / f"{name}.parquet")

    from feast import Entity, FeatureStore, FeatureView, Field, FileSource
    from feast.types import Float64, Int64

    entity = Entity(name="id", join_keys=["id"])
    source = FileSource(name="wide", path="wide.parquet", timestamp_field="event_timestamp")
    view = FeatureView(
        name="wide",
        entities=[entity],
        ttl=timedelta(days=3),
        schema=[
            Field(name="id", dtype=Int64),
            *(Field(name=name, dtype=Float64) for name in features),
        ],
        source=source,
    )
    FeatureStore(repo_path=str(folder)).apply([entity, source, view])
    return folder


@pytest.mark.parametrize("way", ["to_arrow_batches", "to_remote_storage"])
def test_an_answer_of_four_times_the_limit_is_never_held(wide: Path, way: str) -> None:
    assert ANSWER > 4 * LIMIT
    script = JOB.replace("N_FEATURES", str(N_FEATURES))
    done = subprocess.run(
        [sys.executable, "-c", script, way], cwd=wide, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < MOST, f"{int(done.stdout) >> 20} MiB"
    if way == "to_remote_storage":
        files = (wide / "data/exports").rglob("*.parquet")
        assert sum(pq.read_metadata(file).num_rows for file in files) == N_ROWS + 10


def test_the_command_writes_files_without_holding_the_answer(wide: Path) -> None:
    def peak(entity: str, place: str) -> int:
        """The most memory that the command held, in bytes."""
        arguments = ["get-historical-features", "-d", f"@{entity}.parquet", "--save", place]
        features = [word for number in range(N_FEATURES) for word in ("-f", f"wide:f{number}")]
        script = (
            "import resource, subprocess, sys\n"
            "subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)\n"
            "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
        )
        feast = str(Path(sys.executable).with_name("feast"))
        command = [sys.executable, "-c", script, feast, *arguments, *features]
        done = subprocess.run(command, cwd=wide, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return int(done.stdout) << 10

    little = peak("few", "little.parquet")
    assert peak("many", "much.parquet") - little < MOST
    assert pq.read_metadata(wide / "much.parquet").num_rows == N_ROWS
