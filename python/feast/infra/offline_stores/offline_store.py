"""Where Feast's users find the retrieval job, and the base class of offline stores that a team writes itself."""

from __future__ import annotations

from abc import ABC
from collections.abc import Callable
from datetime import datetime
from typing import Any

from feast._settings import Settings
from feast._unavailable import NotAvailableYet
from feast.repo_config import RepoConfig
from feast.retrieval_job import RetrievalJob, RetrievalMetadata

__all__ = ["OfflineStore", "OfflineStoreConfig", "RetrievalJob", "RetrievalMetadata"]

OfflineStoreConfig = Settings


class OfflineStore(ABC):
    """Reads the history of features. Its settings are the class `<name>Config` beside it."""

    @staticmethod
    def get_historical_features(
        config: RepoConfig,
        feature_views: list[Any],
        feature_refs: list[str],
        entity_df: Any,
        registry: Any,
        project: str,
        full_feature_names: bool = False,
    ) -> RetrievalJob:
        """Feature values as they were known at the time of each entity row."""
        raise NotAvailableYet("historical retrieval by this offline store")

    @staticmethod
    def pull_latest_from_table_or_query(
        config: RepoConfig,
        data_source: Any,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None,
        start_date: datetime,
        end_date: datetime,
    ) -> RetrievalJob:
        """The latest row per entity key between two times."""
        raise NotAvailableYet("reading the latest rows by this offline store")

    @staticmethod
    def pull_all_from_table_or_query(
        config: RepoConfig,
        data_source: Any,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None = None,
        start_date: datetime | None = None,
        end_date: datetime | None = None,
    ) -> RetrievalJob:
        """All rows between two times."""
        raise NotAvailableYet("reading all rows by this offline store")

    @staticmethod
    def offline_write_batch(
        config: RepoConfig, feature_view: Any, table: Any, progress: Callable[[int], Any] | None
    ) -> None:
        """Appends rows to the source of a feature view."""
        raise NotAvailableYet("writing by this offline store")
