"""Tests here run Feast 0.67.0 beside ours, in an interpreter of its own: `make python-tests` installs and names it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import warm


class Matrix:
    """How many objects of each kind one side wrote and the other understood, by kind of registry."""

    def __init__(self) -> None:
        self.cells: dict[tuple[str, str], dict[str, int]] = {}

    def add(self, registry: str, writer: str, kind: str, count: int) -> None:
        """Objects that were understood."""
        self.cells.setdefault((kind, writer), {})[registry] = count

    def lines(self) -> list[str]:
        """The matrix as a table."""
        registries = list(dict.fromkeys(name for cells in self.cells.values() for name in cells))
        rows = [["kind", "written by", "read by", *registries]]
        for (kind, writer), cells in self.cells.items():
            sides = ["feast-rs", "Feast"] if writer == "ours" else ["Feast", "feast-rs"]
            rows.append([kind, *sides, *(str(cells.get(name, "")) for name in registries)])
        widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
        return [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in rows
        ]


class Figures:
    """What tests measured, a line each."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def add(self, line: str) -> None:
        """One line more."""
        self.lines.append(line)


MATRIX = Matrix()
FIGURES = Figures()


@pytest.fixture
def figures() -> Figures:
    """The figures that are shown when all tests have run."""
    return FIGURES


@pytest.fixture
def matrix() -> Matrix:
    """The matrix that is shown when all tests have run."""
    return MATRIX


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Shows the matrix and the figures."""
    if MATRIX.cells:
        terminalreporter.section(
            "objects shared with Feast 0.67.0, and no changes planned by the other side after apply"
        )
        for line in MATRIX.lines():
            terminalreporter.write_line(line)
    if FIGURES.lines:
        terminalreporter.section("writers of one registry at the same time")
        for line in FIGURES.lines:
            terminalreporter.write_line(line)


@pytest.fixture(autouse=True, scope="session")
def peer() -> Iterator[str]:
    """The interpreter that has Feast, and has imported it already."""
    interpreter = os.environ.get("FEAST_PEER_PYTHON", "")
    if not interpreter:
        pytest.fail(
            "FEAST_PEER_PYTHON must name the interpreter of an environment with feast==0.67.0; "
            "`make python-tests` sets it up"
        )
    # The path of a socket may have some hundred characters, and folders of pytest have many.
    with (
        tempfile.TemporaryDirectory(prefix="feast-") as folder,
        pytest.MonkeyPatch.context() as patch,
        warm.interpreter(interpreter, Path(folder)) as started,
    ):
        patch.setenv("FEAST_PEER_PYTHON", str(started))
        yield str(started)
