"""Values of each version of a view, in a table of its own: `registry.enable_online_feature_view_versioning`."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from sides import attempt, command, run
from test_redis import Redis, server

__all__ = ["server"]  # a fixture

DEFINITIONS = """
from datetime import timedelta

from feast import Entity, FeatureView, Field, FileSource, ValueType
from feast.types import Int64, String

thing = Entity(name="thing", join_keys=["thing_id"], value_type=ValueType.INT64)
source = FileSource(name="source", path="data.parquet", timestamp_field="event_timestamp")
things = FeatureView(
    name="things",
    entities=[thing],
    ttl=timedelta(0),
    schema=[Field(name="thing_id", dtype=Int64), FEATURES],
    source=source,
)
"""
AMOUNT, COLOUR = 'Field(name="amount", dtype=Int64)', 'Field(name="colour", dtype=String)'
SPAN = ("2026-11-01T00:00:00", "2026-11-25T00:00:00")
ROWS = [{"thing_id": 1}, {"thing_id": 3}]


def define(folder: Path, *features: str) -> None:
    """Writes the definitions with these features."""
    text = DEFINITIONS.replace("FEATURES", ", ".join(features))
    (folder / "definitions.py").write_text(text)


def make_repository(folder: Path, online_store: dict[str, str], versioned: bool = True) -> Path:
    """A repository with one view over one file, defined in its first version."""
    times = pa.array([1_795_132_800_000_000] * 2, pa.timestamp("us", "UTC"))
    data = {"thing_id": [1, 2], "amount": [10, 20], "colour": ["red", "blue"]}
    pq.write_table(pa.table({**data, "event_timestamp": times}), folder / "data.parquet")
    registry = {"path": "registry.db", "enable_online_feature_view_versioning": versioned}
    configuration = {
        "project": "proj",
        "provider": "local",
        "registry": registry,
        "online_store": online_store,
        "entity_key_serialization_version": 3,
    }
    (folder / "feature_store.yaml").write_text(yaml.safe_dump(configuration))
    define(folder, AMOUNT)
    return folder


def served(side: str, repository: Path, *features: str) -> dict[str, list[object]]:
    """What a side answers for two things, of which the second one does not exist."""
    return run(side, "online", repository, {"features": list(features), "rows": ROWS})


def values(side: str, repository: Path, *features: str) -> list[list[object]]:
    """The values alone, feature by feature."""
    answer = served(side, repository, *features)
    return [answer[feature.split(":")[1]] for feature in features]


@pytest.fixture
def sqlite(tmp_path: Path) -> Path:
    """A repository over SQLite."""
    return make_repository(tmp_path, {"type": "sqlite", "path": "online.db"})


@pytest.fixture
def redis(tmp_path: Path, server: Redis) -> Path:
    """A repository over an empty Redis."""
    server.command("FLUSHALL")
    store = {"type": "redis", "connection_string": f"127.0.0.1:{server.port},db=0"}
    return make_repository(tmp_path, store)


def tables(repository: Path) -> list[str]:
    """The tables of the online store in SQLite."""
    found = sqlite3.connect(repository / "online.db").execute(
        "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name"
    )
    return [name for (name,) in found]


def two_versions(writer: str, repository: Path) -> None:
    """Applies and materializes one version of the view after the other."""
    for features in ([AMOUNT], [AMOUNT, COLOUR]):
        define(repository, *features)
        command(writer, repository, "apply")
        command(writer, repository, "materialize", *SPAN)


def test_each_version_has_its_values_and_feast_reads_them(sqlite: Path) -> None:
    two_versions("ours", sqlite)
    assert tables(sqlite) == ["proj_things", "proj_things_v1"]
    for side in ("ours", "feast"):
        assert values(side, sqlite, "things:amount", "things:colour") == [[10, None], ["red", None]]
        assert values(side, sqlite, "things@v0:amount") == [[10, None]]
        assert values(side, sqlite, "things@v1:colour") == [["red", None]]


@pytest.mark.parametrize(("writer", "reader"), [("ours", "feast"), ("feast", "ours")])
def test_redis_is_shared_version_by_version(redis: Path, writer: str, reader: str) -> None:
    two_versions(writer, redis)
    for features in (
        ["things:amount", "things:colour"],
        ["things@v0:amount"],
        ["things@v1:colour"],
    ):
        written, read = (served(side, redis, *features) for side in (writer, reader))
        assert read == written, features
        assert read[features[0].split(":")[1]][0] is not None


def test_a_new_version_starts_empty_and_the_next_run_fills_it(sqlite: Path) -> None:
    command("ours", sqlite, "apply")
    command("ours", sqlite, "materialize-incremental", SPAN[1])
    define(sqlite, AMOUNT, COLOUR)
    assert "proj_things_v1" in command("ours", sqlite, "plan")
    command("ours", sqlite, "apply")
    assert values("ours", sqlite, "things:amount") == [[None, None]]
    command("ours", sqlite, "materialize-incremental", SPAN[1])
    assert values("ours", sqlite, "things:colour") == [["red", None]]


def test_an_older_version_is_loaded_by_its_number(sqlite: Path) -> None:
    command("ours", sqlite, "apply")
    define(sqlite, AMOUNT, COLOUR)
    command("ours", sqlite, "apply")
    command("ours", sqlite, "materialize", *SPAN, "--views", "things", "--version", "v0")
    assert values("ours", sqlite, "things@v0:amount", "things:colour") == [[10, None], [None, None]]
    # The current version's own run is not shortened by that.
    command("ours", sqlite, "materialize-incremental", SPAN[1])
    assert values("ours", sqlite, "things:colour") == [["red", None]]


def test_a_version_brought_back_has_its_own_table(sqlite: Path) -> None:
    two_versions("ours", sqlite)
    text = DEFINITIONS.replace("FEATURES", f"{AMOUNT}, {COLOUR}")
    pinned = text.replace("source=source", 'source=source, version="v0"')
    (sqlite / "definitions.py").write_text(pinned)
    command("ours", sqlite, "apply")
    assert values("ours", sqlite, "things:amount", "things@v1:colour") == [
        [10, None],
        ["red", None],
    ]


def test_all_tables_go_with_the_view(sqlite: Path) -> None:
    two_versions("ours", sqlite)
    command("ours", sqlite, "delete", "things")
    assert tables(sqlite) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--views", "things", "--version", "v7"), "its versions are `v0`"),
        (("--views", "things", "--version", "seven"), "`seven` is not a version"),
        (("--version", "v0"), "name exactly one feature view"),
    ],
)
def test_a_version_that_there_is_not(
    sqlite: Path, arguments: tuple[str, ...], message: str
) -> None:
    command("ours", sqlite, "apply")
    refused = attempt("ours", sqlite, "materialize", *SPAN, *arguments)
    assert refused.returncode != 0
    assert message in refused.stderr


def test_without_tables_of_versions_only_the_current_one_is_served(tmp_path: Path) -> None:
    store = {"type": "sqlite", "path": "online.db"}
    repository = make_repository(tmp_path, store, versioned=False)
    two_versions("ours", repository)
    assert tables(repository) == ["proj_things"]
    assert values("ours", repository, "things@v1:colour") == [["red", None]]
    refused = attempt(
        "ours", repository, "get-online-features", "-e", "thing_id=1", "-f", "things@v0:amount"
    )
    assert refused.returncode != 0
    assert "enable_online_feature_view_versioning" in refused.stderr
    refused = attempt(
        "ours", repository, "materialize", *SPAN, "--views", "things", "--version", "v0"
    )
    assert refused.returncode != 0
    assert "enable_online_feature_view_versioning" in refused.stderr


def test_a_view_with_the_name_of_such_a_table_is_refused(sqlite: Path) -> None:
    definitions = sqlite / "definitions.py"
    other = definitions.read_text().split("things =")[1].replace('"things"', '"things_v1"')
    definitions.write_text(f"{definitions.read_text()}\nother ={other}")
    refused = attempt("ours", sqlite, "apply")
    assert refused.returncode != 0
    assert "things_v1" in refused.stderr
    assert "version 1 of view `things`" in refused.stderr
