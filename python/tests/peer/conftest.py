"""Tests here run Feast 0.67.0 beside ours, in an interpreter of its own: `make python-tests` installs and names it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import warm


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
