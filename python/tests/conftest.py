"""Fixtures shared by all Python tests."""

from __future__ import annotations

import signal
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

# Whatever starts in the background of a shell inherits that Ctrl-C is ignored, and so would all that the tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def write_files(tmp_path: Path) -> Callable[..., Path]:
    """Writes files, given as `path=text` pairs, into a folder of their own and returns the folder."""

    def write(files: dict[str, str], folder: str = "repository") -> Path:
        root = tmp_path / folder
        for name, text in files.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(textwrap.dedent(text))
        return root

    return write
