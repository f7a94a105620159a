"""`Aggregation`: a function over one column, for all time or for a sliding window."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Any

from feast._definition import shown

__all__ = ["Aggregation", "aggregation_specs_to_agg_ops"]


class Aggregation:
    """A function (`sum`, `mean`, `count_distinct`, …) over a column.

    Without `time_window` it runs over everything; `slide_interval` defaults to the window, so that
    windows touch without overlapping. The result is called `name`, or `function_column`.
    """

    def __init__(
        self,
        column: str | None = "",
        function: str | None = "",
        time_window: timedelta | None = None,
        slide_interval: timedelta | None = None,
        name: str | None = None,
    ) -> None:
        self.column = column or ""
        self.function = function or ""
        self.time_window = time_window
        self.slide_interval = slide_interval or time_window
        self.name = name or ""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Aggregation) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash((self.column, self.function, self.name))

    def __repr__(self) -> str:
        return shown(self)

    def resolved_name(self, time_window: timedelta | None = None) -> str:
        """The name of the result; the default name of a window ends in its seconds."""
        if self.name:
            return self.name
        seconds = int(time_window.total_seconds()) if time_window else 0
        return f"{self.function}_{self.column}" + (f"_{seconds}s" if seconds > 0 else "")

    def to_proto(self) -> Any:
        """The message `feast.core.Aggregation`."""
        from feast._wire import to_duration
        from feast.protos.feast.core.Aggregation_pb2 import Aggregation as Message

        return Message(
            column=self.column,
            function=self.function,
            time_window=to_duration(self.time_window),
            slide_interval=to_duration(self.slide_interval),
            name=self.name,
        )

    @classmethod
    def from_proto(cls, agg_proto: Any) -> Aggregation:
        """Reads `feast.core.Aggregation`."""
        from feast._wire import from_duration

        return cls(
            column=agg_proto.column,
            function=agg_proto.function,
            time_window=from_duration(agg_proto, "time_window"),
            slide_interval=from_duration(agg_proto, "slide_interval"),
            name=agg_proto.name,
        )


# What pandas calls the functions whose names differ from ours.
_PANDAS_NAMES = {"count_distinct": "nunique"}


def aggregation_specs_to_agg_ops(
    agg_specs: Iterable[Any], *, time_window_unsupported_error_message: str
) -> dict[str, tuple[str, str]]:
    """Result name → (pandas function, column), for engines that cannot do windows."""
    operations: dict[str, tuple[str, str]] = {}
    for one in agg_specs:
        if getattr(one, "time_window", None) is not None:
            raise ValueError(time_window_unsupported_error_message)
        name = getattr(one, "name", None) or f"{one.function}_{one.column}"
        operations[name] = (_PANDAS_NAMES.get(one.function, one.function), one.column)
    return operations
