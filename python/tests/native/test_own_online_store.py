"""Online stores that a team wrote in Python: in the SDK, on the command line and behind a server."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import urllib.request
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pytest
import servers
from drivers import HOUR, T0, definitions

from feast import Entity, FeatureStore, FeatureView, Field, FileSource
from feast.types import Array, Int64, Json, Map, String, UnixTimestamp

EXAMPLE = Path(__file__).parents[3] / "examples" / "online_store"

STORES = '''
import threading
from feast.infra.key_encoding_utils import serialize_entity_key
from feast.infra.online_stores.online_store import OnlineStore

ROWS = {}       # of this process: table -> key -> (event, values)
CALLS = []


class DictOnlineStore(OnlineStore):
    """Takes whatever it is given, as Feast's stores do: the later write wins."""

    def online_write_batch(self, config, table, data, progress):
        CALLS.append(("write", table.name, len(data)))
        rows = ROWS.setdefault((config.project, table.name), {})
        for key, values, event, created in data:
            assert event.tzinfo is not None
            rows[serialize_entity_key(key)] = (event, values)
        if progress:
            progress(len(data))

    def online_read(self, config, table, entity_keys, requested_features=None):
        CALLS.append(("read", table.name, tuple(requested_features)))
        rows = ROWS.get((config.project, table.name), {})
        return [rows.get(serialize_entity_key(key), (None, None)) for key in entity_keys]

    def update(self, config, tables_to_delete, tables_to_keep, entities_to_delete, entities_to_keep, partial):
        for table in tables_to_keep:
            CALLS.append(("make", table.name, tuple(entity.join_key for entity in entities_to_keep)))
            ROWS.setdefault((config.project, table.name), {})
        for table in tables_to_delete:
            CALLS.append(("drop", table.name))
            ROWS.pop((config.project, table.name), None)

    def teardown(self, config, tables, entities):
        ROWS.clear()


class FailingOnlineStore(DictOnlineStore):
    def online_read(self, config, table, entity_keys, requested_features=None):
        raise OSError("the shelf fell down")


class ShortOnlineStore(DictOnlineStore):
    def online_read(self, config, table, entity_keys, requested_features=None):
        return []


class LooseOnlineStore(DictOnlineStore):
    def online_read(self, config, table, entity_keys, requested_features=None):
        return [(None, {"trips": 5})] * len(entity_keys)


class NoneOnlineStore(DictOnlineStore):
    def online_read(self, config, table, entity_keys, requested_features=None):
        return None


class SettingsOnlineStore(DictOnlineStore):
    def online_read(self, config, table, entity_keys, requested_features=None):
        raise OSError(f"{config.online_store.shelf} of {config.project} in {config.repo_path.name}")


class NoStore:
    pass


class AbstractOnlineStore(OnlineStore):
    pass
'''


def with_store(repository: Path, kind: str, more: str = "") -> FeatureStore:
    """The feature store of the drivers, with an online store of the repository."""
    (repository / "feature_store.yaml").write_text(
        f"project: proj\nregistry: registry.db\nonline_store:\n  type: {kind}\n{more}"
    )
    (repository / "my_stores.py").write_text(STORES)
    return FeatureStore(repo_path=str(repository))


def applied(repository: Path, kind: str) -> FeatureStore:
    """The same with its objects."""
    store = with_store(repository, kind)
    store.apply(list(definitions().values()))
    return store


def trips(store: FeatureStore, *drivers: int) -> list[int | None]:
    """What is served of drivers."""
    rows = [{"driver_id": driver} for driver in drivers]
    return store.get_online_features(["driver_stats:trips"], rows).to_dict()["trips"]


@pytest.fixture(autouse=True)
def fresh_module() -> None:
    """Each test has a module of its own."""
    sys.modules.pop("my_stores", None)


def test_what_is_materialized_and_pushed_is_served(repository: Path) -> None:
    store = applied(repository, "my_stores.DictOnlineStore")
    import my_stores

    assert sorted(my_stores.CALLS) == [
        ("make", "driver_push", ("driver_id",)),
        ("make", "driver_stats", ("driver_id",)),
    ]
    store.materialize(T0 - 2 * HOUR, T0)
    assert trips(store, 1001, 1002, 1003) == [30, 40, None]
    assert my_stores.CALLS[-1] == ("read", "driver_stats", ("trips",))
    assert store.get_feature_view("driver_stats").materialization_intervals == [(T0 - 2 * HOUR, T0)]
    row = {"driver_id": 1001, "conv_rate": 0.9, "trips": 77, "city": None, "created": T0}

    def push(at: object, trips: int) -> None:
        rows = {
            name: [value] for name, value in (row | {"trips": trips, "event_timestamp": at}).items()
        }
        store.push("push", pa.table(rows | {"city": pa.array([None], pa.string())}))

    push(T0, 77)
    push(T0 - HOUR, 1)
    asked = store.get_online_features(
        ["driver_push:trips", "driver_push:city"], [{"driver_id": 1001}]
    )
    assert asked.to_dict() == {"driver_id": [1001], "trips": [77], "city": [None]}

    async def awaited() -> list[int]:
        answer = await store.get_online_features_async(["driver_push:trips"], [{"driver_id": 1001}])
        return answer.to_dict()["trips"]

    assert asyncio.run(awaited()) == [77]


def test_an_older_interval_takes_no_value_back(repository: Path) -> None:
    store = applied(repository, "my_stores.DictOnlineStore")
    store.materialize(T0 - HOUR, T0, ["driver_stats"])
    store.materialize(T0 - 2 * HOUR, T0 - 2 * HOUR, ["driver_stats"])
    assert trips(store, 1001) == [30]


def test_several_rows_of_a_key_in_a_batch_are_one(repository: Path) -> None:
    store = applied(repository, "my_stores.DictOnlineStore")
    import my_stores

    frame = pa.table(
        {
            "driver_id": [7, 7, 7],
            "event_timestamp": [T0, T0 + HOUR, T0 + HOUR],
            "created": [T0, T0 + HOUR, T0],
            "conv_rate": [0.1, 0.2, 0.3],
            "trips": [1, 2, 3],
            "city": ["a", "b", "c"],
        }
    )
    store.write_to_online_store("driver_stats", frame)
    assert trips(store, 7) == [2]
    assert my_stores.CALLS[-2] == ("write", "driver_stats", 1)


def test_values_of_loose_types_and_views_without_entities_come_back(repository: Path) -> None:
    store = with_store(repository, "my_stores.DictOnlineStore")
    source = FileSource(name="wide", path="wide.parquet", timestamp_field="event_timestamp")
    features = {"tags": Map, "doc": Json, "names": Array(String), "at": UnixTimestamp, "n": Int64}
    schema = [Field(name=name, dtype=dtype) for name, dtype in features.items()]
    plain = FeatureView(name="plain", entities=[], schema=schema, source=source, ttl=timedelta(0))
    place = Entity(name="place", join_keys=["country"])
    keyed = FeatureView(
        name="keyed",
        entities=[place],
        schema=[Field(name="country", dtype=String), *schema],
        source=source,
        ttl=timedelta(0),
    )
    values = {
        "tags": [{"a": "b"}],
        "doc": ['{"x": [1, 2]}'],
        "names": [["one", "two"]],
        "at": [T0],
        "n": [2**62],
    }
    frame = {"event_timestamp": [T0], "country": ["CH"], **values}
    import pyarrow.parquet as pq

    table = pa.table({**frame, "tags": pa.array([[("a", "b")]], pa.map_(pa.string(), pa.string()))})
    pq.write_table(table, repository / "wide.parquet")
    store.apply([place, plain, keyed])
    store.materialize(T0 - HOUR, T0)
    for view, key in (("plain", {}), ("keyed", {"country": "CH"})):
        answer = store.get_online_features([f"{view}:{name}" for name in features], [key]).to_dict()
        assert answer["tags"] == [{"a": "b"}]
        assert answer["doc"] == [{"x": [1, 2]}]
        assert answer["names"] == [["one", "two"]]
        assert answer["at"] == [T0]
        assert answer["n"] == [2**62]


def test_tables_go_with_their_views(repository: Path) -> None:
    store = applied(repository, "my_stores.DictOnlineStore")
    import my_stores

    store.materialize(T0 - HOUR, T0)
    store.delete_feature_view("driver_push")
    assert my_stores.CALLS[-1] == ("drop", "driver_push")
    store.teardown()
    assert my_stores.CALLS[-1] == ("drop", "driver_stats")
    assert my_stores.ROWS == {}


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (
            "my_stores.NoStore",
            "is not a subclass of `feast.infra.online_stores.online_store.OnlineStore`",
        ),
        ("my_stores.MissingOnlineStore", "is not a subclass of"),
        ("no_such_module.MyOnlineStore", "there is no module `no_such_module`; install it"),
        ("my_stores.AbstractOnlineStore", "abstract"),
    ],
)
def test_a_wrong_class_is_told(repository: Path, kind: str, reason: str) -> None:
    with pytest.raises(Exception, match=f"the online store `{kind}` failed.*{reason}"):
        applied(repository, kind)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("FailingOnlineStore", "OSError: the shelf fell down"),
        ("ShortOnlineStore", "returned 0 rows of feature view `driver_stats` for 1 entity keys"),
        ("LooseOnlineStore", "returned a int for feature `trips` of feature view `driver_stats`"),
        ("NoneOnlineStore", "must return a list of pairs"),
    ],
)
def test_what_a_store_does_wrong_is_told(repository: Path, kind: str, reason: str) -> None:
    store = applied(repository, f"my_stores.{kind}")
    with pytest.raises(Exception, match=f"the online store `my_stores.{kind}` failed.*{reason}"):
        trips(store, 1001)


def test_settings_beside_the_type_reach_the_class(repository: Path) -> None:
    store = with_store(repository, "my_stores.SettingsOnlineStore", "  shelf: upper\n")
    store.apply(list(definitions().values()))
    with pytest.raises(Exception, match=f"upper of proj in {repository.name}"):
        trips(store, 1001)


def test_names_that_are_no_class_are_misspelt_stores(repository: Path) -> None:
    with pytest.raises(Exception, match="no online store of type `sqlit`"):
        with_store(repository, "sqlit")


def test_the_example_is_materialized_read_and_served(tmp_path: Path) -> None:
    folder = tmp_path / "example"
    shutil.copytree(EXAMPLE, folder)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}

    def run(*command: str) -> str:
        done = subprocess.run(
            [sys.executable, *command],
            check=False,
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    feast = ("-m", "feast._cli")
    run("make_data.py")
    run(*feast, "apply")
    assert "driver_trips" in run(*feast, "materialize", "2026-11-01", "2026-11-02")
    check = json.loads(run(*feast, "online-store", "check", "--output", "json"))
    assert check["online_store"] == "stores.ShelfOnlineStore"
    assert [table["state"] for table in check["tables"]] == ["ok"]
    read = ("get-online-features", "-e", "driver_id=3", "-f", "driver_trips:trips")
    assert "323" in run(*feast, *read, "--output", "table")
    port = servers.free_port()
    serve = [sys.executable, *feast, "serve", "--port", str(port)]
    log = tmp_path / "log"
    with servers.server(serve, log, lambda: servers.listens(port), cwd=folder, env=environment):
        body = {"features": ["driver_trips:trips"], "entities": {"driver_id": [3, 99]}}
        for _ in range(20):
            request = urllib.request.Request(
                f"http://127.0.0.1:{port}/get-online-features",
                json.dumps(body).encode(),
                {"content-type": "application/json"},
            )
            with urllib.request.urlopen(request) as answer:
                results = json.loads(answer.read())["results"]
            assert [result["values"] for result in results] == [[3, 99], [323, None]]
            assert results[1]["statuses"] == ["PRESENT", "NOT_FOUND"]


def test_the_program_without_python_says_that_it_cannot(repository: Path) -> None:
    applied(repository, "my_stores.DictOnlineStore")
    binary = os.environ.get("FEAST_BINARY", "")
    assert binary, "FEAST_BINARY must name the standalone program"
    read = ("get-online-features", "-e", "driver_id=1001", "-f", "driver_stats:trips")
    for arguments in (read, ("online-store", "check"), ("materialize", "2026-11-20", "2026-11-21")):
        done = subprocess.run(
            [binary, "-c", str(repository), *arguments], capture_output=True, text=True, check=False
        )
        assert done.returncode == 1
        told = "the online store `my_stores.DictOnlineStore` is a Python class, which this program cannot run"
        assert told in done.stderr, done.stderr
    # What needs no online store works.
    listing = subprocess.run(
        [binary, "-c", str(repository), "entities", "list"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "driver" in listing.stdout
