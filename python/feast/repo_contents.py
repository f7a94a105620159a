"""The objects of a repository, by kind."""

from __future__ import annotations

from typing import Any, NamedTuple

from feast._objects import registry_message


class RepoContents(NamedTuple):
    """The objects that a repository defines."""

    projects: list[Any]
    data_sources: list[Any]
    feature_views: list[Any]
    on_demand_feature_views: list[Any]
    stream_feature_views: list[Any]
    label_views: list[Any]
    entities: list[Any]
    feature_services: list[Any]
    permissions: list[Any]

    def to_registry_proto(self) -> Any:
        """The objects as a `feast.core.Registry` message."""
        return registry_message(obj for group in self for obj in group)
