"""What every verb has at hand."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from feast.repo_config import RepoConfig


class Opened:
    """A feature store that is open; `FeatureStore` opens it."""

    _native: Any
    """The engine, which does the work."""
    repo_path: Path
    config: RepoConfig
    project: str
    """The project that names refer to."""
