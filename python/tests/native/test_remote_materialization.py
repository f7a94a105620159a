"""Where the online store is a feature server, materializing is an order to it, as with Feast 0.67."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from drivers import HOUR, T0, definitions, write_repository

from feast import FeatureStore


class Server(ThreadingHTTPServer):
    """Writes down what it is told, and answers as it is told to."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.told: list[tuple[str, dict[str, object]]] = []
        self.answer: tuple[int, object] = (200, None)


class Handler(BaseHTTPRequestHandler):
    """One request."""

    server: Server

    def do_POST(self) -> None:
        """Any route."""
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.told.append((self.path, json.loads(body)))
        status, answer = self.server.answer
        text = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, format: str, *arguments: object) -> None:
        """Nothing is to be seen."""


@pytest.fixture
def server() -> Iterator[Server]:
    """Something that listens."""
    with Server() as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def client(server: Server, tmp_path: Path) -> FeatureStore:
    """A store whose online store is the server."""
    write_repository(tmp_path)
    (tmp_path / "feature_store.yaml").write_text(
        "project: proj\nregistry: registry.db\n"
        f"online_store: {{type: remote, path: 'http://127.0.0.1:{server.server_port}'}}\n"
    )
    store = FeatureStore(repo_path=str(tmp_path))
    store.apply(list(definitions().values()))
    return store


def test_the_server_is_told_what_to_load(client: FeatureStore, server: Server) -> None:
    client.materialize(T0 - HOUR, T0, feature_views=["driver_stats"], version="v0")
    client.materialize(T0 - HOUR, T0, disable_event_timestamp=True)
    client.materialize_incremental(T0)
    start, end = "2026-11-20T11:00:00+00:00", "2026-11-20T12:00:00+00:00"
    views = ["driver_stats"]
    assert server.told == [
        (
            "/materialize",
            {"start_ts": start, "end_ts": end, "feature_views": views, "version": "v0"},
        ),
        ("/materialize", {"disable_event_timestamp": True, "feature_views": None}),
        ("/materialize-incremental", {"end_ts": end, "feature_views": None}),
    ]
    view = client.get_feature_view("driver_stats")
    assert view.materialization_intervals == [], "the server records what it did"


def test_who_does_not_wait_says_so_to_the_server(client: FeatureStore, server: Server) -> None:
    server.answer = (202, {"status": "accepted", "feature_views": ["driver_stats"]})
    client.materialize(T0 - HOUR, T0, run_async=True)
    client.materialize_incremental(T0, run_async=True, force=True)
    assert [path for path, _ in server.told] == [
        "/materialize?async=true",
        "/materialize-incremental?async=true&force=true",
    ]
    for call in (
        lambda: client.materialize(T0 - HOUR, T0, force=True),
        lambda: client.materialize_incremental(T0, force=True),
    ):
        with pytest.raises(ValueError, match="run_async=True"):
            call()
    assert len(server.told) == 2


def test_what_the_server_refuses_is_told_once(client: FeatureStore, server: Server) -> None:
    server.answer = (409, {"error": "`driver_stats` is being materialized already"})
    with pytest.raises(Exception, match="answered 409.*is being materialized already") as told:
        client.materialize(T0 - HOUR, T0, run_async=True)
    assert "force=True" in told.value.hint
    server.answer = (503, "later")
    with pytest.raises(Exception, match="answered 503"):
        client.materialize(T0 - HOUR, T0)
    assert len(server.told) == 2


def test_elsewhere_both_change_nothing(store: FeatureStore) -> None:
    store.materialize(T0 - 24 * HOUR, T0, run_async=True, force=True)
    answer = store.get_online_features(["driver_stats:trips"], [{"driver_id": 1001}])
    assert answer.to_dict()["trips"] == [30]
    store.materialize_incremental(T0, force=True)
