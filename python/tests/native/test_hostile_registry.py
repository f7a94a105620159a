"""Pickles in a registry behind a registry server: neither the server loads one, nor who reads or writes through it."""

from __future__ import annotations

import http.client
import json
import os
import pickle
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from drivers import T0, definitions, write_repository

from feast import FeatureStore, Field, RequestSource
from feast.on_demand_feature_view import OnDemandFeatureView, on_demand_feature_view
from feast.types import Int64

DRIVERS: Any = definitions()
REQUEST = RequestSource(name="vals", schema=[Field(name="val", dtype=Int64)])


@on_demand_feature_view(
    sources=[DRIVERS["driver_stats"], REQUEST],
    schema=[Field(name="total", dtype=Int64)],
    mode="python",
)
def totals(inputs: dict[str, Any]) -> dict[str, Any]:
    return {"total": [trips + val for trips, val in zip(inputs["trips"], inputs["val"])]}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


@contextmanager
def registry_server(repository: Path) -> Iterator[tuple[int, int]]:
    """A registry server in a repository; its ports for gRPC and REST."""
    ports = free_port(), free_port()
    command = [sys.executable, "-m", "feast._cli", "-c", str(repository), "serve_registry"]
    command += ["--port", str(ports[0]), "--rest-api", "--rest-port", str(ports[1])]
    log = repository / "registry_server.log"
    process = subprocess.Popen(command, stdout=log.open("wb"), stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + 60
        while any(socket.socket().connect_ex(("127.0.0.1", port)) for port in ports):
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        yield ports
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()


def get(port: int, path: str) -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", f"/api/v1{path}")
    answer = connection.getresponse()
    return answer.status, json.loads(answer.read())


def post(port: int, path: str, body: bytes, kind: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("POST", path, body, {"content-type": kind})
    return connection.getresponse().status


def test_no_pickle_is_loaded_by_a_registry_server_or_by_who_uses_it(tmp_path: Path) -> None:
    trap = tmp_path / "sprung"

    class Trap:
        def __reduce__(self) -> Any:
            return (Path.touch, (trap,))

    hostile = pickle.dumps(Trap())

    def arm(message: Any) -> None:
        message.spec.feature_transformation.user_defined_function.body = hostile
        message.spec.user_defined_function.body = hostile

    def armed(view: OnDemandFeatureView) -> OnDemandFeatureView:
        """The same view with another body, as a client would send it."""
        message = view.to_proto()
        arm(message)
        return OnDemandFeatureView.from_proto(message)

    owner, user = tmp_path / "owner", tmp_path / "user"
    for folder in (owner, user):
        folder.mkdir()
        write_repository(folder)
    store = FeatureStore(repo_path=str(owner))
    store.apply([*DRIVERS.values(), totals])
    from feast.protos.feast.core.Registry_pb2 import Registry

    path = owner / "registry.db"
    registry = Registry.FromString(path.read_bytes())
    for view in registry.on_demand_feature_views:
        arm(view)
    assert hostile in registry.SerializeToString()
    path.write_bytes(registry.SerializeToString())

    with registry_server(owner) as (grpc, rest):
        config = user / "feature_store.yaml"
        remote = f'registry: {{registry_type: remote, path: "127.0.0.1:{grpc}"}}'
        config.write_text(config.read_text().replace("registry: registry.db", remote))
        # Who looks.
        for route in (
            "/feature_views/totals?project=proj",
            "/search?query=totals",
            "/lineage/complete/all",
        ):
            status, found = get(rest, route)
            assert status == 200 and "totals" in json.dumps(found), route
        client = FeatureStore(repo_path=str(user))
        assert [view.name for view in client.list_on_demand_feature_views()] == ["totals"]
        client.get_on_demand_feature_view("totals").to_proto()
        # Who sends: definitions with a pickle in them, and pickles instead of requests.
        client.apply([*DRIVERS.values(), armed(totals)])
        client.registry.apply_feature_view(armed(totals), "proj")
        assert hostile in path.read_bytes()
        for kind in ("application/json", "application/octet-stream", "application/grpc"):
            for entrance in ("/api/v1/entities", "/api/v1/saved_datasets", "/api/v1/feature_views"):
                assert post(rest, entrance, hostile, kind) >= 400
        # Who computes: the text is the code.
        client.materialize(T0 - timedelta(days=30), T0 + timedelta(days=1))
        rows = [{"driver_id": 1001, "val": 5}]
        answer = client.get_online_features(["totals:total"], rows).to_dict()
        assert answer["total"] == [35]
    assert not trap.exists()
    pickle.loads(hostile)
    assert trap.exists()
