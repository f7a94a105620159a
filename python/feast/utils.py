"""What Feast's module of this name has for scripts of its users: times and the file of a configuration."""

from __future__ import annotations

import datetime as dt
import os
from pathlib import Path

__all__ = ["get_default_yaml_file_path", "make_tzaware", "to_naive_utc"]


def make_tzaware(t: dt.datetime) -> dt.datetime:
    """The time with its zone; one without is UTC."""
    return t if t.tzinfo is not None else t.replace(tzinfo=dt.UTC)


def to_naive_utc(ts: dt.datetime) -> dt.datetime:
    """The time in UTC, without saying so."""
    return make_tzaware(ts).astimezone(dt.UTC).replace(tzinfo=None)


def get_default_yaml_file_path(repo_path: Path) -> Path:
    """The configuration of a repository, or the one that `FEAST_FS_YAML_FILE_PATH` names."""
    named = os.environ.get("FEAST_FS_YAML_FILE_PATH")
    return Path(named) if named else Path(repo_path) / "feature_store.yaml"


def _utc_now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)
