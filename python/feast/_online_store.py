"""Calls an online store that a team wrote in Python, for the engine in Rust: bytes there, messages and times here."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import groupby
from pathlib import Path
from typing import Any

from feast._frames import microseconds, moment
from feast._own_class import own_class
from feast.entity import Entity
from feast.feature_view import DUMMY_ENTITY_FIELD, FeatureView
from feast.field import Field
from feast.infra.key_encoding_utils import deserialize_entity_key
from feast.infra.online_stores.online_store import OnlineStore
from feast.protos.feast.types.Value_pb2 import Value
from feast.repo_config import RepoConfig
from feast.types import from_value_type
from feast.value_type import ValueType


class Store:
    """The online store of one feature store."""

    def __init__(self, path: str, configuration: str, repo_path: str) -> None:
        made = own_class(path, repo_path, OnlineStore)
        self._name = made.__name__
        self._configuration = json.loads(configuration)
        self._repo_path = Path(repo_path)
        self._store: OnlineStore = made()
        # Each table of each plan is described anew by the engine; views are made once of it.
        self._view = functools.lru_cache(maxsize=1024)(_view)
        self._config = functools.lru_cache(maxsize=64)(self._config_of)

    def _config_of(self, project: str) -> RepoConfig:
        config = RepoConfig(**(self._configuration | {"project": project}))
        config.repo_path = self._repo_path
        return config

    def read(
        self, table: str, keys: Sequence[bytes], features: list[str]
    ) -> tuple[list[int | None], list[list[bytes | None]]]:
        """Event times by key, and serialized values by feature and key."""
        project, view = self._view(table)
        rows = self._rows(project, view, keys, features)
        times = [None if values is None else _micros(event) for event, values in rows]
        cells = [[self._cell(view, name, values) for _, values in rows] for name in features]
        return times, cells

    def _rows(
        self, project: str, view: FeatureView, keys: Sequence[bytes], features: list[str]
    ) -> list[tuple[datetime | None, dict[str, Any] | None]]:
        entity_keys = [deserialize_entity_key(key) for key in keys]
        rows = self._store.online_read(self._config(project), view, entity_keys, features)
        try:
            rows = [(event, values) for event, values in rows]
        except (TypeError, ValueError):
            raise TypeError(
                f"`{self._name}.online_read` must return a list of pairs of an event time and values, "
                f"but returned {rows!r:.80}"
            ) from None
        if len(rows) != len(keys):
            raise ValueError(
                f"`{self._name}.online_read` returned {len(rows)} rows of feature view `{view.name}` "
                f"for {len(keys)} entity keys"
            )
        return rows

    def _cell(self, view: FeatureView, name: str, values: dict[str, Any] | None) -> bytes | None:
        value = None if values is None else values.get(name)
        if value is None:
            return None
        if not isinstance(value, Value):
            raise TypeError(
                f"`{self._name}.online_read` returned a {type(value).__name__} for feature `{name}` of "
                f"feature view `{view.name}`, expected a `Value` message"
            )
        return value.SerializeToString()

    def write(
        self,
        table: str,
        keys: Sequence[bytes],
        cells: Sequence[Sequence[bytes]],
        events: Sequence[int],
        created: Sequence[int | None] | None,
    ) -> None:
        """Hands over the newest row of each key, unless the store has a newer one."""
        project, view = self._view(table)
        known = created if created is not None else [None] * len(keys)
        newest: dict[bytes, int] = {}
        for row, key in enumerate(keys):
            best = newest.get(key)
            if best is None or _recency(events, known, row) >= _recency(events, known, best):
                newest[key] = row
        names = [feature.name for feature in view.features]
        stored = self._rows(project, view, list(newest), names)
        data = []
        for (key, row), (event, values) in zip(newest.items(), stored, strict=True):
            if values is not None and _micros(event) > events[row]:
                continue
            data.append(
                (
                    deserialize_entity_key(key),
                    {name: Value.FromString(column[row]) for name, column in zip(names, cells)},
                    moment(events[row]),
                    None if known[row] is None else moment(known[row]),
                )
            )
        if data:
            self._store.online_write_batch(self._config(project), view, data, None)

    def update(self, changes: Sequence[tuple[bool, str]]) -> None:
        """Makes (true) and removes (false) tables, in order."""
        for (keep, project), views in _runs((keep, *self._view(table)) for keep, table in changes):
            entities = list(
                {one.name: one for view in views for one in view._entity_objects}.values()
            )
            self._store.update(
                config=self._config(project),
                tables_to_delete=[] if keep else views,
                tables_to_keep=views if keep else [],
                entities_to_delete=[] if keep else entities,
                entities_to_keep=entities if keep else [],
                partial=True,
            )


def _runs(
    changes: Iterator[tuple[bool, str, FeatureView]],
) -> Iterator[tuple[tuple[bool, str], list[FeatureView]]]:
    """Changes of the same kind that follow each other, of one project, together."""
    for kind, run in groupby(changes, key=lambda change: change[:2]):
        yield kind, [view for _, _, view in run]


def _view(table: str) -> tuple[str, FeatureView]:
    """Project and feature view of a table, as far as online stores see them: without source and ttl."""
    told = json.loads(table)
    keys = [_field(*key) for key in told["join_keys"]]
    entities = [
        Entity(name=name, join_keys=[name], value_type=ValueType[kind])
        for name, kind in told["join_keys"]
        if name != DUMMY_ENTITY_FIELD.name
    ]
    features = [_field(*column) for column in told["columns"]]
    own = [key for key in keys if key.name != DUMMY_ENTITY_FIELD.name]
    view = FeatureView(
        name=told["view"], entities=entities, schema=own + features, tags=told["tags"]
    )
    if not own:
        view.entity_columns = keys
    return told["project"], view


def _field(name: str, kind: str) -> Field:
    return Field(name=name, dtype=from_value_type(ValueType[kind]))


def _micros(event: datetime | None) -> int:
    """The microseconds of an event time; a row without one is as old as can be served."""
    return 0 if event is None else microseconds(event, "event time")


def _recency(
    events: Sequence[int], created: Sequence[int | None], row: int
) -> tuple[int, bool, int]:
    return events[row], created[row] is not None, created[row] or 0
