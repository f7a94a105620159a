"""The tour in README.md works as it is printed there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

README = Path(__file__).resolve().parents[3] / "README.md"
BLOCK = re.compile(r"^```(console|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SAVED_AS = re.compile(r"Save this as\s+`(\S+)`")
DONE = "-- end of command, exit code "


def tour() -> list[tuple[str, list[str]]]:
    """Commands with the lines that they print. Programs to save become commands that print nothing."""
    section = README.read_text().split("## Five minutes\n")[1].split("\n## ")[0]
    steps: list[tuple[str, list[str]]] = []
    for block in BLOCK.finditer(section):
        kind, text = block.groups()
        if kind == "python":
            name = SAVED_AS.findall(section[: block.start()])[-1]
            steps.append((f"cat > {name} <<'END'\n{text}END", []))
            continue
        for line in text.splitlines():
            if line.startswith("$ "):
                steps.append((line[2:], []))
            else:
                steps[-1][1].append(line)
    return steps


def pattern(lines: list[str]) -> str:
    """What the printed lines stand for: `...` is anything, a duration is any duration."""
    text = re.escape("\n".join(line.rstrip() for line in lines)).replace(
        re.escape("..."), "(?s:.*)"
    )
    return re.sub(r"\d+\\\.\d+\\ s\b", r"\\d+\\.\\d+\\ s", text)


def test_the_tour(tmp_path: Path) -> None:
    steps = tour()
    assert len(steps) > 8, "README.md has lost its tour"
    script = "\n".join(f"{{ {command}\n}} 2>&1; echo '{DONE}'$?" for command, _ in steps)
    here = str(Path(sys.executable).parent)
    shell = subprocess.run(
        ["sh", "-c", script],
        cwd=tmp_path,
        env={**os.environ, "PATH": f"{here}{os.pathsep}{os.environ['PATH']}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=True,
        timeout=300,
    )
    answers = re.split(rf"^{DONE}\d+\n", shell.stdout, flags=re.MULTILINE)
    assert len(answers) == len(steps) + 1, shell.stdout
    for (command, lines), answer in zip(steps, answers, strict=False):
        printed = "\n".join(line.rstrip() for line in answer.splitlines())
        assert re.fullmatch(pattern(lines), printed), f"$ {command}\n{answer}"
