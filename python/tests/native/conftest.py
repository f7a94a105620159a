"""A small feature store on disk: three drivers, one batch view, one view that is pushed to."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from drivers import HOUR, T0, definitions

from feast import FeatureStore


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A folder with a configuration and the data of the drivers."""
    rows = [
        (1001, T0 - 2 * HOUR, T0 - 2 * HOUR, 0.1, 10, "a"),
        (1001, T0, T0, 0.2, 20, "b"),
        (1001, T0, T0 + timedelta(minutes=1), 0.3, 30, "c"),
        (1002, T0 - HOUR, T0, 0.4, 40, None),
        (1003, T0 - 72 * HOUR, T0, 0.5, 50, "e"),
    ]
    names = ["driver_id", "event_timestamp", "created", "conv_rate", "trips", "city"]
    table = pa.table({name: [row[at] for row in rows] for at, name in enumerate(names)})
    pq.write_table(table, tmp_path / "stats.parquet")
    pq.write_table(table, tmp_path / "pushed.parquet")
    (tmp_path / "feature_store.yaml").write_text(
        "project: proj\nregistry: registry.db\nonline_store:\n  type: sqlite\n  path: online.db\n"
    )
    return tmp_path


@pytest.fixture
def store(repository: Path) -> FeatureStore:
    """A feature store whose objects are applied."""
    store = FeatureStore(repo_path=str(repository))
    store.apply(list(definitions().values()))
    return store
