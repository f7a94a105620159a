"""The HTTP scenarios of the feature server hold for Feast's own server too, but for the differences they name."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

SCENARIOS = Path(__file__).resolve().parents[3] / "tests" / "scenarios"


@pytest.mark.parametrize("file", sorted(SCENARIOS.glob("*.yaml")), ids=lambda file: file.stem)
def test_feast_answers_as_written(file: Path, peer: str) -> None:
    done = subprocess.run(
        [peer, str(SCENARIOS / "against_feast.py"), str(file)],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
