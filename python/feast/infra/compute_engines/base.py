"""Base class of compute engines that a team writes itself."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from feast.repo_config import RepoConfig


class ComputeEngine(ABC):
    """Runs materializations and historical retrievals."""

    def __init__(
        self, *, repo_config: RepoConfig, offline_store: Any, online_store: Any, **kwargs: Any
    ) -> None:
        self.repo_config = repo_config
        self.offline_store = offline_store
        self.online_store = online_store

    @abstractmethod
    def update(
        self,
        project: str,
        views_to_delete: Sequence[Any],
        views_to_keep: Sequence[Any],
        entities_to_delete: Sequence[Any],
        entities_to_keep: Sequence[Any],
    ) -> None:
        """Prepares what the engine needs for the views of a project."""

    @abstractmethod
    def teardown_infra(self, project: str, fvs: Sequence[Any], entities: Sequence[Any]) -> None:
        """Removes it again."""

    @property
    def supports_batch(self) -> bool:
        """Whether `materialize` takes several tasks at once."""
        return False

    @property
    def applies_materialization(self) -> bool:
        """Whether the engine itself records what it has materialized."""
        return False

    def materialize(
        self, registry: Any, tasks: Any, *, lineage_parent: Any = None, **kwargs: Any
    ) -> list[Any]:
        """Runs one task or several, one after the other; returns their jobs."""
        several = tasks if isinstance(tasks, list) else [tasks]
        if lineage_parent is not None:
            kwargs["lineage_parent"] = lineage_parent
        return [self._materialize_one(registry, task, **kwargs) for task in several]

    def _materialize_one(self, registry: Any, task: Any, **kwargs: Any) -> Any:
        """Runs one task; what a subclass overrides."""
        raise NotImplementedError(f"the engine {type(self).__name__} does not materialize")

    def get_historical_features(self, registry: Any, task: Any) -> Any:
        """Retrieves the history of a view."""
        raise NotImplementedError(f"the engine {type(self).__name__} does not retrieve history")
