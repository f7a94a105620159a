"""An online store in files of the standard library's `dbm`, one per feature view."""

from __future__ import annotations

import dbm.dumb
import json
import threading
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from feast import FeatureView, RepoConfig
from feast.infra.key_encoding_utils import serialize_entity_key
from feast.infra.online_stores.online_store import OnlineStore
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from feast.repo_config import FeastConfigBaseModel


class ShelfOnlineStoreConfig(FeastConfigBaseModel):
    """Settings of the store."""

    type: Literal["stores.ShelfOnlineStore"] = "stores.ShelfOnlineStore"
    folder: str = "data/shelf"


class ShelfOnlineStore(OnlineStore):
    """Keeps each row as JSON under the bytes of its entity key. For one process, on few rows."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def _path(self, config: RepoConfig, table: FeatureView) -> Path:
        folder = Path(config.repo_path or ".") / config.online_store.folder
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"{config.project}_{table.name}"

    def online_write_batch(
        self,
        config: RepoConfig,
        table: FeatureView,
        data: list[tuple[EntityKey, dict[str, Value], datetime, datetime | None]],
        progress: Callable[[int], Any] | None,
    ) -> None:
        """Replaces rows."""
        with self._lock, dbm.dumb.open(str(self._path(config, table)), "c") as shelf:
            for key, values, event, _ in data:
                row = {name: value.SerializeToString().hex() for name, value in values.items()}
                shelf[serialize_entity_key(key)] = json.dumps([event.isoformat(), row])
        if progress is not None:
            progress(len(data))

    def online_read(
        self,
        config: RepoConfig,
        table: FeatureView,
        entity_keys: list[EntityKey],
        requested_features: list[str] | None = None,
    ) -> list[tuple[datetime | None, dict[str, Value] | None]]:
        """The row of each key."""
        with self._lock, dbm.dumb.open(str(self._path(config, table)), "c") as shelf:
            found = [shelf.get(serialize_entity_key(key)) for key in entity_keys]
        return [(None, None) if row is None else self._row(row, requested_features) for row in found]

    @staticmethod
    def _row(row: bytes, features: list[str] | None) -> tuple[datetime, dict[str, Value]]:
        event, values = json.loads(row)
        wanted = {name: Value.FromString(bytes.fromhex(value)) for name, value in values.items()}
        return datetime.fromisoformat(event), {
            name: value for name, value in wanted.items() if features is None or name in features
        }

    def update(
        self,
        config: RepoConfig,
        tables_to_delete: Sequence[FeatureView],
        tables_to_keep: Sequence[FeatureView],
        entities_to_delete: Sequence[Any],
        entities_to_keep: Sequence[Any],
        partial: bool,
    ) -> None:
        """Removes the files of views that are gone; those of others are made when they are written."""
        for table in tables_to_delete:
            for file in self._path(config, table).parent.glob(f"{config.project}_{table.name}.*"):
                file.unlink()

    def teardown(self, config: RepoConfig, tables: Sequence[Any], entities: Sequence[Any]) -> None:
        """Removes everything."""
        self.update(config, tables, [], entities, [], partial=False)
