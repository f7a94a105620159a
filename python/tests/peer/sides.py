"""The two sides of most tests here: our package and Feast 0.67, each in its interpreter."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


class Sides(Mapping[str, str]):
    """The Python of each side; its `feast` is beside it."""

    def __getitem__(self, side: str) -> str:
        return {"ours": sys.executable, "feast": os.environ["FEAST_PEER_PYTHON"]}[side]

    def __iter__(self) -> Iterator[str]:
        return iter(("ours", "feast"))

    def __len__(self) -> int:
        return 2


SIDES = Sides()


def run(side: str, action: str, repository: Path, argument: Any = None) -> Any:
    """Runs an action of `stores.py` on a side and returns its result."""
    done = subprocess.run(
        [
            SIDES[side],
            str(HERE / "stores.py"),
            action,
            str(repository),
            json.dumps(argument or {}),
        ],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        cwd=repository,
    )
    assert done.returncode == 0, f"{side} {action}: {done.stdout}\n{done.stderr}"
    return json.loads(done.stdout.strip().splitlines()[-1])


def attempt(side: str, repository: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs the command line of a side."""
    feast = Path(SIDES[side]).with_name("feast")
    return subprocess.run(
        [str(feast), "-c", str(repository), *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        cwd=repository,
    )


def command(side: str, repository: Path, *arguments: str) -> str:
    """What the command line of a side, which must succeed, writes to its standard output."""
    done = attempt(side, repository, *arguments)
    assert done.returncode == 0, f"{side} feast {' '.join(arguments)}: {done.stdout}\n{done.stderr}"
    return done.stdout
