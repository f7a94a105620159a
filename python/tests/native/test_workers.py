"""Functions behind the HTTP server run in processes of their own: whatever they do, the server answers and stays up."""

from __future__ import annotations

import base64
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
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from drivers import T0, definitions, write_repository

from feast import FeatureStore, Field, RequestSource
from feast.on_demand_feature_view import OnDemandFeatureView
from feast.types import Int64

DRIVERS: Any = definitions()
REQUEST = RequestSource(name="vals", schema=[Field(name="val", dtype=Int64)])

# By name: a function of `inputs`, and the status and words of the answer to a request for its view.
BAD = {
    "raises": (
        "raise ValueError('no ' * 3)",
        500,
        "failed in line 2 of its function: ValueError: no no no",
    ),
    "wrong_length": ("return {'x': [1, 2, 3]}", 500, "returned 3 values for `x`, expected 2"),
    "wrong_type": (
        "return {'x': ['one'] * len(inputs['val'])}",
        500,
        "column `x` has `one` in row 0",
    ),
    "wrong_columns": ("return {'y': inputs['val']}", 500, "did not return `x`, which it declares"),
    "leaves": (
        "import os; os._exit(7)",
        500,
        "its function ended the process that ran it (exit status: 7)",
    ),
    "crashes": (
        "import os; os.kill(os.getpid(), 11)",
        500,
        "ended the process that ran it (signal: 11",
    ),
    "loops": ("while True: pass", 504, "its function took longer than 5 s and was stopped"),
    "hoards": ("x = [bytearray(64 << 20) for _ in range(64)]; return {'x': x}", 500, "MemoryError"),
    "closes": (
        "import os; os.closerange(0, 256); return {'x': inputs['val']}",
        500,
        "ended the process that ran it",
    ),
}
GOOD = {
    "prints": "print('hello ' * 100000); import sys; sys.stdout.flush(); return {'x': inputs['val']}",
    # Not plain arithmetic, which would not be called.
    "doubles": "return {'x': [sum((one, one)) for one in inputs['val']]}",
    "trebles": "return {'x': [3 * one for one in inputs['val']]}",
    "reads": "import sys; return {'x': [len(sys.stdin.read()) for _ in inputs['val']]}",
    # Rows of a stream of ours, which pyarrow reads without holding the interpreter.
    "nested": "import os, pandas; from datetime import datetime, timezone; from feast import FeatureStore; "
    "times = [datetime(2026, 11, 20, 13, tzinfo=timezone.utc)]; "
    "entity = pandas.DataFrame({'driver_id': [1001], 'event_timestamp': times}); "
    "store = FeatureStore(repo_path=os.environ.get('NESTED_REPOSITORY')); "
    "job = store.get_historical_features(entity_df=entity, features=['driver_stats:trips']); "
    "return {'x': job.to_arrow()['trips'].to_pylist() * len(inputs['val'])}",
    # What they return tells how many rows they were given; nobody is alone for as long as they take.
    "counts": "import time; time.sleep(0.005); return {'x': [len(inputs['val'])] * len(inputs['val'])}",
    "even": "assert not any(one % 2 for one in inputs['val']), 'odd'; "
    "import time; time.sleep(0.002); return {'x': inputs['val']}",
    "whoami": "import os; return {'x': [os.getpid() for _ in inputs['val']]}",
}


def kept(name: str, source: str) -> OnDemandFeatureView:
    """A view over one of the drivers' views whose results are stored."""
    text = f"def {name}(inputs):\n    return {{'x': [2 * one for one in inputs['trips']]}}\n"
    namespace: dict[str, Any] = {}
    exec(text, namespace)  # noqa: S102
    return OnDemandFeatureView(
        name=name,
        entities=[DRIVERS["driver"]],
        sources=[DRIVERS[source]],
        schema=[Field(name="driver_id", dtype=Int64), Field(name="x", dtype=Int64)],
        udf=namespace[name],
        udf_string=text,
        mode="python",
        write_to_online_store=True,
    )


# The same, and frames, for views whose tag says that rows are computed from themselves.
BY_ROW = {
    "counts_by_row": ("python", GOOD["counts"]),
    "even_by_row": ("python", GOOD["even"]),
    "whole": (
        "pandas",
        "import time; time.sleep(0.005); inputs['x'] = int(inputs['val'].dtype.kind == 'i'); return inputs",
    ),
}


def view(name: str, body: str, mode: str = "python", **tags: str) -> OnDemandFeatureView:
    source = f"def {name}(inputs):\n    {body}\n"
    namespace: dict[str, Any] = {}
    exec(source, namespace)  # noqa: S102
    return OnDemandFeatureView(
        name=name,
        sources=[REQUEST],
        schema=[Field(name="x", dtype=Int64)],
        udf=namespace[name],
        udf_string=source,
        mode=mode,
        tags=tags,
    )


class Server:
    """A running `feast serve`."""

    def __init__(self, repository: Path, *arguments: str, **environment: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        command = os.environ.get("FEAST_BINARY_UNDER_TEST")
        program = [command] if command else [sys.executable, "-m", "feast._cli"]
        self.log = repository / "server.log"
        self.process = subprocess.Popen(
            [*program, "-c", str(repository), "serve", "--port", str(self.port), *arguments],
            stdout=subprocess.PIPE,
            stderr=self.log.open("wb"),
            env={**os.environ, **environment},
        )
        deadline = time.monotonic() + 60
        while self.get("/health") != 200:
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()

    def get(self, path: str) -> int:
        try:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
            connection.request("GET", path)
            return connection.getresponse().status
        except ConnectionError:
            return 0

    def ask(self, name: str, values: list[Any] | None = None) -> tuple[int, Any]:
        """Status and body of the answer to a request for one view."""
        values = [1, 2] if values is None else values
        body = {"features": [f"{name}:x"], "entities": {"val": values}}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request(
            "POST", "/get-online-features", json.dumps(body), {"content-type": "application/json"}
        )
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())

    def values(self, name: str, values: list[Any]) -> list[int]:
        status, body = self.ask(name, values)
        assert status == 200, body
        return body["results"][-1]["values"]

    def stop(self) -> bytes:
        self.process.send_signal(signal.SIGTERM)
        output, _ = self.process.communicate(timeout=60)
        return output


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_repository(tmp_path_factory.mktemp("workers"))
    with (folder / "feature_store.yaml").open("a") as config:
        config.write("transformations: {workers: 2, timeout_seconds: 5, memory_limit_mb: 1024}\n")
    store = FeatureStore(repo_path=str(folder))
    views = [view(name, body) for name, (body, *_) in BAD.items()]
    views += [view(name, body) for name, body in GOOD.items()]
    views += [
        view(name, body, mode, **{"feast.row_wise": "true"})
        for name, (mode, body) in BY_ROW.items()
    ]
    views += [kept("written", "driver_stats"), kept("pushed", "driver_push")]
    store.apply([*DRIVERS.values(), *views], skip_feature_view_validation=True)
    store.materialize(T0.replace(day=1), T0.replace(day=21))
    return folder


@pytest.fixture(scope="module")
def server(repository: Path) -> Iterator[Server]:
    running = Server(repository, NESTED_REPOSITORY=str(repository))
    yield running
    # Not one byte of what functions print comes out of the server.
    assert running.stop() == b""
    assert running.process.returncode == 0, running.log.read_text()


@pytest.mark.parametrize("name", BAD)
def test_a_function_that_misbehaves_costs_its_own_request_only(server: Server, name: str) -> None:
    _, status, words = BAD[name]
    with ThreadPoolExecutor(4) as together:
        bad = together.submit(server.ask, name)
        others = [together.submit(server.values, "doubles", [one]) for one in range(20)]
        found, body = bad.result()
        assert [other.result() for other in others] == [[2 * one] for one in range(20)]
    assert found == status, body
    assert f"on-demand feature view `{name}` " in body
    assert words in body
    assert "Traceback" not in body
    assert server.values("doubles", [4]) == [8]
    assert server.get("/health") == 200


def test_what_functions_print_and_read_disturbs_nobody(server: Server) -> None:
    assert server.values("prints", [1, 2]) == [1, 2]
    assert server.values("reads", [1]) == [0]
    assert server.values("prints", [3]) == [3]


def test_functions_do_not_run_in_the_server(server: Server) -> None:
    seen = {server.values("whoami", [1])[0] for _ in range(20)}
    assert server.process.pid not in seen
    assert 1 <= len(seen) <= 2


def test_functions_may_use_the_feature_store_and_its_streams(server: Server) -> None:
    for _ in range(5):
        assert server.values("nested", [1, 2]) == [30, 30]


def test_requests_at_the_same_time_get_their_own_rows(server: Server) -> None:
    def one(number: int) -> list[int]:
        return server.values("doubles", list(range(number, number + number % 7 + 1)))

    with ThreadPoolExecutor(16) as together:
        for number, values in enumerate(together.map(one, range(200))):
            assert values == [2 * value for value in range(number, number + number % 7 + 1)]


def test_a_function_is_given_the_rows_of_one_request_whoever_else_asks(server: Server) -> None:
    with ThreadPoolExecutor(32) as together:
        answers = together.map(lambda n_rows: server.values("counts", [1] * n_rows), [1, 2, 3] * 40)
        assert list(answers) == [[1], [2, 2], [3, 3, 3]] * 40


def test_rows_that_are_computed_from_themselves_may_come_together(server: Server) -> None:
    deadline = time.monotonic() + 60
    together_at_most = 0
    while together_at_most <= 3:
        assert time.monotonic() < deadline
        with ThreadPoolExecutor(32) as together:
            answers = together.map(
                lambda n_rows: server.values("counts_by_row", [1] * n_rows), [1, 2, 3] * 20
            )
            for n_rows, answer in zip([1, 2, 3] * 20, answers):
                assert len(answer) == n_rows
                together_at_most = max(together_at_most, *answer)


def test_a_missing_number_of_one_request_does_not_change_the_type_of_another(
    server: Server,
) -> None:
    asked = [[1], [None], [1, 2], [3, None]] * 20
    with ThreadPoolExecutor(32) as together:
        answers = list(together.map(lambda values: server.values("whole", values), asked))
    assert answers == [[1], [0], [1, 1], [0, 0]] * 20


@pytest.mark.parametrize("name", ["even", "even_by_row"])
def test_an_error_of_one_request_is_not_that_of_others(server: Server, name: str) -> None:
    with ThreadPoolExecutor(32) as together:
        answers = list(together.map(lambda value: server.ask(name, [value]), range(120)))
    for value, (status, body) in enumerate(answers):
        if value % 2:
            assert status == 500
            assert "AssertionError: odd" in body
        else:
            assert status == 200, body
            assert body["results"][-1]["values"] == [value]


def test_a_view_that_keeps_failing_does_not_take_workers_from_others(server: Server) -> None:
    answers = [server.ask("leaves") for _ in range(8)]
    assert {status for status, _ in answers} == {500}
    assert any("is not computed for a moment" in body for _, body in answers)
    started = time.monotonic()
    assert server.values("doubles", [1]) == [2]
    assert time.monotonic() - started < 30


def test_workers_end_with_a_server_that_is_killed(repository: Path) -> None:
    running = Server(repository, "--transformation-workers", "1")
    worker = running.values("whoami", [1])[0]
    os.kill(worker, 0)
    running.process.kill()
    running.process.wait(timeout=60)
    deadline = time.monotonic() + 30
    while Path(f"/proc/{worker}").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_killed_worker_is_replaced(server: Server) -> None:
    for _ in range(3):
        os.kill(server.values("whoami", [1])[0], signal.SIGKILL)
        assert server.values("doubles", [21]) == [42]


def test_plain_arithmetic_is_computed_without_a_worker(repository: Path) -> None:
    running = Server(repository, "--transformation-workers", "1")
    worker = running.values("whoami", [1])[0]
    assert running.values("trebles", [5]) == [15]
    # A worker that does not answer would keep everybody waiting who needs it.
    os.kill(worker, signal.SIGSTOP)
    assert running.values("trebles", [7, 8]) == [21, 24]
    # What it would do otherwise than a processor, Python tells.
    os.kill(worker, signal.SIGCONT)
    status, body = running.ask("trebles", [None])
    assert status == 500
    assert "failed in line 2 of its function: TypeError" in json.dumps(body)
    running.stop()


def test_rows_that_are_written_are_transformed(server: Server) -> None:
    def post(path: str, body: dict[str, Any]) -> int:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
        connection.request("POST", path, json.dumps(body), {"content-type": "application/json"})
        return connection.getresponse().status

    def read(view: str, driver: int) -> Any:
        body = {"features": [f"{view}:x"], "entities": {"driver_id": [driver]}}
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
        connection.request(
            "POST", "/get-online-features", json.dumps(body), {"content-type": "application/json"}
        )
        return json.loads(connection.getresponse().read())["results"][-1]["values"][0]

    row = {"driver_id": [5], "conv_rate": [0.5], "trips": [21], "city": ["x"]}
    assert post("/write-to-online-store", {"feature_view_name": "written", "df": row}) == 200
    assert read("written", 5) == 42
    as_is = {"driver_id": [5], "x": [1]}
    body = {"feature_view_name": "written", "df": as_is, "transform_on_write": False}
    assert post("/write-to-online-store", body) == 200
    assert read("written", 5) == 1
    times = {"event_timestamp": ["2026-11-20T12:00:00Z"], "created": ["2026-11-20T12:00:00Z"]}
    assert post("/push", {"push_source_name": "push", "df": {**row, **times}}) == 200
    assert read("pushed", 5) == 42
    failing = {
        **row,
        "trips": [None],
        "event_timestamp": ["2026-11-21T12:00:00Z"],
        "created": times["created"],
    }
    assert post("/push", {"push_source_name": "push", "df": failing}) == 500
    assert read("pushed", 5) == 42


def test_no_pickle_of_a_caller_is_loaded(server: Server, tmp_path: Path) -> None:
    trap = tmp_path / "sprung"

    class Trap:
        def __reduce__(self) -> Any:
            return (Path.touch, (trap,))

    hostile = pickle.dumps(Trap())
    text = base64.b64encode(hostile).decode()
    pickle.loads(hostile)
    assert trap.exists()
    trap.unlink()

    def post(path: str, body: bytes, kind: str) -> int:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
        connection.request("POST", path, body, {"content-type": kind})
        return connection.getresponse().status

    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    connection.request("GET", "/openapi.json")
    paths = json.loads(connection.getresponse().read())["paths"]
    entrances = [path for path, methods in paths.items() if "post" in methods]
    assert {"/get-online-features", "/push", "/write-to-online-store"} <= set(entrances)
    sent = 0
    for path in entrances:
        for kind in ("application/json", "application/octet-stream", "application/x-python-pickle"):
            post(path, hostile, kind)
            sent += 1
        for value in (text, {"py/object": text}, {"body": text, "__reduce__": text}, [text]):
            wrong = {
                "features": ["doubles:x"],
                "entities": {"val": [value]},
                "feature_service": value,
                "feature_view_name": "driver_push",
                "push_source_name": "push",
                "df": {
                    "driver_id": [1001],
                    "conv_rate": [value],
                    "city": [value],
                    "event_timestamp": [value],
                },
            }
            post(path, json.dumps(wrong).encode(), "application/json")
            sent += 1
    assert sent >= 28
    assert not trap.exists()
    assert server.values("doubles", [2]) == [4]
