"""What a compute engine gets when it is to fill the online store, and what it hands back."""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from collections.abc import Callable
from datetime import datetime
from typing import Any

from feast._definition import shown


class MaterializationTask:
    """One view and the span of event time to bring into the online store."""

    def __init__(
        self,
        project: str,
        feature_view: Any,
        start_time: datetime,
        end_time: datetime,
        only_latest: bool = True,
        tqdm_builder: Callable[[int], Any] | None = None,
        disable_event_timestamp: bool = False,
    ) -> None:
        self.project = project
        self.feature_view = feature_view
        self.start_time = start_time
        self.end_time = end_time
        self.only_latest = only_latest
        self.tqdm_builder = tqdm_builder
        self.disable_event_timestamp = disable_event_timestamp

    def __eq__(self, other: object) -> bool:
        return isinstance(other, MaterializationTask) and vars(self) == vars(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return shown(self)


class MaterializationJobStatus(enum.Enum):
    """How far a job is."""

    WAITING = 1
    RUNNING = 2
    AVAILABLE = 3
    ERROR = 4
    CANCELLING = 5
    CANCELLED = 6
    SUCCEEDED = 7
    PAUSED = 8
    RETRYING = 9


class MaterializationJob(ABC):
    """A running or finished task."""

    task: MaterializationTask

    @abstractmethod
    def status(self) -> MaterializationJobStatus:
        """How far it is."""

    @abstractmethod
    def error(self) -> BaseException | None:
        """Why it failed, if it did."""

    @abstractmethod
    def should_be_retried(self) -> bool:
        """Whether trying again could help."""

    @abstractmethod
    def job_id(self) -> str:
        """Its identifier in the engine."""

    @abstractmethod
    def url(self) -> str | None:
        """A page about it, if there is one."""
