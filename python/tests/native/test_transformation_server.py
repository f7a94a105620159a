"""`feast serve_transformations`: Feast's protocol over gRPC, and functions that run in processes of their own."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pandas as pd
import pyarrow as pa
import pytest
from drivers import definitions, write_repository
from test_workers import REQUEST, view

from feast import FeatureStore, Field
from feast.on_demand_feature_view import on_demand_feature_view
from feast.protos.feast.serving import TransformationService_pb2 as messages
from feast.types import Float64

DRIVERS: Any = definitions()


@on_demand_feature_view(
    sources=[DRIVERS["driver_stats"], REQUEST],
    schema=[Field(name="plus", dtype=Float64)],
    mode="pandas",
)
def frames(df: pd.DataFrame) -> pd.DataFrame:
    return (df["conv_rate"] + df["val"]).to_frame("plus")


@on_demand_feature_view(
    sources=[DRIVERS["driver_stats"], REQUEST],
    schema=[Field(name="plus", dtype=Float64)],
    mode="python",
)
def columns(inputs: dict[str, Any]) -> dict[str, Any]:
    pairs = zip(inputs["driver_stats__conv_rate"], inputs["val"])
    return {"plus": [None if rate is None else rate + val for rate, val in pairs]}


class Client:
    """The two methods, as any gRPC client calls them."""

    def __init__(self, port: int) -> None:
        self.channel = grpc.insecure_channel(f"127.0.0.1:{port}")

    def call(self, method: str, request: Any, answer: Any) -> Any:
        path = f"/feast.serving.TransformationService/{method}"
        name = type(request)
        stub = self.channel.unary_unary(path, name.SerializeToString, answer.FromString)
        return stub(request, timeout=60, wait_for_ready=True)

    def transform(self, view: str, table: pa.Table | bytes, project: str = "") -> pa.Table:
        content = table if isinstance(table, bytes) else file_of(table)
        request = messages.TransformFeaturesRequest(
            on_demand_feature_view_name=view,
            project=project,
            transformation_input=messages.ValueType(arrow_value=content),
        )
        answer = self.call("TransformFeatures", request, messages.TransformFeaturesResponse)
        return pa.ipc.open_file(answer.transformation_output.arrow_value).read_all()


def file_of(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    import socket

    folder = write_repository(tmp_path_factory.mktemp("transformations"))
    with (folder / "feature_store.yaml").open("a") as config:
        config.write("transformations: {workers: 1, timeout_seconds: 5}\n")
    store = FeatureStore(repo_path=str(folder))
    raises = view("raises", "raise ValueError('no')")
    leaves = view("leaves", "import os; os._exit(7)")
    loops = view("loops", "while True: pass")
    whoami = view("whoami", "import os; return {'x': [os.getpid() for _ in inputs['val']]}")
    objects = [*DRIVERS.values(), frames, columns, raises, leaves, loops, whoami]
    store.apply(objects, skip_feature_view_validation=True)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    arguments = ["-c", str(folder), "serve_transformations", "--port", str(port)]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([sys.executable, "-m", "feast._cli", *arguments], stderr=log)
    client = Client(port)
    client.process = process  # type: ignore[attr-defined]
    yield client
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 0, (folder / "log").read_text()


def inputs(prefix: str = "") -> pa.Table:
    return pa.table(
        {f"{prefix}conv_rate": [0.5, None], "driver_stats__trips": [1, 2], "val": [1, 2]}
    ).append_column("driver_stats__city", pa.array(["a", None]))


def test_the_server_says_what_it_is(client: Client) -> None:
    info = client.call(
        "GetTransformationServiceInfo",
        messages.GetTransformationServiceInfoRequest(),
        messages.GetTransformationServiceInfoResponse,
    )
    assert info.type == messages.TRANSFORMATION_SERVICE_TYPE_PYTHON
    assert "feast-rs" in info.transformation_service_type_details


def test_who_asks_whether_it_can_compute_starts_no_process_that_stays(client: Client) -> None:
    server = client.process.pid  # type: ignore[attr-defined]

    def info(_: int) -> Any:
        asked = messages.GetTransformationServiceInfoRequest()
        return client.call(
            "GetTransformationServiceInfo", asked, messages.GetTransformationServiceInfoResponse
        )

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(info, range(16)))
    processes = [
        Path(f"/proc/{server}/task/{task}/children").read_text()
        for task in os.listdir(f"/proc/{server}/task")
    ]
    workers = " ".join(processes).split()
    assert len(workers) == 1, workers
    found = client.transform("whoami", pa.table({"val": [1]}))["whoami__x"].to_pylist()
    assert [str(pid) for pid in found] == workers


@pytest.mark.parametrize("prefix", ["", "driver_stats__"])
@pytest.mark.parametrize("name", ["frames", "columns"])
def test_features_come_back_under_their_full_names(client: Client, name: str, prefix: str) -> None:
    answer = client.transform(name, inputs(prefix))
    assert answer.to_pydict() == {f"{name}__plus": [1.5, None]}
    assert answer.schema.field(0).type == pa.float64()
    batches = pa.concat_tables([inputs(prefix)] * 3)
    assert client.transform(name, batches).num_rows == 6
    assert client.transform(name, inputs(prefix).slice(0, 0)).num_rows == 0


def test_functions_run_in_processes_of_their_own(client: Client) -> None:
    found = client.transform("whoami", pa.table({"val": [1]}))["whoami__x"].to_pylist()
    assert found != [client.process.pid] and found != [os.getpid()]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("name", "code", "words"),
    [
        (
            "raises",
            grpc.StatusCode.UNKNOWN,
            "`raises` failed in line 2 of its function: ValueError: no",
        ),
        ("leaves", grpc.StatusCode.UNKNOWN, "its function ended the process that ran it"),
        ("loops", grpc.StatusCode.DEADLINE_EXCEEDED, "longer than 5 s and was stopped"),
        ("nothing", grpc.StatusCode.INVALID_ARGUMENT, "nothing"),
        ("driver_stats", grpc.StatusCode.INVALID_ARGUMENT, "has no function to run"),
    ],
)
def test_what_goes_wrong_is_told_and_the_server_goes_on(
    client: Client, name: str, code: grpc.StatusCode, words: str
) -> None:
    with pytest.raises(grpc.RpcError) as error:
        client.transform(name, pa.table({"val": [1]}))
    assert (error.value.code(), words in error.value.details()) == (code, True), (
        error.value.details()
    )  # type: ignore[attr-defined]
    assert client.transform("columns", inputs()).num_rows == 2


def test_bytes_that_are_no_columns_are_refused_and_never_unpickled(
    client: Client, tmp_path: Path
) -> None:
    trap = tmp_path / "sprung"

    class Trap:
        def __reduce__(self) -> Any:
            return (Path.touch, (trap,))

    whole = file_of(inputs())
    hostile = [
        pickle.dumps(Trap()),
        b"",
        b"ARROW1\0\0",
        whole[:-9],
        whole[:-90] + b"\xff" * 70 + whole[-20:],
    ]
    for content in hostile:
        with pytest.raises(grpc.RpcError) as error:
            client.transform("columns", content)
        assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT, error.value  # type: ignore[attr-defined]
    assert not trap.exists()
    with pytest.raises(grpc.RpcError, match="the rows lack `val`|lack"):
        client.transform("columns", inputs().drop_columns(["val"]))
    with pytest.raises(grpc.RpcError, match="project `other` is asked for"):
        client.transform("columns", inputs(), project="other")
    assert client.transform("columns", inputs(), project="proj").num_rows == 2
