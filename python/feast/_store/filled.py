"""What an apply has found out about objects, written back to them: programs go on with what they applied."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from feast._objects import KINDS, Kind, kind_of

_TIMES = ("created_timestamp", "last_updated_timestamp")


def fill_in(objects: Iterable[Any], native: Any) -> None:
    """Features, join keys and times of views without schema, features of services of such views, time columns of sources."""
    for each in objects:
        kind = kind_of(each)
        if kind is None or not _leaves_something_open(kind, each):
            continue
        stored = KINDS[kind.name].decode(native.get_object(kind.name, each.name, None, False))
        if kind.name == "feature_service":
            for own, found in zip(each.feature_view_projections, stored.feature_view_projections):
                own.features = own.features or found.features
        elif kind.name == "data_source":
            each.timestamp_field = stored.timestamp_field
        else:
            _fill_view(each, stored)
        for name in _TIMES:
            setattr(each, name, getattr(stored, name))


def _leaves_something_open(kind: Kind, each: Any) -> bool:
    if kind.name == "feature_service":
        return any(not one.features for one in each.feature_view_projections)
    if kind.name == "data_source":
        return _has_no_time(each)
    if kind.name in ("feature_view", "stream_feature_view"):
        return not (each.features and each.entity_columns) or _has_no_time(each.batch_source)
    return False


def _has_no_time(source: Any) -> bool:
    return getattr(source, "timestamp_field", None) == "" and hasattr(source, "path")


def _fill_view(view: Any, stored: Any) -> None:
    view.features = view.features or stored.features
    view.entity_columns = view.entity_columns or stored.entity_columns
    view.projection.features = view.projection.features or list(view.features)
    if _has_no_time(view.batch_source):
        view.batch_source.timestamp_field = stored.batch_source.timestamp_field
