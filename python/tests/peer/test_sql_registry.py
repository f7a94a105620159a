"""One SQL registry, used by our package and by Feast 0.67 in turn, in SQLite and in PostgreSQL."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import servers
from test_stores import HERE, SIDES, SPAN, command, repository, run

__all__ = ["repository"]  # a fixture


@pytest.fixture(scope="session")
def postgres() -> Iterator[servers.Database]:
    with servers.postgres() as database:
        yield database


@pytest.fixture(params=["sqlite", "postgresql"])
def shared(request: Any, repository: Path) -> Path:
    """The repository, with its registry in a database."""
    if request.param == "sqlite":
        (repository / "data").mkdir(exist_ok=True)
        url = f"sqlite:///{repository}/data/registry.sqlite"
    else:
        # A schema that only the options of the URL name.
        database = request.getfixturevalue("postgres")
        name = database.create()
        database.execute(name, "CREATE SCHEMA features")
        url = f"{database.url(name)}?options=-csearch_path%3Dfeatures"
    use_database(repository, url)
    return repository


def use_database(repository: Path, url: str) -> None:
    """Puts the registry of a repository into a database."""
    config = repository / "feature_store.yaml"
    config.write_text(
        config.read_text().replace(
            "registry: data/registry.db", f"registry:\n  registry_type: sql\n  path: {url}"
        )
    )


def registries(side: str, action: str, repository: Path) -> str:
    """Runs `registries.py` with the interpreter of a side."""
    arguments = [SIDES[side], str(HERE / "registries.py"), action, str(repository)]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, f"{side} {action}: {done.stderr}"
    return done.stdout


@pytest.mark.parametrize(("writer", "reader"), [("ours", "feast"), ("feast", "ours")])
def test_a_repository_is_shared(shared: Path, writer: str, reader: str) -> None:
    command(writer, shared, "apply")
    command(writer, shared, "materialize", *SPAN)
    objects = [run(side, "objects", shared) for side in (writer, reader)]
    assert objects[0] == objects[1]
    # And further from there, by the other side.
    command(reader, shared, "materialize-incremental", "2026-11-23T00:00:00")
    objects = [run(side, "objects", shared) for side in (writer, reader)]
    assert objects[0] == objects[1]
    assert objects[0]["intervals"]["every_type"]
