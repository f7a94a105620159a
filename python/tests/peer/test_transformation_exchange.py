"""The transformation service between Feast 0.67.0 and us, in both directions."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from servers import free_port, listens, server
from test_on_demand_views import CONFIGURATION, MODES

DRIVERS = [3, 1, 99, 2, 1]
ROWS = [{"driver_id": driver, "val": 10 * driver} for driver in DRIVERS]
FEATURES = [f"by_frame:f_{name}" for name in ("where", "plus", "known")]


LARGE = """
size = RequestSource(name="size", schema=[Field(name="length", dtype=Int64)])

@on_demand_feature_view(sources=[size], schema=[Field(name="text", dtype=String)], mode="pandas")
def texts(df):
    import pandas as pd
    return pd.DataFrame({"text": ["x" * length for length in df["length"]]})

if __name__ == "__main__":
    store.apply([size, texts])
"""


@contextmanager
def running(command: list[str], environment: dict[str, str], log: Path, port: int) -> Iterator[None]:
    with server([*command, "serve_transformations", "--port", str(port)], log, lambda: listens(port), env=environment):
        yield


@pytest.fixture(scope="module")
def environment() -> dict[str, str]:
    """Feast, with the gRPC library that its transformation server needs and its package does not bring."""
    extras = os.environ.get("FEAST_PEER_EXTRAS", "")
    assert extras, "FEAST_PEER_EXTRAS must name the folder that `make peer` fills beside Feast"
    return {**os.environ, "PYTHONPATH": extras}


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory, peer: str, environment: dict[str, str]) -> Path:
    """Views of every mode, and one with large values, applied and loaded by Feast."""
    folder = tmp_path_factory.mktemp("transformations")
    (folder / "feature_store.yaml").write_text(CONFIGURATION)
    (folder / "modes.py").write_text(MODES + LARGE)
    subprocess.run([peer, "modes.py"], cwd=folder, env=environment, check=True, timeout=600, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def without_python(repository: Path, peer: str, environment: dict[str, str]) -> Iterator[list[str]]:
    """Our program, which has no Python and asks Feast's transformation server."""
    binary = os.environ.get("FEAST_BINARY", "")
    assert binary, "FEAST_BINARY must name the standalone program"
    port = free_port()
    feast = [str(Path(peer).with_name("feast")), "-c", str(repository)]
    with running(feast, environment, repository / "log", port):
        config = repository / "ours.yaml"
        endpoint = f'feature_server: {{type: local, transformation_service_endpoint: "127.0.0.1:{port}"}}\n'
        config.write_text(CONFIGURATION + endpoint)
        yield [binary, "-c", str(repository), "-f", str(config), "get-online-features", "--output", "json"]


def asked(command: list[str], entities: dict[str, list[int]], features: list[str]) -> dict[str, Any]:
    """What our program answers."""
    for name, values in entities.items():
        command = [*command, "-e", f"{name}={','.join(map(str, values))}"]
    command = [*command, *(part for feature in features for part in ("-f", feature))]
    environment = {"PATH": "/nowhere", "HOME": "/nowhere"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


ASK = """
import json, sys, warnings
warnings.simplefilter("ignore")
from feast import FeatureStore
store = FeatureStore(repo_path=".")
answer = store.get_online_features(features=json.loads(sys.argv[1]), entity_rows=json.loads(sys.argv[2]))
print("ANSWER" + json.dumps(answer.to_dict()))
"""


def answered(python: str, folder: Path, environment: dict[str, str]) -> dict[str, Any]:
    command = [python, "-c", ASK, json.dumps(FEATURES), json.dumps(ROWS)]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=True, timeout=600
    )
    return json.loads(done.stdout.rpartition("ANSWER")[2])


def test_our_program_without_python_asks_feasts_server(
    without_python: list[str], repository: Path, peer: str, environment: dict[str, str]
) -> None:
    entities = {"driver_id": DRIVERS, "val": [10 * driver for driver in DRIVERS]}
    ours = asked(without_python, entities, FEATURES)
    theirs = answered(peer, repository, environment)
    assert {name: ours[name] for name in theirs} == theirs


def test_an_answer_of_feasts_server_may_be_larger_than_what_grpc_takes_by_default(without_python: list[str]) -> None:
    # Twelve MiB in one answer.
    lengths = [4 << 20, 1, 8 << 20]
    answer = asked(without_python, {"length": lengths}, ["texts:text"])
    assert [len(text) for text in answer["text"]] == lengths


TRANSFORM = """
import sys, warnings
warnings.simplefilter("ignore")
import grpc, json
import pyarrow as pa
from feast.protos.feast.serving import TransformationService_pb2 as messages
from feast.protos.feast.serving.TransformationService_pb2_grpc import TransformationServiceStub
table = pa.table({
    "stats__rate": pa.array([0.5, None], pa.float32()),
    "stats__trips": pa.array([1, None], pa.int64()),
    "stats__city": pa.array(["a", None]),
    "stats__at": pa.array([None, None], pa.timestamp("us", "UTC")),
    "stats__tags": pa.array([["x"], None], pa.list_(pa.string())),
    "val": pa.array([1, 2], pa.int64()),
})
sink = pa.BufferOutputStream()
with pa.ipc.new_file(sink, table.schema) as writer:
    writer.write_table(table)
stub = TransformationServiceStub(grpc.insecure_channel(sys.argv[1]))
request = messages.TransformFeaturesRequest(
    on_demand_feature_view_name="by_frame",
    transformation_input=messages.ValueType(arrow_value=sink.getvalue().to_pybytes()),
)
answer = stub.TransformFeatures(request, wait_for_ready=True, timeout=60)
found = pa.ipc.open_file(answer.transformation_output.arrow_value).read_all()
kind = stub.GetTransformationServiceInfo(messages.GetTransformationServiceInfoRequest()).type
wanted = [name for name in found.column_names if "f_" in name]
print("ANSWER" + json.dumps([kind, found.select(wanted).to_pydict()]))
"""


def test_feasts_client_gets_from_our_server_what_it_gets_from_feasts(
    repository: Path, peer: str, environment: dict[str, str], tmp_path: Path
) -> None:
    answers = []
    ours = [sys.executable, "-m", "feast._cli", "-c", str(repository)]
    theirs = [str(Path(peer).with_name("feast")), "-c", str(repository)]
    for number, (command, variables) in enumerate([(ours, dict(os.environ)), (theirs, environment)]):
        port = free_port()
        with running(command, variables, tmp_path / f"log{number}", port):
            done = subprocess.run(
                [peer, "-c", TRANSFORM, f"127.0.0.1:{port}"],
                cwd=tmp_path,
                env=environment,
                capture_output=True,
                text=True,
                check=False,
                timeout=600,
            )
            assert done.returncode == 0, done.stderr
            answers.append(json.loads(done.stdout.rpartition("ANSWER")[2]))
    assert answers[0] == answers[1]
    assert list(answers[0][1]) == ["by_frame__f_plus", "by_frame__f_known", "by_frame__f_where"]
