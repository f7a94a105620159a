"""Records what Feast 0.67, and then this store, say to Google's emulator of Datastore, and what it answers.

    python tests/formats/datastore/make.py EMULATOR --feast PYTHON --ours PYTHON --extras FOLDER

EMULATOR is the `host:port` of a running one; FOLDER holds `google-cloud-datastore`, which Feast's store needs
(`pip install --target`). Writes `feast.jsonl` and `ours.jsonl` beside this file: one call per line, in the order of
the answers, messages in base64.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import subprocess
import sys
import tempfile
import threading
from concurrent import futures
from pathlib import Path

import grpc

HERE = Path(__file__).parent
PEER = HERE.parents[2] / "python" / "tests" / "peer"
THINGS = [{"thing_id": number} for number in (1, 2, 3, 9)]


class Recorder(grpc.GenericRpcHandler):
    """Passes calls on, byte by byte, and keeps them."""

    def __init__(self, emulator: str) -> None:
        self.channel = grpc.insecure_channel(emulator)
        self.calls: list[dict[str, object]] = []
        self.lock = threading.Lock()

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        """One handler for every method."""
        pass_on = self.channel.unary_unary(details.method)

        def call(request: bytes, context: grpc.ServicerContext) -> bytes:
            kept = {"method": details.method.rsplit("/", 1)[1], "request": base64.b64encode(request).decode()}
            try:
                answer = pass_on(request, timeout=30)
            except grpc.RpcError as error:
                with self.lock:
                    self.calls.append(kept | {"status": error.code().value[0]})
                context.abort(error.code(), error.details())
            with self.lock:
                self.calls.append(kept | {"answer": base64.b64encode(answer).decode()})
            return answer

        return grpc.unary_unary_rpc_method_handler(call)


def repository(folder: Path, options: dict[str, object]) -> None:
    """The repository of every type, with its data."""
    configuration = (PEER / "every_type" / "feature_store.yaml").read_text()
    sqlite = "online_store:\n  type: sqlite\n  path: data/online.db\n"
    assert sqlite in configuration
    configuration = configuration.replace(sqlite, f"online_store: {json.dumps(options)}\n")
    (folder / "feature_store.yaml").write_text(configuration)
    (folder / "definitions.py").write_text((PEER / "every_type" / "definitions.py").read_text())
    sys.path.insert(0, str(PEER))
    from every_type import make_data

    make_data.write(folder)


def main() -> None:
    """Both sides, one after the other, each with entities of its own."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("emulator")
    parser.add_argument("--feast", required=True)
    parser.add_argument("--ours", required=True)
    parser.add_argument("--extras", required=True)
    arguments = parser.parse_args()
    for side, python in (("feast", arguments.feast), ("ours", arguments.ours)):
        recorder = Recorder(arguments.emulator)
        server = grpc.server(futures.ThreadPoolExecutor(64))
        server.add_generic_rpc_handlers([recorder])
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        options = {"type": "datastore", "project_id": "recorded", "namespace": side, "write_concurrency": 1}
        if side == "ours":
            options["emulator_host"] = f"127.0.0.1:{port}"
        environment = os.environ | {"DATASTORE_EMULATOR_HOST": f"127.0.0.1:{port}", "PYTHONPATH": arguments.extras}
        if side == "ours":
            environment.pop("PYTHONPATH")
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            repository(folder, options)

            def run(*command: object, folder: Path = folder, environment: dict[str, str] = environment) -> None:
                subprocess.run([str(word) for word in command], cwd=folder, env=environment, check=True)

            feast = Path(python).with_name("feast")
            run(feast, "apply")
            run(feast, "materialize", "2026-11-01T00:00:00", "2026-11-22T00:00:00")
            row = {"thing_id": 7, "an_int64": 5, "a_string": side}
            for at in ("2026-11-21T02:00:00Z", "2026-11-21T01:00:00Z"):
                rows = [row | {"event_timestamp": at, "created": at}]
                run(python, PEER / "stores.py", "push", folder, json.dumps({"source": "fresh", "rows": rows}))
            wanted = ["pushed:an_int64", "every_type:a_string"]
            run(python, PEER / "stores.py", "online", folder, json.dumps({"features": wanted, "rows": THINGS}))
            if side == "ours":
                run(feast, "teardown", "--yes")
        server.stop(None)
        lines = [json.dumps(call) for call in recorder.calls]
        (HERE / f"{side}.jsonl").write_text("\n".join(lines) + "\n")
        print(f"{side}: {len(lines)} calls")


if __name__ == "__main__":
    main()
