"""Many writers of a SQL registry at the same time, Feast 0.67 among them: nothing that anybody wrote is lost.

Feast's clients know neither our lock nor our versions. The figures stand at the end of pytest's output.
"""

from __future__ import annotations

import os
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import exchange
import pytest
import servers
from conftest import Figures
from test_sql_registry import postgres, registries, use_database
from test_stores import HERE, SIDES, command, repository, run

__all__ = ["postgres", "repository"]  # fixtures

WRITERS = {"a": "ours", "b": "feast", "c": "ours", "d": "feast"}
ENTITIES = 10
MATERIALIZERS = 5
RECORDS = 10


@pytest.fixture(params=["SQLite", "PostgreSQL", "MariaDB"])
def shared(request: Any, repository: Path) -> Any:
    """The repository, with its registry in a database."""
    if request.param == "SQLite":
        (repository / "data").mkdir(exist_ok=True)
        use_database(repository, f"sqlite:///{repository}/data/registry.sqlite")
        yield repository
    elif request.param == "PostgreSQL":
        database = request.getfixturevalue("postgres")
        use_database(repository, database.url(database.create()))
        yield repository
    else:
        with servers.mysql() as database:
            use_database(repository, database.url(database.create()))
            yield repository


def materialize(repository: Path, worker: int) -> None:
    """Records spans of time that do not touch each other nor those of other workers."""
    for number in range(RECORDS):
        start = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(hours=2 * (worker * RECORDS + number))
        span = [time.strftime("%Y-%m-%dT%H:%M:%S") for time in (start, start + timedelta(hours=1))]
        arguments = [
            os.environ["FEAST_BINARY"],
            "-c",
            str(repository),
            "materialize",
            *span,
            "--views",
            "pushed",
        ]
        done = subprocess.run(arguments, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr


def test_nothing_is_lost(shared: Path, request: Any, figures: Figures) -> None:
    command("ours", shared, "apply")
    registries("feast", "read", shared)  # Feast creates its tables without regard for others.
    started = time.monotonic()
    writers = [
        subprocess.Popen(
            [SIDES[side], str(HERE / "registries.py"), "add", str(shared), prefix, str(ENTITIES)],
            stderr=subprocess.PIPE,
            text=True,
        )
        for prefix, side in WRITERS.items()
    ]
    with ThreadPoolExecutor(MATERIALIZERS) as pool:
        list(pool.map(lambda worker: materialize(shared, worker), range(MATERIALIZERS)))
    for process in writers:
        _, messages = process.communicate(timeout=240)
        assert process.returncode == 0, messages
    took = time.monotonic() - started
    expected = {f"{prefix}{at}" for prefix in WRITERS for at in range(ENTITIES)}
    for side in SIDES:
        assert expected <= set(exchange.from_json(registries(side, "read", shared))["entity"]), side
        intervals = run(side, "objects", shared)["intervals"]["pushed"]
        assert len(intervals) == MATERIALIZERS * RECORDS, side
    where = request.node.callspec.params["shared"]
    figures.add(
        f"{where}: {len(expected)} entities by {len(WRITERS)} processes (half of them Feast's) and {len(intervals)} "
        f"materializations by {MATERIALIZERS} in {took:.1f} s, none lost"
    )
