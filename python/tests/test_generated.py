"""What is generated and checked in is what the generator would write today."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

GENERATOR = Path(__file__).resolve().parent.parent / "generate_protos.py"


def test_the_protobuf_modules_are_current() -> None:
    done = subprocess.run(
        [sys.executable, str(GENERATOR), "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, (
        f"run `python python/generate_protos.py`\n{done.stdout}{done.stderr}"
    )
