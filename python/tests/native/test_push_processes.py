"""Pushes of several processes at the same time, some of which are killed: what was acknowledged is there, once and whole."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow.dataset
import pyarrow.parquet as pq
from drivers import T0, definitions, write_repository

from feast import FeatureStore, FeatureView, FileSource, PushSource

BATCH = 20
PUSH = """
import sys
from datetime import datetime, timedelta, timezone
import pyarrow as pa
from feast import FeatureStore
from feast.data_source import PushMode
store = FeatureStore(repo_path=".")
first, pushes = int(sys.argv[1]), int(sys.argv[2])
noon = datetime(2026, 11, 20, 12, tzinfo=timezone.utc)
for number in range(first, first + pushes):
    rows = range(20)
    table = pa.table({
        "driver_id": [number * 100 + row for row in rows],
        "event_timestamp": pa.array([noon + timedelta(seconds=number)] * 20, pa.timestamp("us", "UTC")),
        "created": pa.array([noon] * 20, pa.timestamp("us", "UTC")),
        "conv_rate": pa.array([number / 1000] * 20, pa.float32()),
        "trips": [number] * 20,
        "city": ["x"] * 20,
    })
    store.push("push", table, to=PushMode.ONLINE_AND_OFFLINE)
    print(number, flush=True)
"""


def pushing(folder: Path, first: int, pushes: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PUSH, str(first), str(pushes)],
        cwd=folder,
        stdout=subprocess.PIPE,
        text=True,
    )


def store_over(folder: Path) -> FeatureStore:
    """The drivers, with a history that is a directory."""
    write_repository(folder)
    (folder / "history").mkdir()
    (folder / "pushed.parquet").rename(folder / "history/begin.parquet")
    drivers: Any = definitions()
    history = FileSource(
        name="history",
        path="history",
        timestamp_field="event_timestamp",
        created_timestamp_column="created",
    )
    fed = drivers["driver_push"]
    view = FeatureView(
        name="driver_push",
        entities=[drivers["driver"]],
        ttl=timedelta(0),
        schema=fed.schema,
        source=PushSource(name="push", batch_source=history),
    )
    store = FeatureStore(repo_path=str(folder))
    store.apply([drivers["driver"], view])
    return store


def test_killed_and_competing_pushes_lose_nothing(tmp_path: Path) -> None:
    store = store_over(tmp_path)
    before = pq.read_table(tmp_path / "history/begin.parquet").num_rows
    acknowledged: set[int] = set()
    steady = [pushing(tmp_path, 101 + 100 * at, 25) for at in range(2)]
    for round_number in range(4):
        doomed = pushing(tmp_path, 1000 + 100 * round_number, 90)
        assert doomed.stdout is not None
        for _ in range(2 + round_number):
            acknowledged.add(int(doomed.stdout.readline()))
        doomed.send_signal(signal.SIGKILL)
        # What it said before it died counts too.
        acknowledged.update(int(line) for line in doomed.stdout if line.strip())
        doomed.wait()
    for process in steady:
        output, _ = process.communicate(timeout=240)
        assert process.returncode == 0
        acknowledged.update(map(int, output.split()))
    assert len(acknowledged) >= 50 + 14

    table = store_history(store, tmp_path)
    rows = Counter(table["trips"].to_pylist())
    pushed = {number: count for number, count in rows.items() if number in acknowledged}
    assert set(pushed) == acknowledged
    assert set(pushed.values()) == {BATCH}
    # A batch that nobody acknowledged is there as a whole or not at all.
    unknown = {
        number: count
        for number, count in rows.items()
        if number >= 1000 and number not in acknowledged
    }
    assert set(unknown.values()) <= {BATCH}
    assert table.num_rows == before + BATCH * (len(acknowledged) + len(unknown))
    # Small files became few meanwhile.
    assert len(list((tmp_path / "history").glob("*.parquet"))) < len(acknowledged) / 2
    answer = store.get_online_features(
        features=["driver_push:trips"],
        entity_rows=[
            {"driver_id": number * 100 + row} for number in sorted(acknowledged) for row in (0, 19)
        ],
    ).to_dict()
    assert answer["trips"] == [number for number in sorted(acknowledged) for _ in range(2)]


def store_history(store: FeatureStore, folder: Path) -> Any:
    """The history as the feature store reads it: a killed merge may have left files that others hold by now."""
    source = store.get_feature_view("driver_push").batch_source
    rows = store._native.source_rows(
        source.to_proto().SerializeToString(), 0, int((T0 + timedelta(days=30)).timestamp() * 1e6)
    )
    import pyarrow as pa

    table = pa.RecordBatchReader.from_stream(rows).read_all()
    assert (
        pyarrow.dataset.dataset(folder / "history", format="parquet").count_rows() >= table.num_rows
    )
    return table
