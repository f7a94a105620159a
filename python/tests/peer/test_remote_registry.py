"""One registry behind a server, used by our package and by Feast 0.67 in turn: behind our server and behind Feast's."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import exchange
import pytest
from servers import free_port, listens, server
from test_registry_server import HERE, our_server
from test_stores import SIDES, SPAN, command, repository, run

__all__ = ["repository"]  # a fixture

OWNER = "project: owner\nregistry: data/registry.db\nprovider: local\nonline_store:\n  type: sqlite\n  path: data/o.db\n"


@pytest.fixture(autouse=True)
def grpc(monkeypatch: pytest.MonkeyPatch) -> None:
    """The gRPC library that Feast needs for this and does not bring along."""
    monkeypatch.setenv("PYTHONPATH", os.environ["FEAST_PEER_EXTRAS"])


@contextmanager
def feasts_server(folder: Path) -> Iterator[str]:
    """Feast's registry server in a repository; gives its address."""
    (folder / "data").mkdir()
    (folder / "feature_store.yaml").write_text(OWNER)
    port = free_port()
    feast = str(Path(SIDES["feast"]).with_name("feast"))
    arguments = [feast, "-c", str(folder), "serve_registry", "--port", str(port)]
    with server(arguments, folder / "log", lambda: listens(port)):
        yield f"127.0.0.1:{port}"


def uses(repository: Path, address: str) -> None:
    """Lets a repository use a registry server."""
    config = repository / "feature_store.yaml"
    remote = f'registry:\n  registry_type: remote\n  path: "{address}"\n'
    config.write_text(config.read_text().replace("registry: data/registry.db\n", remote))


@pytest.fixture(params=["ours", "feast"])
def shared(
    request: Any, repository: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    """The repository, with its registry behind the server of a side."""
    start = our_server if request.param == "ours" else feasts_server
    with start(tmp_path_factory.mktemp("server")) as address:
        uses(repository, address)
        yield repository


@pytest.mark.parametrize(
    ("shared", "writer", "reader"),
    [("ours", "feast", "ours"), ("feast", "ours", "feast")],
    indirect=["shared"],
)
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


def test_writers_of_both_sides_at_the_same_time_lose_nothing(
    repository: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Feast's server loses writes of its own clients; ours must not, whoever writes."""
    with our_server(tmp_path_factory.mktemp("server")) as address:
        uses(repository, address)
        prefixes = {"a": "ours", "b": "feast", "c": "feast"}
        arguments = [str(HERE / "registries.py"), "add", str(repository)]
        running = [
            subprocess.Popen(
                [SIDES[side], *arguments, prefix, "10"], stderr=subprocess.PIPE, text=True
            )
            for prefix, side in prefixes.items()
        ]
        for process in running:
            _, messages = process.communicate(timeout=240)
            assert process.returncode == 0, messages
        expected = {f"{prefix}{at}" for prefix in prefixes for at in range(10)}
        read = [SIDES["ours"], str(HERE / "registries.py"), "read", str(repository)]
        done = subprocess.run(read, capture_output=True, text=True, timeout=300, check=True)
        assert expected <= set(exchange.from_json(done.stdout)["entity"])
