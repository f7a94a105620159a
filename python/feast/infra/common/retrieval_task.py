"""What a compute engine gets when it is to retrieve the history of a view."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from feast._definition import shown


class HistoricalRetrievalTask:
    """One view, the entity rows to look up, and the span of event time."""

    def __init__(
        self,
        project: str,
        entity_df: Any,
        feature_view: Any,
        full_feature_name: bool,
        registry: Any,
        start_time: datetime | None = None,
        end_time: datetime | None = None,
    ) -> None:
        self.project = project
        self.entity_df = entity_df
        self.feature_view = feature_view
        self.full_feature_name = full_feature_name
        self.registry = registry
        self.start_time = start_time
        self.end_time = end_time

    def __repr__(self) -> str:
        return shown(self)
