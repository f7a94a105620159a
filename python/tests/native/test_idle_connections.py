"""Ten thousand clients that are connected and say nothing do not stop those who ask."""

from __future__ import annotations

import http.client
import json
import os
import resource
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

from drivers import T0

from feast import FeatureStore

IDLE = 10_000


def test_idle_connections_do_not_stop_others(repository: Path, store: FeatureStore) -> None:
    store.materialize(T0.replace(day=1), T0.replace(day=21))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert hard == resource.RLIM_INFINITY or hard > IDLE + 500, (
        f"this test opens {IDLE} connections, but `ulimit -Hn` is {hard}"
    )
    with ExitStack() as stack:
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        free = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        port = free.getsockname()[1]
        free.close()
        command = [sys.executable, "-m", "feast._cli"]
        # The server has the soft limit of a login; raising it is its own business.
        server = subprocess.Popen(
            [
                *command,
                "-c",
                str(repository),
                "serve",
                "--port",
                str(port),
                "--keep-alive-timeout",
                "300",
                "--no-access-log",
            ],
            stderr=(repository / "server.log").open("wb"),
        )
        stack.callback(server.wait, 60)
        stack.callback(server.terminate)

        def ask() -> list[object]:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
            body = {"features": ["driver_stats:trips"], "entities": {"driver_id": [1001]}}
            connection.request(
                "POST",
                "/get-online-features",
                json.dumps(body),
                {"content-type": "application/json"},
            )
            answer = connection.getresponse()
            told = json.loads(answer.read())
            connection.close()
            assert answer.status == 200, told
            return told["results"][-1]["values"]

        deadline = time.monotonic() + 60
        while True:
            try:
                expected = ask()
                break
            except ConnectionError:
                assert server.poll() is None and time.monotonic() < deadline, (
                    repository / "server.log"
                ).read_text()
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        idle = [
            stack.enter_context(socket.create_connection(("127.0.0.1", port), 20))
            for _ in range(IDLE)
        ]
        # The server has taken all of them once it has as many files open.
        files = f"/proc/{server.pid}/fd"
        while len(os.listdir(files)) < IDLE:
            assert time.monotonic() < deadline, (
                f"the server took {len(os.listdir(files))} of {IDLE} connections"
            )
        slowest = 0.0
        for _ in range(50):
            started = time.monotonic()
            assert ask() == expected
            slowest = max(slowest, time.monotonic() - started)
        assert slowest < 5
        idle[0].sendall(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n")
        assert idle[0].recv(100).startswith(b"HTTP/1.1 200")
