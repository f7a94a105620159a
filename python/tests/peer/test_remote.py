"""Feast 0.67 as a client of our feature server: its `remote` online store reads and writes through us."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from sides import command, run
from test_stores import NAMES, SPAN, THINGS, repository

__all__ = ["repository"]

REMOTE = """\
project: interop
registry: {registry}
provider: local
online_store:
  type: remote
  path: {address}
offline_store:
  type: file
entity_key_serialization_version: 3
"""


@pytest.fixture
def address(repository: Path) -> Iterator[str]:
    """The address of our server on the applied and materialized repository."""
    command("ours", repository, "apply")
    command("ours", repository, "materialize", *SPAN)
    feast = Path(sys.executable).parent / "feast"
    server = subprocess.Popen(
        [str(feast), "-c", str(repository), "serve", "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert server.stdout is not None
        said = ""
        for line in server.stdout:
            said += line
            if found := re.search(r"127\.0\.0\.1:\d+", line):
                break
        else:
            pytest.fail(f"the server did not start: {said}")
        yield f"http://{found.group()}"
    finally:
        server.send_signal(signal.SIGINT)
        rest, _ = server.communicate(timeout=60)
        assert server.returncode in (0, 130), rest


@pytest.fixture
def client(repository: Path, address: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository whose online store is our server; it shares the registry."""
    folder = tmp_path_factory.mktemp("client")
    registry = repository / "data" / "registry.db"
    (folder / "feature_store.yaml").write_text(REMOTE.format(registry=registry, address=address))
    return folder


def test_feasts_client_reads_and_writes_through_our_server(repository: Path, client: Path) -> None:
    scalars = [
        name
        for name in NAMES
        if name.startswith(("a_", "an_")) and name not in ("a_bytes", "a_map", "a_struct", "a_json")
    ]
    scalars = [name for name in scalars if not name.endswith("_set")]
    request = {"features": [f"every_type:{name}" for name in scalars], "rows": THINGS}
    local, remote = (
        run("ours", "online", repository, request),
        run("feast", "online", client, request),
    )
    for name in scalars:
        # Feast's client drops event timestamps and types: times stay numbers, texts stay texts.
        if name not in ("a_time", "a_uuid", "a_decimal"):
            assert remote[name] == local[name], name
    assert [value is None for value in remote["a_time"]] == [False, False, True, True]

    at = "2026-11-21T00:00:00Z"
    row = {"thing_id": 8, "an_int64": 80, "a_string": "x", "event_timestamp": at, "created": at}
    run("feast", "push", client, {"source": "fresh", "rows": [row]})
    wanted = {"features": ["pushed:an_int64", "pushed:a_string"], "rows": [{"thing_id": 8}]}
    for side, folder in (("ours", repository), ("feast", client)):
        answer = run(side, "online", folder, wanted)
        assert (answer["an_int64"], answer["a_string"]) == ([80], ["x"]), side
