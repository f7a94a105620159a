"""A compute engine that reports what it does."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from feast.infra.common.materialization_job import MaterializationJob, MaterializationTask
from feast.infra.compute_engines.local.compute import LocalComputeEngine


class ReportingEngine(LocalComputeEngine):
    """Works as the local engine does, and writes a line of JSON about each task."""

    def __init__(self, report: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.report = Path(self.repo_config.repo_path or ".") / report

    def _materialize_one(self, registry: Any, task: MaterializationTask, **kwargs: Any) -> MaterializationJob:
        started = time.monotonic()
        job = super()._materialize_one(registry, task, **kwargs)
        line = {
            "feature_view": task.feature_view.name,
            "until": task.end_time.isoformat(),
            "status": job.status().name,
            "rows": job.rows,
            "seconds": round(time.monotonic() - started, 3),
        }
        with self.report.open("a") as report:
            report.write(json.dumps(line) + "\n")
        return job
