"""The job of a task that ran in this process: it has ended when it is handed out."""

from __future__ import annotations

from feast.infra.common.materialization_job import MaterializationJob, MaterializationJobStatus


class LocalMaterializationJob(MaterializationJob):
    """A task that has ended."""

    def __init__(
        self,
        job_id: str,
        status: MaterializationJobStatus,
        error: BaseException | None = None,
        rows: int | None = None,
    ) -> None:
        self._job_id = job_id
        self._status = status
        self._error = error
        self.rows = rows

    def status(self) -> MaterializationJobStatus:
        """How it ended."""
        return self._status

    def error(self) -> BaseException | None:
        """Why it failed, if it did."""
        return self._error

    def should_be_retried(self) -> bool:
        """Never: whoever asked has the error."""
        return False

    def job_id(self) -> str:
        """View and span."""
        return self._job_id

    def url(self) -> str | None:
        """None."""
        return None
