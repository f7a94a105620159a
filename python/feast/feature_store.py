"""The feature store: what users call, handed to the engine."""

from __future__ import annotations

import os
import warnings
from contextvars import ContextVar, Token
from pathlib import Path
from typing import Any

from feast._settings import FeastConfigError
from feast._store.materialization import Materialization
from feast._store.not_yet import NotYet
from feast._store.online import Online
from feast._store.saved_datasets import SavedDatasets
from feast._store.servers import Servers
from feast._store.writing import Writing
from feast._unavailable import NotAvailableYet
from feast.repo_config import RepoConfig, _effective, _read_yaml

__all__ = ["FeatureStore"]

_YAML_PATH_VARIABLE = "FEAST_FS_YAML_FILE_PATH"


class FeatureStore(SavedDatasets, Materialization, Writing, Online, Servers, NotYet):
    """A feature store: definitions in a registry, history in an offline store, latest values in an online store.

    It is found by the folder of its `feature_store.yaml` (`repo_path`, by default the working directory), by the path
    of such a file (`fs_yaml_file`), or is described by a `RepoConfig`.
    """

    def __init__(
        self,
        repo_path: str | None = None,
        config: RepoConfig | None = None,
        fs_yaml_file: Path | None = None,
        embedding_provider: Any = None,
    ) -> None:
        if config is not None and fs_yaml_file is not None:
            raise ValueError(
                "a feature store takes `config` or `fs_yaml_file`, not both; leave one out"
            )
        if config is not None and not isinstance(config, RepoConfig):
            raise TypeError(
                f"`config` must be a RepoConfig, but is of class {type(config).__name__}; "
                "write `RepoConfig(project=..., registry=...)`"
            )
        for name, value in (("repo_path", repo_path), ("fs_yaml_file", fs_yaml_file)):
            if value is not None and not isinstance(value, (str, os.PathLike)):
                raise TypeError(f"`{name}` must be a path, but is {value!r:.80}; write it as text")
        path: Path | None = None
        if repo_path is None and config is not None:
            repo_path = config.repo_path
        self.repo_path = Path(repo_path) if repo_path else Path(os.getcwd())
        if config is not None:
            text = config.to_yaml()
        else:
            path = Path(
                fs_yaml_file
                or os.environ.get(_YAML_PATH_VARIABLE)
                or self.repo_path / "feature_store.yaml"
            )
            text = _read_yaml(path)
        self._open(text, path, interpolate=config is None)
        for warning in self._native.warnings:
            warnings.warn(warning, stacklevel=2)
        self._config = config
        self._embedding_provider = embedding_provider

    def _open(self, text: str, path: Path | None, interpolate: bool) -> None:
        from feast._feast import Store

        try:
            self._native = Store(text, str(self.repo_path), interpolate)
        except FeastConfigError as error:
            raise FeastConfigError(error._error_message, path) from None
        self._yaml, self._interpolate = text, interpolate
        self._config: RepoConfig | None = None
        self._embedding_provider = None
        self._current_project: ContextVar[str | None] = ContextVar("current_project", default=None)

    def __getstate__(self) -> dict[str, Any]:
        return {
            "repo_path": self.repo_path,
            "yaml": self._yaml,
            "interpolate": self._interpolate,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.repo_path = state["repo_path"]
        self._open(state["yaml"], None, state["interpolate"])

    def __repr__(self) -> str:
        return f"FeatureStore(project={self.project!r}, repo_path={str(self.repo_path)!r})"

    @property
    def config(self) -> RepoConfig:
        """The configuration in effect."""
        if self._config is None:
            self._config = _effective(self._native, self.repo_path)
        return self._config

    @property
    def project(self) -> str:
        """The project that names refer to."""
        return self._current_project.get() or self._native.project

    @property
    def provider(self) -> Any:
        """Feast's provider, which does not exist here: stores are used directly."""
        raise NotAvailableYet("a provider object", "use the methods of the feature store")

    @property
    def embedding_provider(self) -> Any:
        """The model that turns a query into a vector."""
        if self._embedding_provider is None:
            raise NotAvailableYet(
                "a built-in embedding provider", "pass `embedding_provider=` to the feature store"
            )
        return self._embedding_provider

    @property
    def mlflow(self) -> Any:
        """The MLflow integration; None because it is off."""
        return None

    @property
    def openlineage_emitter(self) -> Any:
        """The OpenLineage integration; None because it is off."""
        return None

    def set_current_project(self, project: str | None) -> Token[str | None]:
        """Makes names refer to another project of the registry, in this context."""
        return self._current_project.set(project)

    def reset_current_project(self, token: Token[str | None]) -> None:
        """Undoes `set_current_project`."""
        self._current_project.reset(token)

    async def initialize(self) -> None:
        """Nothing to do: connections open when they are first used."""

    async def close(self) -> None:
        """Closes all connections."""
        import asyncio

        await asyncio.to_thread(self._native.close)
