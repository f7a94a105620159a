"""Processes that are killed leave nothing half done."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import time
from datetime import timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from drivers import T0
from inputs import (
    MATERIALIZE,
    PRELUDE,
    VIEW,
    without_online_store,
    write_definitions,
)


def test_after_a_kill_the_next_run_is_exact(feast, tmp_path):
    write_definitions(tmp_path, PRELUDE + VIEW)
    n = 20_000
    times = [T0 - timedelta(minutes=i % 5000) for i in range(n)]
    columns = {
        "driver_id": np.arange(n) % 7000,
        "event_timestamp": pa.array(times, pa.timestamp("us", "UTC")),
        "created": pa.array(times, pa.timestamp("us", "UTC")),
        "conv_rate": np.arange(n) * 0.5,
        "trips": np.arange(n),
        "city": [str(i) for i in range(n)],
    }
    pq.write_table(pa.table(columns), tmp_path / "stats.parquet")

    def rows() -> list[tuple[Any, ...]]:
        connection = sqlite3.connect(tmp_path / "online.db")
        query = "SELECT entity_key, feature_name, value, event_ts, event_ts_micros FROM proj_v ORDER BY 1, 2"
        found = connection.execute(query).fetchall()
        connection.close()
        return found

    def timed(*arguments: str) -> float:
        started = time.monotonic()
        assert subprocess.run(command(*arguments), capture_output=True, check=False).returncode == 0
        return time.monotonic() - started

    def command(*arguments: str) -> list[str]:
        return [sys.executable, "-m", "feast._cli", "-c", str(tmp_path), *arguments]

    def killed(after: float, *arguments: str) -> None:
        process = subprocess.Popen(
            command(*arguments), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            process.wait(after)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    applying, materializing = timed("apply"), timed(*MATERIALIZE)
    expected = rows()
    assert len(expected) == 2 * 7000
    for share in (0.3, 0.6, 0.8, 0.9):
        without_online_store(tmp_path)
        for path in tmp_path.glob("registry.db*"):
            path.unlink()
        killed(applying * share, "apply")
        code, text = feast.run(tmp_path, "apply")
        assert code == 0, text
        killed(materializing * share, *MATERIALIZE)
        code, text = feast.run(tmp_path, *MATERIALIZE)
        assert code == 0, text
        assert rows() == expected
        assert feast.run(tmp_path, "plan", "--exit-code")[0] == 0
        assert not list(tmp_path.glob(".*.tmp"))
