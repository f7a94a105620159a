"""From history to training data."""

from __future__ import annotations

import json
import os
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from feast import _frames
from feast._store.definitions import Definitions
from feast._store.selection import selection
from feast.retrieval_job import RetrievalJob

if TYPE_CHECKING:
    from feast.feature_service import FeatureService
    from feast.on_demand_feature_view import OnDemandFeatureView


class History(Definitions):
    """Feature values as they were known at other times."""

    def get_historical_features(
        self,
        entity_df: Any = None,
        features: list[str] | FeatureService = [],  # noqa: B006 - Feast's signature; never changed
        full_feature_names: bool = False,
        start_date: datetime | None = None,
        end_date: datetime | None = None,
        filter_by_created_timestamp: bool = False,
        as_of: datetime | None = None,
    ) -> RetrievalJob:
        """Feature values as they were known at the time of each entity row.

        `entity_df` is a frame (pandas, Arrow, Polars), an SQL query, or the path of a Parquet file. Without it, the
        rows of the features themselves between `start_date` and `end_date` are returned.

        With `filter_by_created_timestamp`, a value counts from the time on at which it was written; with `as_of`, only
        what had happened and been written by then counts.
        """
        if entity_df is not None and (start_date is not None or end_date is not None):
            raise ValueError(
                "`entity_df` cannot be combined with `start_date` or `end_date`; leave out one or the other"
            )
        if isinstance(entity_df, str) and _is_path(entity_df):
            entity_df = Path(entity_df)
        if isinstance(entity_df, os.PathLike):
            entity_df = self._entity_file(Path(entity_df))
        categories = _frames.categories(entity_df)
        if entity_df is not None and not isinstance(entity_df, (str, os.PathLike)):
            in_utc = self.config.coerce_tz_aware is not False
            entity_df = _frames.entity_stream(entity_df, "entity_df", in_utc=in_utc)
        asked = selection(features)
        options = {
            "full_feature_names": bool(full_feature_names),
            "start": None if start_date is None else _frames.microseconds(start_date, "start_date"),
            "end": None if end_date is None else _frames.microseconds(end_date, "end_date"),
            "filter_by_created_timestamp": filter_by_created_timestamp,
            "as_of": None if as_of is None else _frames.microseconds(as_of, "as_of"),
        }
        native = self._native.get_historical_features(entity_df, asked, json.dumps(options))
        return RetrievalJob(
            native,
            full_feature_names=full_feature_names,
            on_demand_feature_views=lambda: self._on_demand_views_of(features, asked),
            staging_location=getattr(self.config.offline_store, "staging_location", None),
            categories=categories,
        )

    def _entity_file(self, path: Path) -> Path:
        """A relative path starts at the repository, as those of sources do, or else at the working directory."""
        if not path.is_absolute() and not (self.repo_path / path).exists() and path.exists():
            return path.absolute()
        return path

    def _on_demand_views_of(
        self, features: list[str] | FeatureService, asked: list[str] | bytes
    ) -> list[OnDemandFeatureView]:
        if isinstance(asked, list):
            names = {reference.partition(":")[0].partition("@")[0] for reference in asked}
        else:
            names = {projection.name for projection in features.feature_view_projections}  # type: ignore[union-attr]
        return [
            view
            for view in self.list_on_demand_feature_views(allow_cache=True)
            if view.name in names
        ]


def _is_path(text: str) -> bool:
    """Whether text that stands for entity rows names a file, and is not a query."""
    first = text.split(maxsplit=1)[:1]
    is_query = len(text.split()) > 1 and first[0].lower() in ("select", "with", "(select", "values")
    return not is_query and text.lower().endswith((".parquet", ".csv"))
