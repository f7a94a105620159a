"""What users of any online store are promised, on real servers: the same flows, what `online-store check` tells, and whole
rows after writers are killed. Redis is one server, a cluster and a server with a sentinel, the latter three encrypted and
with users."""

from __future__ import annotations

import http.client
import json
import os
import random
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import servers
from drivers import HOUR, T0, definitions, write_repository

from feast import Entity, FeatureStore, FeatureView, Field, FileSource
from feast.types import Array, Float64, Int64, String

REDIS = ("redis", "redis_secured", "redis_cluster_secured", "redis_sentinel_secured")
DATABASES = ("postgres", "mysql")
STORES = ("sqlite", *REDIS, *DATABASES, "dynamodb")
USER, PASSWORD = "feast", servers.PASSWORD
KILLS = 6
KEYS = 300


class Redis:
    """Redis processes in a folder, and what their clients have to say."""

    def __init__(self, folder: Path, stack: ExitStack, secured: bool) -> None:
        self.folder, self.stack, self.secured = folder, stack, secured
        folder.mkdir()
        self.tls: list[str] = []
        self.login: list[str] = []
        self.client = ""
        if secured:
            make = (
                "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout key.pem"
                " -out cert.pem -days 2 -subj /CN=localhost -addext subjectAltName=DNS:localhost,IP:127.0.0.1"
            )
            subprocess.run(make.split(), cwd=folder, check=True, capture_output=True)
            cert, key = folder / "cert.pem", folder / "key.pem"
            self.tls = [f"tls-cert-file {cert}", f"tls-key-file {key}", f"tls-ca-cert-file {cert}"]
            self.tls += ["tls-auth-clients no", "tls-replication yes"]
            self.login = ["--tls", "--cacert", str(cert), "--user", USER, "-a", PASSWORD]
            self.client = f",ssl=true,ssl_ca_certs={cert},username={USER},password={PASSWORD}"

    def start(self, *settings: str, sentinel: bool = False) -> int:
        """Starts a process and returns its port."""
        port = servers.free_port()
        lines = ["bind 127.0.0.1", f"dir {self.folder}", *settings]
        if self.secured:
            lines += ["port 0", f"tls-port {port}", *self.tls]
        else:
            lines += [f"port {port}"]
        if not sentinel:
            lines += ['save ""']
        if self.secured and not sentinel:
            lines += ["user default off", f"user {USER} on >{PASSWORD} ~* &* +@all"]
        config = self.folder / f"{port}.conf"
        config.write_text("\n".join(lines) + "\n")
        command = [servers.find("redis-server"), str(config), *(["--sentinel"] if sentinel else [])]
        self.stack.enter_context(
            servers.server(command, self.folder / f"{port}.log", lambda: servers.listens(port))
        )
        return port

    def cli(self, port: int, *arguments: str) -> str:
        """Runs a command on a server."""
        command = [servers.find("redis-cli"), "-p", str(port), "--no-auth-warning", *self.login]
        done = subprocess.run([*command, *arguments], capture_output=True, text=True, check=False)
        return done.stdout + done.stderr


def until(ready: Callable[[], bool], what: str) -> None:
    """Waits for something."""
    deadline = time.monotonic() + 60
    while not ready():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def redis(name: str, folder: Path, stack: ExitStack) -> dict[str, Any]:
    """Starts the servers of a kind of Redis."""
    made = Redis(folder, stack, secured=name != "redis")
    if name == "redis_cluster_secured":
        more = [
            "cluster-enabled yes",
            "tls-cluster yes",
            f"masteruser {USER}",
            f"masterauth {PASSWORD}",
        ]
        # The bus would have a port of its own far above, where there may be none.
        buses = [f"cluster-port {servers.free_port()}" for _ in range(3)]
        ports = [made.start(*more, bus, f"cluster-config-file {bus[13:]}.conf") for bus in buses]
        nodes = [f"127.0.0.1:{port}" for port in ports]
        told = made.cli(ports[0], "--cluster", "create", *nodes, "--cluster-yes")
        until(lambda: "cluster_state:ok" in made.cli(ports[-1], "CLUSTER", "INFO"), told)
        return {
            "type": "redis",
            "redis_type": "redis_cluster",
            "connection_string": f"{nodes[0]},{nodes[1]}{made.client}",
        }
    port = made.start()
    if name == "redis_sentinel_secured":
        watching = made.start(
            f"sentinel monitor mymaster 127.0.0.1 {port} 1",
            f"sentinel auth-user mymaster {USER}",
            f"sentinel auth-pass mymaster {PASSWORD}",
            "requirepass watcher",
            sentinel=True,
        )
        asked = json.dumps({"password": "watcher", "ssl": True})
        return {
            "type": "redis",
            "redis_type": "redis_sentinel",
            "connection_string": f"127.0.0.1:{watching}{made.client},sentinel_kwargs={asked}",
        }
    return {"type": "redis", "connection_string": f"127.0.0.1:{port}{made.client}"}


@contextmanager
def started(name: str, folder: Path) -> Iterator[Callable[[], dict[str, Any]]]:
    """A server for a store; gives what makes the options of an empty one."""
    with ExitStack() as stack:
        if name == "sqlite":
            yield lambda: {"type": "sqlite", "path": "online.db"}
        elif name in REDIS:
            options = redis(name, folder / name, stack)
            yield lambda: options
        elif name in DATABASES:
            database = stack.enter_context(getattr(servers, name)())
            yield lambda: database.options(database.create())
        else:
            endpoint = stack.enter_context(servers.moto(folder / "moto.log"))
            yield lambda: {"type": "dynamodb", "region": "eu-central-1", "endpoint_url": endpoint}


@pytest.fixture(scope="module", params=STORES)
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """The name of a store, and what makes the options of an empty one."""
    os.environ |= {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
    with started(request.param, tmp_path_factory.mktemp("servers")) as options:
        yield request.param, options


def configure(folder: Path, options: dict[str, Any]) -> None:
    """Names an online store. A project of its own, because some stores are shared between tests."""
    project = f"p{abs(hash(str(folder))) % 10**8}"
    (folder / "feature_store.yaml").write_text(
        f"project: {project}\nregistry: registry.db\nonline_store: {json.dumps(options)}\n"
    )


def feast(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs a command in a repository."""
    return subprocess.run(
        [sys.executable, "-m", "feast._cli", "-c", str(folder), *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def trips(store: FeatureStore, view: str, *drivers: int) -> list[int | None]:
    """What is served of drivers."""
    rows = [{"driver_id": driver} for driver in drivers]
    return store.get_online_features([f"{view}:trips"], rows).to_dict()["trips"]


def pushed(at: Any, trips: int) -> pa.Table:
    """A row to push."""
    row = {
        "driver_id": 1001,
        "event_timestamp": at,
        "created": T0,
        "conv_rate": 0.5,
        "trips": trips,
    }
    return pa.table({**{name: [value] for name, value in row.items()}, "city": ["x"]})


def test_a_store_does_what_a_user_does(
    server: tuple[str, Callable[[], dict[str, Any]]], tmp_path: Path
) -> None:
    write_repository(tmp_path)
    configure(tmp_path, server[1]())
    store = FeatureStore(repo_path=str(tmp_path))
    store.apply(list(definitions().values()))
    checked = feast(tmp_path, "online-store", "check", "--output", "json")
    assert checked.returncode == 0, checked.stderr
    told = json.loads(checked.stdout)
    assert [table["state"] for table in told["tables"]] == ["ok", "ok"]
    assert told["round_trip_ms"]["median"] > 0
    store.materialize(T0 - 2 * HOUR, T0)
    assert trips(store, "driver_stats", 1001, 1002, 1003) == [30, 40, None]
    store.push("push", pushed(T0 + HOUR, 70))
    store.push("push", pushed(T0, 60))
    assert trips(store, "driver_push", 1001) == [70]
    # An equal event time is a correction.
    store.push("push", pushed(T0 + HOUR, 71))
    assert trips(store, "driver_push", 1001) == [71]
    other = definitions()
    store.apply([other["driver_stats"]], objects_to_delete=[other["driver_push"]], partial=False)
    assert trips(store, "driver_stats", 1001) == [30]
    store.teardown()
    store.apply(list(definitions().values()))
    assert trips(store, "driver_stats", 1001, 1002) == [None, None]


def test_what_is_wrong_with_a_store_is_told(
    server: tuple[str, Callable[[], dict[str, Any]]], tmp_path: Path
) -> None:
    name, options = server
    write_repository(tmp_path)
    configure(tmp_path, {"type": "sqlite", "path": "other.db"})
    FeatureStore(repo_path=str(tmp_path)).apply(list(definitions().values()))
    configure(tmp_path, options())
    checked = feast(tmp_path, "online-store", "check", "--output", "json")
    states = [table["state"] for table in json.loads(checked.stdout)["tables"]]
    # Redis has no tables that could be missing.
    expected = "ok" if name in REDIS else "missing"
    assert states == [expected] * 2, checked.stderr
    assert (checked.returncode == 0) == (name in REDIS)
    assert "need attention" in checked.stderr or name in REDIS


def nobody_listens(options: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """The same options at a port where nobody is, and what has to be told of it."""
    port = servers.free_port()
    if "connection_string" in options:
        _, comma, settings = options["connection_string"].partition(",")
        places = [part for part in settings.split(",") if not part.startswith("127.0.0.1:")]
        return options | {"connection_string": f"127.0.0.1:{port}{comma}{','.join(places)}"}, str(
            port
        )
    if "endpoint_url" in options:
        return options | {"endpoint_url": f"http://127.0.0.1:{port}"}, str(port)
    return options | {"port": port}, str(port)


def test_a_store_that_is_away_is_told_in_time(
    server: tuple[str, Callable[[], dict[str, Any]]], tmp_path: Path
) -> None:
    name, options = server
    if name == "sqlite":
        away, place = (
            {"type": "sqlite", "path": "/proc/nowhere/online.db"},
            "/proc/nowhere/online.db",
        )
    else:
        away, place = nobody_listens(options())
    write_repository(tmp_path)
    configure(tmp_path, {"type": "sqlite", "path": "other.db"})
    FeatureStore(repo_path=str(tmp_path)).apply(list(definitions().values()))
    configure(tmp_path, away)
    read = ("get-online-features", "-e", "driver_id=1001", "-f", "driver_stats:trips")
    for arguments in (("online-store", "check"), read, ("materialize", "2026-11-01", "2026-11-21")):
        started = time.monotonic()
        done = feast(tmp_path, *arguments)
        assert done.returncode == 1, (arguments, done.stdout)
        assert place in done.stdout + done.stderr, done.stderr
        assert PASSWORD not in done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        assert time.monotonic() - started < 60, arguments


def processes_of(port: int) -> list[int]:
    """The server that listens on a port, and its children."""
    listed = subprocess.run(
        ["ps", "-ww", "-eo", "pid=,ppid=,args="], capture_output=True, text=True, check=True
    )
    rows = [line.split(maxsplit=2) for line in listed.stdout.splitlines()]
    roots = {pid for pid, _, command in rows if re.search(rf"(-p |--port=){port}\b", command)}
    return [int(pid) for pid, parent, _ in rows if pid in roots or parent in roots]


def ask(port: int, deadline: float = 30) -> tuple[int, list[Any]]:
    """Status and values of an answer of a feature server."""
    body = {"features": ["driver_stats:trips"], "entities": {"driver_id": [1001, 1002]}}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=deadline)
    try:
        connection.request(
            "POST", "/get-online-features", json.dumps(body), {"content-type": "application/json"}
        )
        answer = connection.getresponse()
        text = answer.read()
        values = json.loads(text)["results"][1]["values"] if answer.status == 200 else []
        if answer.status == 503:
            assert answer.headers["retry-after"] == "1"
        return answer.status, values
    finally:
        connection.close()


def test_a_server_outlives_a_store_that_stands_still(
    server: tuple[str, Callable[[], dict[str, Any]]], tmp_path: Path
) -> None:
    name, options = server
    if name not in (*DATABASES, "dynamodb"):
        # The tests of the server do it with Redis; a file does not stand still.
        return
    write_repository(tmp_path)
    chosen = options()
    configure(tmp_path, chosen)
    serving = (
        "online_serving: {timeout_seconds: 2, max_concurrent_requests: 4, max_queued_requests: 4}\n"
    )
    with (tmp_path / "feature_store.yaml").open("a") as more:
        more.write(serving)
    store = FeatureStore(repo_path=str(tmp_path))
    store.apply(list(definitions().values()))
    store.materialize(T0 - HOUR, T0)
    port = servers.free_port()
    serve = [sys.executable, "-m", "feast._cli", "-c", str(tmp_path), "serve", "--port", str(port)]
    with servers.server(serve, tmp_path / "serve.log", lambda: servers.listens(port)):
        assert ask(port) == (200, [30, 40])
        place = chosen.get("port") or int(chosen["endpoint_url"].rpartition(":")[2])
        stopped = processes_of(place)
        assert stopped
        answers: list[tuple[int, list[Any]]] = []

        def client() -> None:
            end = time.monotonic() + 3
            while time.monotonic() < end:
                began = time.monotonic()
                answers.append(ask(port))
                assert time.monotonic() - began < 10

        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        try:
            clients = [threading.Thread(target=client) for _ in range(12)]
            for one in clients:
                one.start()
            for one in clients:
                one.join()
        finally:
            for pid in stopped:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)
        assert {status for status, _ in answers} == {503, 504}
        until(lambda: ask(port) == (200, [30, 40]), "the server does not come back")


WRITER = """
import sys
from datetime import datetime, timedelta, timezone

import pyarrow as pa
from feast import FeatureStore

store, number, keys = FeatureStore(repo_path=sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
while True:
    number += 1
    store.write_to_online_store(
        "whole",
        pa.table(
            {
                "key": list(range(keys)),
                "event_timestamp": [datetime.fromtimestamp(number, timezone.utc)] * keys,
                "one": [number] * keys,
                "two": [str(number) * 40] * keys,
                "three": [number / 2] * keys,
                "four": [[number] * 20] * keys,
            }
        ),
    )
    print(number, flush=True)
"""


def test_a_writer_that_is_killed_leaves_whole_rows(
    server: tuple[str, Callable[[], dict[str, Any]]], tmp_path: Path
) -> None:
    write_repository(tmp_path)
    configure(tmp_path, server[1]())
    (tmp_path / "writer.py").write_text(textwrap.dedent(WRITER))
    store = FeatureStore(repo_path=str(tmp_path))
    key = Entity(name="key", join_keys=["key"])
    types = {"key": Int64, "one": Int64, "two": String, "three": Float64, "four": Array(Int64)}
    schema = [Field(name=name, dtype=dtype) for name, dtype in types.items()]
    row = {
        "key": [0],
        "event_timestamp": [T0],
        "one": [0],
        "two": [""],
        "three": [0.0],
        "four": [[0]],
    }
    pq.write_table(pa.table(row), tmp_path / "whole.parquet")
    source = FileSource(name="whole", path="whole.parquet", timestamp_field="event_timestamp")
    view = FeatureView(name="whole", entities=[key], schema=schema, source=source, ttl=timedelta(0))
    store.apply([key, view])
    chance, last, seen = random.Random(1), 0, 0
    for kill in range(KILLS):
        command = [sys.executable, str(tmp_path / "writer.py"), str(tmp_path), str(last), str(KEYS)]
        writer = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert writer.stdout is not None
        for _ in range(1 + kill % 3):
            acknowledged = int(writer.stdout.readline())
        # Somewhere in the middle of the next batches.
        time.sleep(chance.random() * 0.1)
        writer.kill()
        acknowledged = max([acknowledged, *map(int, writer.stdout.read().split())])
        writer.wait()
        asked = [f"whole:{name}" for name in ("one", "two", "three", "four")]
        answer = store.get_online_features(asked, [{"key": at} for at in range(KEYS)])
        rows = answer.to_dict(include_event_timestamps=True)
        for at in range(KEYS):
            number = rows["one"][at]
            assert number >= acknowledged
            assert rows["two"][at] == str(number) * 40
            assert rows["three"][at] == number / 2
            assert rows["four"][at] == [number] * 20
            times = {rows[f"{name}__ts"][at] for name in ("one", "two", "three", "four")}
            assert {
                moment.timestamp() if hasattr(moment, "timestamp") else moment for moment in times
            } == {number}
            seen += 1
        last = max(rows["one"])
    assert seen == KILLS * KEYS
