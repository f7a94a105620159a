"""Made-up reports of taxis, and a feature store that waits for them."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from feast import FeatureStore

HERE = Path(__file__).resolve().parent
NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
ZONES = np.array(["airport", "center", "harbour", "hills"])


def reports(first: int, rows: int, taxis: int = 50_000) -> pa.Table:
    """The reports with these numbers: each taxi in turn, one millisecond after the other."""
    numbers = np.arange(first, first + rows, dtype=np.int64)
    start = np.datetime64(NOON.replace(tzinfo=None), "us")
    return pa.table(
        {
            "taxi_id": numbers % taxis,
            "event_timestamp": pa.array(start + numbers * 1000, pa.timestamp("us", "UTC")),
            "speed": pa.array((numbers * 7 % 90).astype(np.float32)),
            "passengers": numbers % 5,
            "zone": pa.array(ZONES[numbers % 4]),
        }
    )


def open_store(folder: Path) -> FeatureStore:
    """The feature store in a folder of its own, applied, with a history of one report."""
    (folder / "data/history").mkdir(parents=True)
    for name in ("feature_store.yaml", "definitions.py"):
        shutil.copy(HERE / "feature_repo" / name, folder / name)
    # The first file says which columns the history has.
    pq.write_table(reports(0, 1), folder / "data/history/begin.parquet")
    store = FeatureStore(repo_path=str(folder))
    import sys

    sys.path.insert(0, str(folder))
    try:
        import definitions
    finally:
        sys.path.remove(str(folder))
    store.apply([definitions.taxi, definitions.reports, definitions.taxi_state])
    return store
