"""PostgreSQL, MySQL and another feature server as online store, used by our package and by Feast 0.67 in turn."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import servers
import yaml
from every_type import make_data
from sides import HERE, SIDES, command, run
from test_stores import NAMES, SPAN, THINGS

FEATURES = [f"every_type:{name}" for name in NAMES]
# What Feast's own client guesses right from JSON.
PLAIN = ["a_string", "an_int64", "a_double", "a_bool", "some_strings", "some_int64", "some_doubles"]


@pytest.fixture(scope="module")
def postgres() -> Iterator[servers.Database]:
    """The server of these tests."""
    with servers.postgres() as database:
        yield database


@pytest.fixture(scope="module")
def mysql() -> Iterator[servers.Database]:
    """The server of these tests."""
    with servers.mysql() as database:
        yield database


def make_repository(folder: Path, online_store: dict[str, Any]) -> Path:
    """The repository of every type, with another online store."""
    folder.mkdir()
    shutil.copy(HERE / "every_type/definitions.py", folder)
    configuration = yaml.safe_load((HERE / "every_type/feature_store.yaml").read_text())
    configuration["online_store"] = online_store
    (folder / "feature_store.yaml").write_text(yaml.safe_dump(configuration))
    make_data.write(folder)
    return folder


@pytest.fixture(params=["postgres", "mysql"])
def database(request: pytest.FixtureRequest) -> servers.Database:
    """Each of the databases."""
    return request.getfixturevalue(request.param)


@pytest.mark.parametrize(("writer", "reader"), [("ours", "feast"), ("feast", "ours")])
def test_what_one_materializes_the_other_reads(
    tmp_path: Path, database: servers.Database, writer: str, reader: str
) -> None:
    repository = make_repository(tmp_path / "repository", database.options(database.create()))
    command(writer, repository, "apply")
    command(writer, repository, "materialize", *SPAN)
    request = {"features": FEATURES, "rows": THINGS}
    written, read = (run(side, "online", repository, request) for side in (writer, reader))
    assert set(read) == set(written)
    for name in sorted(written):
        assert read[name] == written[name], name
    assert read["a_string"] == ["abc", "é", None, None]


def test_each_side_reads_what_the_other_pushed(tmp_path: Path, database: servers.Database) -> None:
    repository = make_repository(tmp_path / "repository", database.options(database.create()))
    command("ours", repository, "apply")
    request = {"features": ["pushed:an_int64", "pushed:a_string"], "rows": [{"thing_id": 7}]}
    for number, side in enumerate(("ours", "feast", "ours", "feast")):
        at = f"2026-11-21T0{number}:00:00Z"
        row = {
            "thing_id": 7,
            "an_int64": number,
            "a_string": side,
            "event_timestamp": at,
            "created": at,
        }
        run(side, "push", repository, {"source": "fresh", "rows": [row]})
        for reader in SIDES:
            answer = run(reader, "online", repository, request)
            assert (answer["an_int64"], answer["a_string"]) == ([number], [side]), reader
            assert answer["an_int64__ts"] == [1795219200 + 3600 * number], reader
    # Older rows lose when we write them, whoever wrote the newer one.
    old = {
        "thing_id": 7,
        "an_int64": 9,
        "a_string": "old",
        "event_timestamp": "2026-11-21T00:00:00Z",
    }
    run(
        "ours",
        "push",
        repository,
        {"source": "fresh", "rows": [old | {"created": "2026-11-21T00:00:00Z"}]},
    )
    assert run("feast", "online", repository, request)["a_string"] == ["feast"]


FORK = """
import os, sys
from feast import FeatureStore

store = FeatureStore(repo_path=sys.argv[1])

def read():
    request = {"features": ["every_type:a_string"], "entity_rows": [{"thing_id": 1}, {"thing_id": 9}]}
    return store.get_online_features(**request).to_dict()["a_string"] == ["abc", None]

assert read()
children = []
for _ in range(4):
    child = os.fork()
    if child == 0:
        os._exit(0 if all(read() for _ in range(10)) else 1)
    children.append(child)
assert all(read() for _ in range(10))
assert [os.waitpid(child, 0)[1] for child in children] == [0] * 4
assert read()
"""


def test_a_forked_process_has_connections_of_its_own(
    tmp_path: Path, database: servers.Database
) -> None:
    repository = make_repository(tmp_path / "repository", database.options(database.create()))
    command("ours", repository, "apply")
    command("ours", repository, "materialize", *SPAN)
    done = subprocess.run(
        [SIDES["ours"], "-c", FORK, str(repository)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_tables_of_postgres_are_the_same(tmp_path: Path, postgres: servers.Database) -> None:
    described = {}
    for side in SIDES:
        name = postgres.create()
        options = postgres.options(name) | {"enable_openai_compatible_store": True}
        repository = make_repository(tmp_path / side, options)
        command(side, repository, "apply")
        described[side] = postgres.execute(
            name,
            "SELECT c.relname, a.attnum, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, a.atthasdef"
            " FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid"
            " WHERE c.relnamespace = 'public'::regnamespace ORDER BY 1, 2;"
            " SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY 1",
        )
    assert described["ours"] == described["feast"]
    assert any("_fts_idx" in line for line in described["ours"])


def test_tables_of_mysql_are_the_same_but_for_microseconds(
    tmp_path: Path, mysql: servers.Database
) -> None:
    described = {}
    for side in SIDES:
        name = mysql.create()
        command(side, make_repository(tmp_path / side, mysql.options(name)), "apply")
        described[side] = mysql.execute(
            name,
            "SELECT table_name, column_name, column_type, is_nullable, column_default, column_key"
            " FROM information_schema.columns WHERE table_schema = DATABASE()"
            " AND column_name NOT LIKE '%\\_micros' ORDER BY table_name, ordinal_position;"
            " SELECT table_name, index_name, seq_in_index, column_name FROM information_schema.statistics"
            " WHERE table_schema = DATABASE() ORDER BY 1, 2, 3",
        )
    assert described["ours"] == described["feast"]
    assert described["ours"]


@contextmanager
def serving(side: str, repository: Path, log: Path) -> Iterator[str]:
    """A feature server of one side."""
    port = servers.free_port()
    feast = Path(SIDES[side]).parent / "feast"
    arguments = [
        str(feast),
        "-c",
        str(repository),
        "serve",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
    ]
    with servers.server(arguments, log, lambda: servers.listens(port), cwd=repository):
        yield f"http://127.0.0.1:{port}"


@pytest.mark.parametrize(
    ("server", "client"), [("feast", "ours"), ("ours", "feast"), ("ours", "ours")]
)
def test_a_feature_server_is_an_online_store(tmp_path: Path, server: str, client: str) -> None:
    repository = make_repository(tmp_path / "server", {"type": "sqlite", "path": "data/online.db"})
    command("ours", repository, "apply")
    command("ours", repository, "materialize", *SPAN)
    with serving(server, repository, tmp_path / "log") as address:
        remote = make_repository(tmp_path / "client", {"type": "remote", "path": address})
        command(client, remote, "apply")
        names = NAMES if client == "ours" else PLAIN
        request = {"features": [f"every_type:{name}" for name in names], "rows": THINGS}
        expected, read = (
            run("ours", "online", repository, request),
            run(client, "online", remote, request),
        )
        for name in names:
            assert read[name] == expected[name], name
            if client == "ours":
                assert read[f"{name}__ts"] == expected[f"{name}__ts"], name
        at = "2026-11-21T05:00:00Z"
        row = {"thing_id": 7, "an_int64": 5, "a_string": "é", "event_timestamp": at, "created": at}
        run(client, "push", remote, {"source": "fresh", "rows": [row]})
        request = {"features": ["pushed:an_int64", "pushed:a_string"], "rows": [{"thing_id": 7}]}
        for side, where in ((client, remote), ("ours", repository)):
            answer = run(side, "online", where, request)
            assert (answer["an_int64"], answer["a_string"]) == ([5], ["é"]), side


@pytest.mark.parametrize("server", ["feast", "ours"])
def test_a_feature_server_loads_what_it_stores(tmp_path: Path, server: str) -> None:
    repository = make_repository(tmp_path / "server", {"type": "sqlite", "path": "data/online.db"})
    command("ours", repository, "apply")
    with serving(server, repository, tmp_path / "log") as address:
        remote = make_repository(tmp_path / "client", {"type": "remote", "path": address})
        command("ours", remote, "apply")
        for source in remote.glob("data/*.parquet"):
            source.unlink()
        command("ours", remote, "materialize", *SPAN, "--views", "every_type")
        request = {"features": ["every_type:a_string"], "rows": THINGS}
        assert run("ours", "online", remote, request)["a_string"] == ["abc", "é", None, None]
        command("ours", remote, "materialize-incremental", SPAN[1])
