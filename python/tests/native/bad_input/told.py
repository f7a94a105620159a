"""How what is wrong has to be told: in one sentence, with the fix, and without secrets."""

from __future__ import annotations

from pathlib import Path

import pytest

from feast._feast import cli_main

SECRET = "hunter2"
NEVER = ("Traceback", "panicked", "RUST_BACKTRACE", SECRET)


def is_clear(text: str, *fragments: str) -> None:
    for fragment in fragments:
        assert fragment in text, text
    for word in NEVER:
        assert word not in text, text


class CommandLine:
    """The command line in this process: what it prints and how it ends."""

    def __init__(self, capfd: pytest.CaptureFixture[str]) -> None:
        self.capfd = capfd

    def run(self, folder: Path, *arguments: str) -> tuple[int, str]:
        self.capfd.readouterr()
        code = cli_main(["feast", "-c", str(folder), *arguments])
        out, err = self.capfd.readouterr()
        return code, out + err

    def refuses(self, folder: Path, arguments: list[str], *fragments: str) -> str:
        code, text = self.run(folder, *arguments)
        assert code in (1, 2), text
        is_clear(text, *fragments)
        # Wrong definitions are a list, each with its hint; wrong usage is followed by where to read on.
        assert "hint: " in text or (code == 2 and "--help" in text), text
        sentence = next(line for line in text.splitlines() if line.startswith("error: "))
        assert len(sentence) < 600, sentence
        return text


def contents(folder: Path) -> dict[str, bytes]:
    """All files by name, to see that nothing changed."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def says_how(error: BaseException, *expected: str) -> None:
    """The text of an exception ends with what to do, after a semicolon or in a sentence of what is expected."""
    text = str(error)
    is_clear(text, *expected)
    hint = getattr(error, "hint", None)
    assert (hint and hint in text) or "; " in text or " must be " in text, text
