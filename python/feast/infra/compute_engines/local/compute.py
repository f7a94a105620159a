"""The local compute engine: its settings, and the class from which a team derives its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from feast import _frames
from feast._objects import kind_of
from feast._settings import Settings
from feast.infra.common.materialization_job import MaterializationJobStatus, MaterializationTask
from feast.infra.compute_engines.base import ComputeEngine
from feast.infra.compute_engines.local.job import LocalMaterializationJob

__all__ = ["LocalComputeEngine", "LocalComputeEngineConfig"]


class LocalComputeEngineConfig(Settings):
    """Settings of the local compute engine."""

    type: str = "local"
    backend: str | None = None


class LocalComputeEngine(ComputeEngine):
    """Materializes in this process, by the engine in Rust. `backend` is accepted and means nothing."""

    def __init__(self, backend: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.backend_name = backend

    def update(
        self,
        project: str,
        views_to_delete: Sequence[Any],
        views_to_keep: Sequence[Any],
        entities_to_delete: Sequence[Any],
        entities_to_keep: Sequence[Any],
    ) -> None:
        """Nothing to prepare."""

    def teardown_infra(self, project: str, fvs: Sequence[Any], entities: Sequence[Any]) -> None:
        """Nothing to remove."""

    def _materialize_one(
        self, registry: Any, task: MaterializationTask, **kwargs: Any
    ) -> LocalMaterializationJob:
        """Runs one task; a failure is told by the job."""
        view = task.feature_view
        job_id = f"{view.name}-{task.start_time}-{task.end_time}"
        kind = kind_of(view)
        if kind is None:
            raise TypeError(f"`{view!r:.80}` is not a feature view")
        try:
            rows = registry._native.load(
                kind.name,
                view.to_proto().SerializeToString(),
                _frames.microseconds(task.start_time, "start_time"),
                _frames.microseconds(task.end_time, "end_time"),
            )
        except Exception as error:
            return LocalMaterializationJob(job_id, MaterializationJobStatus.ERROR, error)
        return LocalMaterializationJob(job_id, MaterializationJobStatus.SUCCEEDED, rows=rows)
