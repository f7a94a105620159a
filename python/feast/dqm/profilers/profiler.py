"""What a checker of data has to offer: profilers make profiles, profiles check data."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas


class Profile:
    """Rules that data must meet."""

    @abstractmethod
    def validate(self, dataset: pandas.DataFrame) -> ValidationReport:
        """Checks data against the rules."""
        raise NotImplementedError

    @abstractmethod
    def to_proto(self) -> Any:
        """The message of the rules."""
        raise NotImplementedError

    @classmethod
    @abstractmethod
    def from_proto(cls, proto: Any) -> Profile:
        """Reads the message of the rules."""
        raise NotImplementedError


class Profiler:
    """Derives rules from data."""

    @abstractmethod
    def analyze_dataset(self, dataset: pandas.DataFrame) -> Profile:
        """The rules that these data meet."""
        raise NotImplementedError

    @abstractmethod
    def to_proto(self) -> Any:
        """The message of the profiler."""
        raise NotImplementedError

    @classmethod
    @abstractmethod
    def from_proto(cls, proto: Any) -> Profiler:
        """Reads the message of the profiler."""
        raise NotImplementedError


class ValidationReport:
    """The outcome of a check."""

    @property
    @abstractmethod
    def is_success(self) -> bool:
        """Whether every rule was met."""
        raise NotImplementedError

    @property
    @abstractmethod
    def errors(self) -> list[ValidationError]:
        """The rules that were not met."""
        raise NotImplementedError


class ValidationError:
    """One rule that was not met."""

    def __init__(
        self,
        check_name: str,
        column_name: str,
        check_config: Any | None = None,
        missing_count: int | None = None,
        missing_percent: float | None = None,
        observed_value: float | None = None,
        unexpected_count: int | None = None,
        unexpected_percent: float | None = None,
    ) -> None:
        self.check_name = check_name
        self.column_name = column_name
        self.check_config = check_config
        self.missing_count = missing_count
        self.missing_percent = missing_percent
        self.observed_value = observed_value
        self.unexpected_count = unexpected_count
        self.unexpected_percent = unexpected_percent

    def __repr__(self) -> str:
        return f"<ValidationError {self.check_name}:{self.column_name}>"

    def to_dict(self) -> dict[str, Any]:
        """All attributes by name."""
        return dict(vars(self))
