"""Gives awaited native calls their results, on the thread of the event loop."""

from typing import Any


def settle(future: Any, method: str, value: Any) -> None:
    """Call ``future.set_result(value)`` or ``future.set_exception(value)`` unless the future is done already."""
    if not future.done():
        getattr(future, method)(value)
