"""Failed checks of data."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from feast.dqm.profilers.profiler import ValidationReport


class ValidationFailed(Exception):
    """Data do not meet a validation reference; `report` says where."""

    def __init__(self, validation_report: ValidationReport) -> None:
        super().__init__(validation_report)
        self.validation_report = validation_report

    @property
    def report(self) -> ValidationReport:
        """What was checked, and what failed."""
        return self.validation_report
