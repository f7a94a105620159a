"""A server whose SQL registry stands still, or is gone, serves what it knows, says so, and takes the registry up again."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import servers
from drivers import HOUR, T0, definitions, write_repository

from feast import FeatureStore

PATIENCE = 90


def ask(port: int, path: str, body: Any = None) -> Any:
    """The answer of a server."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{path}", data, {"content-type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=5) as answer:
        text = answer.read()
    return text.decode() if path == "/metrics" else json.loads(text)


def test_features_are_served_while_the_registry_stands_still(tmp_path: Path) -> None:
    write_repository(tmp_path)
    with servers.postgres() as database:
        name = database.create()
        (tmp_path / "feature_store.yaml").write_text(
            "project: proj\nonline_store: {type: sqlite, path: online.db}\n"
            f"registry: {{registry_type: sql, path: '{database.url(name)}', cache_ttl_seconds: 1}}\n"
        )
        store = FeatureStore(repo_path=str(tmp_path))
        store.apply(list(definitions().values()))
        store.materialize(T0 - HOUR, T0)
        port = servers.free_port()
        serve = [
            sys.executable,
            "-m",
            "feast._cli",
            "-c",
            str(tmp_path),
            "serve",
            "--port",
            str(port),
        ]
        with servers.server(serve, tmp_path / "log", lambda: servers.listens(port)):
            body = {"features": ["driver_stats:trips"], "entities": {"driver_id": [1001]}}

            def refresh_error() -> str | None:
                assert ask(port, "/get-online-features", body)["results"][1]["values"] == [30]
                ready = ask(port, "/ready")
                assert ready["status"] == "ready"
                return ready["registry"]["last_refresh_error"]

            def until(told: bool) -> None:
                deadline = time.monotonic() + PATIENCE
                while (refresh_error() is not None) != told:
                    assert time.monotonic() < deadline, f"{told}: {refresh_error()}"
                    time.sleep(0.05)

            until(told=False)
            listed = subprocess.run(
                ["ps", "-ww", "-eo", "pid=,ppid=,args="], capture_output=True, text=True, check=True
            ).stdout
            rows = [line.split(maxsplit=2) for line in listed.splitlines()]
            place = database.options(name)["port"]
            roots = {pid for pid, _, command in rows if re.search(rf"-p {place}\b", command)}
            processes = [int(pid) for pid, parent, _ in rows if pid in roots or parent in roots]
            assert processes
            for process in processes:
                os.kill(process, signal.SIGSTOP)
            try:
                until(told=True)
                assert servers.PASSWORD not in str(refresh_error())
                (age,) = re.findall(
                    r"^feast_registry_snapshot_age_seconds (.*)$",
                    ask(port, "/metrics"),
                    re.MULTILINE,
                )
                assert float(age) > 1
            finally:
                for process in processes:
                    os.kill(process, signal.SIGCONT)
            until(told=False)
