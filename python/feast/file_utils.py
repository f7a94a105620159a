"""Small edits of text files, for the scripts of repository templates."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any


def replace_str_in_file(file_path: Any, match_str: str, sub_str: str) -> None:
    """Replaces a text everywhere in a file."""
    path = Path(file_path)
    path.write_text(path.read_text().replace(match_str, sub_str))


def remove_lines_from_file(file_path: Any, match_str: str, partial: bool = True) -> None:
    """Removes the lines that contain a text or, with `partial=False`, that are exactly this text."""
    _keep_lines(file_path, lambda line: match_str not in line if partial else line != match_str)


def write_setting_or_remove(
    file_path: Any, setting_value: str | None, setting_name: str, setting_placeholder_value: str
) -> None:
    """Fills in a placeholder of a settings file; without a value, removes the lines that name the setting."""
    if setting_value is not None:
        replace_str_in_file(file_path, setting_placeholder_value, str(setting_value))
    else:
        remove_lines_from_file(file_path, setting_name)


def _keep_lines(file_path: Any, keeps: Callable[[str], bool]) -> None:
    path = Path(file_path)
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(line for line in lines if keeps(line)))
