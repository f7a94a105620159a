"""One SQL registry, used by our package and by Feast 0.67 in turn, in SQLite and in PostgreSQL."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import databases
import exchange
import pytest
from test_stores import HERE, SIDES, SPAN, changes_seen_by_feast, command, repository, run

__all__ = ["repository"]  # a fixture


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    with databases.postgres() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def shared(request: Any, repository: Path) -> Path:
    """The repository, with its registry in a database."""
    if request.param == "sqlite":
        (repository / "data").mkdir(exist_ok=True)
        url = f"sqlite:///{repository}/data/registry.sqlite"
    else:
        # Each test has a schema of its own.
        schema = "test_" + "".join(c if c.isalnum() else "_" for c in request.node.name.lower())[:50]
        url = request.getfixturevalue("postgres")
        create = f"import psycopg; psycopg.connect({url.replace('+psycopg', '')!r}, autocommit=True).execute('CREATE SCHEMA {schema}')"
        subprocess.run([SIDES["feast"], "-c", create], check=True)
        url += f"?options=-csearch_path%3D{schema}"
    config = repository / "feature_store.yaml"
    text = config.read_text().replace(
        "registry: data/registry.db", f"registry:\n  registry_type: sql\n  path: {url}"
    )
    config.write_text(text)
    return repository


def registries(side: str, action: str, repository: Path) -> str:
    """Runs `registries.py` with the interpreter of a side."""
    arguments = [SIDES[side], str(HERE / "registries.py"), action, str(repository)]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, f"{side} {action}: {done.stderr}"
    return done.stdout


def test_writers_of_both_sides_at_the_same_time_lose_nothing(shared: Path) -> None:
    """Feast's clients know neither our lock nor our versions."""
    registries("feast", "read", shared)  # Feast creates its tables without regard for others.
    prefixes = {"a": "ours", "b": "feast", "c": "ours", "d": "feast", "e": "ours"}
    script = str(HERE / "registries.py")
    running = [
        subprocess.Popen(
            [SIDES[side], script, "add", str(shared), prefix, "10"], stderr=subprocess.PIPE, text=True
        )
        for prefix, side in prefixes.items()
    ]
    for process in running:
        _, messages = process.communicate(timeout=240)
        assert process.returncode == 0, messages
    expected = {f"{prefix}{at}" for prefix in prefixes for at in range(10)}
    for side in SIDES:
        found = exchange.from_json(registries(side, "read", shared))["entity"]
        assert expected <= set(found), side


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


def test_our_plan_is_empty_after_feasts_apply(shared: Path) -> None:
    command("feast", shared, "apply")
    done = command("ours", shared, "plan", "--exit-code")
    assert "No changes" in done


def test_feasts_plan_is_empty_after_our_apply(shared: Path) -> None:
    command("ours", shared, "apply")
    output = command("feast", shared, "plan")
    assert changes_seen_by_feast(output) == []
    assert "No changes to infrastructure" in output
    # Feast finds its metadata, and adds nothing that we would have to.
    command("feast", shared, "apply")
    assert "No changes" in command("ours", shared, "plan", "--exit-code")
