"""A small feature store on disk: three drivers, one batch view, one view that is pushed to."""

from __future__ import annotations

from pathlib import Path

import pytest
from drivers import definitions, write_repository

from feast import FeatureStore


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A folder with a configuration and the data of the drivers."""
    return write_repository(tmp_path)


@pytest.fixture
def store(repository: Path) -> FeatureStore:
    """A feature store whose objects are applied."""
    store = FeatureStore(repo_path=str(repository))
    store.apply(list(definitions().values()))
    return store
