"""Every kind of object in every kind of registry, written by our package and read by Feast 0.67, and the reverse; and
after whoever applied, the other finds nothing to change. `test_the_matrix` prints who was understood where.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import exchange
import pyarrow
import pyarrow.parquet
import pytest
import servers
from conftest import Matrix
from test_exchange import forget_differences, plain
from test_registry_server import HERE, our_server
from test_stores import SIDES, changes_seen_by_feast

CONFIGURATION = "project: {}\nprovider: local\nonline_store: {{type: sqlite, path: data/online.db}}\nregistry:\n  {}\n"
REGISTRIES = ["file", "S3", "SQLite", "PostgreSQL", "MariaDB", "our server", "Feast's server"]
KEYS = {
    "AWS_ACCESS_KEY_ID": "id",
    "AWS_SECRET_ACCESS_KEY": "key",
    "AWS_REGION": "us-east-1",
    "AWS_DEFAULT_REGION": "us-east-1",
}


@pytest.fixture(params=REGISTRIES)
def registry(request: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A new registry; gives what stands below `registry` in feature_store.yaml."""
    # The libraries that Feast needs for servers and buckets and does not bring along.
    monkeypatch.setenv("PYTHONPATH", os.environ["FEAST_PEER_EXTRAS"])
    with ExitStack() as stack:
        yield start(request.param, tmp_path, monkeypatch, stack)


def start(kind: str, folder: Path, monkeypatch: pytest.MonkeyPatch, stack: ExitStack) -> str:
    """Starts what a kind of registry needs."""
    if kind == "file":
        return f"path: {folder}/registry.db"
    if kind == "SQLite":
        return (
            f"registry_type: sql\n  cache_mode: thread\n  path: sqlite:///{folder}/registry.sqlite"
        )
    if kind == "PostgreSQL":
        database = stack.enter_context(servers.postgres())
    if kind == "MariaDB":
        database = stack.enter_context(servers.mysql())
    if kind in ("PostgreSQL", "MariaDB"):
        return (
            f"registry_type: sql\n  cache_mode: thread\n  path: {database.url(database.create())}"
        )
    if kind == "S3":
        address = stack.enter_context(servers.moto(folder / "log"))
        for name, value in {**KEYS, "FEAST_S3_ENDPOINT_URL": address}.items():
            monkeypatch.setenv(name, value)
        subprocess.run(
            ["curl", "-sfX", "PUT", f"{address}/registries"], check=True, capture_output=True
        )
        return "path: s3://registries/feast/registry.db"
    (owner := folder / "owner").mkdir()
    if kind == "our server":
        address = stack.enter_context(our_server(owner))
    else:
        (owner / "feature_store.yaml").write_text(
            CONFIGURATION.format("owner", "path: data/registry.db")
        )
        (owner / "data").mkdir()
        port = servers.free_port()
        serve = [SIDES["feast"], str(HERE / "registries.py"), "serve", str(owner), str(port)]
        stack.enter_context(servers.server(serve, folder / "log", lambda: servers.listens(port)))
        address = f"127.0.0.1:{port}"
    return f'registry_type: remote\n  path: "{address}"'


def repository(folder: Path, project: str, registry: str) -> Path:
    """A repository of every kind of object, in this registry."""
    (folder / project / "data").mkdir(parents=True)
    at = pyarrow.array([0], pyarrow.timestamp("us", tz="UTC"))
    columns = {
        "driver_id": [1],
        "conv_rate": [0.5],
        "trips": [1],
        "label": ["good"],
        "labeler": ["a"],
        "event_timestamp": at,
        "created": at,
    }
    pyarrow.parquet.write_table(pyarrow.table(columns), folder / project / "data/stats.parquet")
    (folder / project / "feature_store.yaml").write_text(CONFIGURATION.format(project, registry))
    definitions = (HERE / "every_kind.py").read_text().replace("TESTS", str(HERE))
    (folder / project / f"define_{project}.py").write_text(definitions)
    return folder / project


def do(side: str, *steps: tuple[str, Path, str]) -> list[Any]:
    """What a side gets from doing these steps, in one process."""
    done = subprocess.run(
        [SIDES[side], str(HERE / "interop.py")],
        input=json.dumps([[verb, str(path), project] for verb, path, project in steps]),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        cwd=HERE,
    )
    assert done.returncode == 0, f"{side} {steps}: {done.stderr[-4000:]}"
    return json.loads(done.stdout)


def meanings(kind: str, named: dict[str, bytes]) -> dict[str, Any]:
    """The objects of a kind, without what the other side leaves out on purpose."""
    result = {}
    for name, message in named.items():
        result[name] = plain(kind, message, declared=True)
        forget_differences(kind, name, result[name])
        if kind == "stream_feature_view":
            # Without a pickle, Feast's reader drops the function of a stream view.
            result[name]["spec"].pop("feature_transformation", None)
    return result


def test_every_kind_is_shared_in(
    registry: str, tmp_path: Path, request: Any, matrix: Matrix
) -> None:
    where = request.node.callspec.params["registry"]
    objects = {side: repository(tmp_path, f"objects_of_{side}", registry) for side in SIDES}
    applied = {side: repository(tmp_path, f"applied_by_{side}", registry) for side in SIDES}

    def of(side: str, verb: str, whose: str) -> tuple[str, Path, str]:
        return verb, objects[side], f"objects_of_{whose}"

    counts, _ = do("ours", of("ours", "fill", "ours"), ("apply", applied["ours"], ""))
    plan, _ = do("feast", ("plan", applied["ours"], ""), ("apply", applied["ours"], ""))
    assert changes_seen_by_feast(plan) == []
    assert "No changes to infrastructure" in plan
    # In a process of its own: Feast's apply changes the definitions in memory.
    fill, *theirs, _ = do(
        "feast",
        of("feast", "fill", "feast"),
        of("feast", "read", "ours"),
        of("feast", "read", "feast"),
        ("apply", applied["feast"], ""),
    )
    assert fill == counts
    *ours, after_both, after_feast = do(
        "ours",
        of("ours", "read", "ours"),
        of("ours", "read", "feast"),
        ("plan", applied["ours"], ""),
        ("plan", applied["feast"], ""),
    )
    assert "No changes" in after_both, after_both
    assert "No changes" in after_feast, after_feast
    for writer, by_us, by_feast in zip(("ours", "feast"), ours, theirs, strict=True):
        by_us, by_feast = (exchange.from_json(json.dumps(one)) for one in (by_us, by_feast))
        for kind, count in counts.items():
            assert len(by_us[kind]) == len(by_feast[kind]) == count, (writer, kind)
            assert meanings(kind, by_us[kind]) == meanings(kind, by_feast[kind]), (writer, kind)
            matrix.add(where, writer, kind, count)
