"""Tests here run Feast 0.67.0 beside ours, in an interpreter of its own: `make python-tests` installs and names it."""

from __future__ import annotations

import os

import pytest


@pytest.fixture(autouse=True, scope="session")
def peer() -> str:
    """The interpreter that has Feast."""
    interpreter = os.environ.get("FEAST_PEER_PYTHON", "")
    if not interpreter:
        pytest.fail(
            "FEAST_PEER_PYTHON must name the interpreter of an environment with feast==0.67.0; "
            "`make python-tests` sets it up"
        )
    return interpreter
