"""A command line in this process, and repositories to use it on."""

from __future__ import annotations

from pathlib import Path

import pytest
from drivers import HOUR, T0, definitions, write_repository
from inputs import (
    MATERIALIZE,
    PRELUDE,
    VIEW,
    write_definitions,
)
from told import CommandLine

from feast import FeatureStore


@pytest.fixture
def feast(capfd) -> CommandLine:
    return CommandLine(capfd)


@pytest.fixture(scope="session")
def applied(tmp_path_factory) -> Path:
    """A repository that is applied and materialized; no test of bad input changes it."""
    folder = write_repository(tmp_path_factory.mktemp("applied"))
    store = FeatureStore(repo_path=str(folder))
    store.apply(list(definitions().values()))
    store.materialize(T0 - 100 * HOUR, T0 + HOUR)
    return folder


@pytest.fixture(scope="session")
def shared(applied) -> FeatureStore:
    return FeatureStore(repo_path=str(applied))


@pytest.fixture
def broken(feast, tmp_path) -> Path:
    """An applied and materialized repository to break."""
    write_definitions(tmp_path, PRELUDE + VIEW)
    assert feast.run(tmp_path, "apply")[0] == 0
    assert feast.run(tmp_path, *MATERIALIZE)[0] == 0
    return tmp_path
