"""The team's code on a thread of its own."""

from __future__ import annotations

import gc
import weakref

import pytest

from feast import _own_thread


class Rows:
    pass


def test_what_is_returned_and_raised_comes_back() -> None:
    assert _own_thread.run(lambda one, other: one + other, 1, 2) == 3
    with pytest.raises(ValueError, match="no"):
        _own_thread.run(int, "no")


def test_an_error_keeps_no_arguments_alive() -> None:
    def fails(rows: Rows) -> None:
        raise ValueError("no")

    rows = Rows()
    alive = weakref.ref(rows)
    gc.disable()
    try:
        try:
            _own_thread.run(fails, rows)
        except ValueError:
            pass
        del rows
        assert alive() is None
    finally:
        gc.enable()
