"""Runs a team's code that the engine in Rust calls on a thread that Python has started.

A thread that entered Python from Rust counts as holding the interpreter as long as it is in there. Where a library gives
it up meanwhile to read one of our streams, as pyarrow does, the stream would take it for held.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar

_Result = TypeVar("_Result")


def run(call: Callable[..., _Result], *arguments: Any) -> _Result:
    """Calls a function and returns, or raises, what it does."""
    returned: list[_Result] = []
    raised: list[BaseException] = []

    def work() -> None:
        try:
            returned.append(call(*arguments))
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=work, name="feast", daemon=True)
    thread.start()
    thread.join()
    if raised:
        try:
            raise raised.pop()
        finally:
            # The error knows this frame: what knows the error in turn would keep the arguments alive.
            del raised, thread
    return returned[0]
