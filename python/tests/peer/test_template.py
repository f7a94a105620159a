"""The repository that Feast's own `feast init` makes works as it is, and its program prints the same values."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
from pathlib import Path

from sides import SIDES, command


def printed(side: str, repository: Path) -> dict[str, list[list[object]]]:
    """What the program of the template prints: by name of a feature, the values of each online request."""
    feast = Path(SIDES[side])
    done = subprocess.run(
        [str(feast), "test_workflow.py"],
        cwd=repository,
        # The program calls `feast`.
        env={**os.environ, "PATH": f"{feast.parent}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, f"{side}: {done.stdout}\n{done.stderr}"
    values: dict[str, list[list[object]]] = {}
    for name, text in re.findall(r"^(\w+)  :  (\[.*\])$", done.stdout, re.MULTILINE):
        values.setdefault(name, []).append(ast.literal_eval(text))
    return values


def test_the_template_of_feast_works(tmp_path: Path) -> None:
    feast = Path(SIDES["feast"]).with_name("feast")
    subprocess.run([str(feast), "init", "demo"], cwd=tmp_path, check=True, capture_output=True)
    answers = {}
    for side in SIDES:
        # Its rows are random: both sides get the same.
        shutil.copytree(tmp_path / "demo", tmp_path / side)
        repository = tmp_path / side / "feature_repo"
        command(side, repository, "apply")
        answers[side] = printed(side, repository)
    assert len(answers["ours"]["conv_rate_plus_val1"]) == 4
    assert answers["ours"] == answers["feast"]
