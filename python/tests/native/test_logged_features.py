"""Served features, kept in the log of their feature service."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest

from feast import FeatureService, FeatureStore
from feast.feature_logging import LoggingConfig
from feast.infra.offline_stores.file_source import FileLoggingDestination

LOGS = pa.table({"driver_id": [1001, 1002], "conv_rate": [0.5, None], "day": ["mo", "tu"]})


def service(store: FeatureStore, partition_by: list[str] | None = None) -> FeatureService:
    destination = FileLoggingDestination(path="data/logs", partition_by=partition_by)
    view = store.get_feature_view("driver_stats")
    return FeatureService(
        name="logged", features=[view], logging_config=LoggingConfig(destination=destination)
    )


def test_tables_and_files_become_one_log(
    store: FeatureStore, repository: Path, tmp_path: Path
) -> None:
    (tmp_path / "collected").mkdir()
    pq.write_table(LOGS, tmp_path / "collected" / "a.parquet")
    store.write_logged_features(LOGS, service(store))
    store.write_logged_features(tmp_path / "collected", service(store))
    logged = pyarrow.dataset.dataset(repository / "data" / "logs", format="parquet").to_table()
    assert logged.to_pylist() == LOGS.to_pylist() * 2


def test_partitions_are_folders(store: FeatureStore, repository: Path) -> None:
    store.write_logged_features(LOGS, service(store, ["day"]))
    folders = sorted(path.name for path in (repository / "data" / "logs").iterdir())
    assert folders == ["day=mo", "day=tu"]


def test_a_service_without_logging_is_told(store: FeatureStore) -> None:
    plain = FeatureService(name="plain", features=[store.get_feature_view("driver_stats")])
    with pytest.raises(ValueError, match="`plain` has no logging config"):
        store.write_logged_features(LOGS, plain)
