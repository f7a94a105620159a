"""Reads of Redis on the thread that asks: on how many connections, and what ends these."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
import servers
from drivers import HOUR, T0, definitions, write_repository

from feast import FeatureStore

TRIPS = {1001: 30, 1002: 40, 1003: 50, 1004: None}


class Redis:
    """A server, and a feature store on it that is filled."""

    def __init__(self, port: int, folder: Path) -> None:
        self.port = port
        write_repository(folder)
        online = {"type": "redis", "connection_string": f"127.0.0.1:{port}"}
        (folder / "feature_store.yaml").write_text(
            f"project: proj\nregistry: registry.db\nonline_store: {json.dumps(online)}\n"
        )
        self.folder = folder
        store = self.store()
        store.apply(list(definitions().values()))
        store.materialize(T0 - 100 * HOUR, T0)

    def store(self) -> FeatureStore:
        return FeatureStore(repo_path=str(self.folder))

    def cli(self, *arguments: str) -> str:
        command = [servers.find("redis-cli"), "-p", str(self.port), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    def connections(self) -> int:
        """How many there are, but for the one that asks."""
        return len(self.cli("CLIENT", "LIST").split("\n")) - 2

    def until_alone(self) -> None:
        deadline = time.monotonic() + 20
        while (connections := self.connections()) > 0:
            assert time.monotonic() < deadline, f"{connections} connections are open"
            time.sleep(0.05)


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    folder = tmp_path_factory.mktemp("redis")
    port = servers.free_port()
    command = [
        servers.find("redis-server"),
        "--port",
        str(port),
        "--save",
        "",
        "--dir",
        str(folder),
    ]
    with servers.server(command, folder / "redis.log", lambda: servers.listens(port)):
        yield Redis(port, folder)


def check(store: FeatureStore) -> None:
    rows = [{"driver_id": driver} for driver in TRIPS]
    found = store.get_online_features(["driver_stats:trips"], rows).to_dict()
    assert found == {"driver_id": list(TRIPS), "trips": list(TRIPS.values())}


def test_connections_end_with_their_store(redis: Redis) -> None:
    redis.until_alone()
    store = redis.store()
    check(store)
    assert redis.connections() == 1
    asyncio.run(store.close())
    redis.until_alone()
    check(store)
    other = redis.store()
    check(other)
    del store, other
    redis.until_alone()


def test_many_threads_have_few_connections(redis: Redis) -> None:
    store = redis.store()
    with ThreadPoolExecutor(32) as threads:
        for read in [threads.submit(check, store) for _ in range(2000)]:
            read.result()
    # One per processor, and two that all threads share beyond.
    assert redis.connections() <= (os.cpu_count() or 1) + 2
    asyncio.run(store.close())
    redis.until_alone()


def test_a_connection_that_the_server_closed_is_replaced(redis: Redis) -> None:
    store = redis.store()
    for _ in range(3):
        check(store)
        redis.cli("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        assert redis.connections() == 0
    check(store)


def test_a_forked_process_has_its_own(redis: Redis) -> None:
    store = redis.store()
    check(store)
    child = os.fork()
    if child == 0:
        code = 1
        with suppress(BaseException):
            for _ in range(50):
                check(store)
            code = 0 if redis.connections() == 2 else 2
        os._exit(code)
    for _ in range(50):
        check(store)
    assert os.waitpid(child, 0)[1] == 0
    check(store)


def test_ctrl_c_ends_a_read(redis: Redis) -> None:
    store = redis.store()
    check(store)
    redis.cli("CLIENT", "PAUSE", "20000", "ALL")
    interrupt = threading.Timer(0.3, os.kill, [os.getpid(), signal.SIGINT])
    interrupt.start()
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        check(store)
    assert time.monotonic() - started < 5
    redis.cli("CLIENT", "UNPAUSE")
    # The answer to the read that was given up is nobody's.
    check(store)
