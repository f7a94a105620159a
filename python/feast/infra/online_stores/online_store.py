"""Base class of online stores that a team writes itself."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from feast.repo_config import RepoConfig


class OnlineStore(ABC):
    """Keeps the latest row per entity key. Its settings are the class `<name>Config` beside it.

    Named by its path in `feature_store.yaml`, made without arguments when it is first needed, and called by several threads.
    """

    @abstractmethod
    def online_write_batch(
        self,
        config: RepoConfig,
        table: Any,
        data: list[tuple[Any, dict[str, Any], datetime, datetime | None]],
        progress: Callable[[int], Any] | None,
    ) -> None:
        """Writes rows: entity key, values by feature, event time and created time."""

    @abstractmethod
    def online_read(
        self,
        config: RepoConfig,
        table: Any,
        entity_keys: list[Any],
        requested_features: list[str] | None = None,
    ) -> list[tuple[datetime | None, dict[str, Any] | None]]:
        """Reads one row per entity key, in their order; `(None, None)` where there is none."""

    @abstractmethod
    def update(
        self,
        config: RepoConfig,
        tables_to_delete: Sequence[Any],
        tables_to_keep: Sequence[Any],
        entities_to_delete: Sequence[Any],
        entities_to_keep: Sequence[Any],
        partial: bool,
    ) -> None:
        """Makes and removes the tables of feature views; those in neither list stay as they are."""

    @abstractmethod
    def teardown(self, config: RepoConfig, tables: Sequence[Any], entities: Sequence[Any]) -> None:
        """Removes everything. Called by nobody here: `update` is told what `feast teardown` removes."""

    def plan(self, config: RepoConfig, desired_registry_proto: Any) -> list[Any]:
        """The tables that a registry asks for."""
        return []

    async def initialize(self, config: RepoConfig) -> None:
        """Opens what the store keeps open while it serves."""

    async def close(self) -> None:
        """Closes it again."""
