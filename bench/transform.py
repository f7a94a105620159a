"""Measures on-demand feature views beside Feast in the same run: the template's view over HTTP, and over rows of history.

    make bench-transform
    python bench/transform.py --ours ENVIRONMENT --peer ENVIRONMENT [--requests N] [--rows N] [--results DIRECTORY]

What counts is CPU time, of the server and all its processes, because a busy machine distorts it least. The function itself
is measured alone, in the same Python, so that what remains is the feature store's. Nothing here fails because something is
slow; the answers of both sides are compared, and a difference does fail.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

NOON = "2026-11-20T12:00:00"
DATA = f'''
import sys
import numpy as np, pandas as pd
drivers = 1000
noon = pd.Timestamp("{NOON}", tz="UTC")
chance = np.random.default_rng(1)
pd.DataFrame({{
    "driver_id": np.arange(drivers),
    "event_timestamp": [noon - pd.Timedelta(hours=1)] * drivers,
    "created": [noon] * drivers,
    "conv_rate": chance.random(drivers, dtype="float32"),
    "acc_rate": chance.random(drivers, dtype="float32"),
    "avg_daily_trips": chance.integers(0, 1000, drivers),
}}).to_parquet("data/driver_stats.parquet")
rows = int(sys.argv[1])
pd.DataFrame({{
    "driver_id": chance.integers(0, drivers, rows),
    "event_timestamp": [noon] * rows,
    "val_to_add": chance.integers(0, 1000, rows),
    "val_to_add_2": chance.integers(0, 1000, rows),
}}).to_parquet("data/entities.parquet")
'''
HISTORY = """
import resource, sys
import pandas as pd
from feast import FeatureStore
store = FeatureStore(repo_path=".")
entities = pd.read_parquet("data/entities.parquet")
def used():
    own, children = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime
before = used()
features = ["transformed_conv_rate:conv_rate_plus_val1", "transformed_conv_rate:conv_rate_plus_val2"]
table = store.get_historical_features(entity_df=entities, features=features).to_arrow()
after = used()
total = sum(value.as_py() for value in [__import__("pyarrow.compute").compute.sum(table["conv_rate_plus_val1"])])
print("ANSWER", after - before, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, table.num_rows, round(total, 3))
"""
FUNCTION = """
import resource, sys, time
sys.path.insert(0, ".")
from feature_definitions import transformed_conv_rate as view
function = view.feature_transformation.udf
rows, calls = int(sys.argv[1]), int(sys.argv[2])
inputs = {"conv_rate": [0.5] * rows, "val_to_add": [1] * rows, "val_to_add_2": [2] * rows}
before = time.process_time()
for _ in range(calls):
    function(inputs)
print("ANSWER", (time.process_time() - before) / calls)
"""


class Side:
    """One of the two products, with a repository of its own."""

    def __init__(self, name: str, environment: Path, folder: Path) -> None:
        self.name, self.folder = name, folder
        self.python, self.feast = environment / "bin/python", environment / "bin/feast"

    def run(self, *command: str) -> str:
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, check=False, env=quiet())
        if done.returncode != 0:
            sys.exit(f"error: {self.name}: `{' '.join(command)[:200]}` ended with {done.returncode}:\n{done.stderr}")
        return done.stdout.rpartition("ANSWER")[2]

    def prepare(self, template: Path, rows: int) -> None:
        """The template's repository with known data, applied and loaded."""
        (self.folder / "data").mkdir(parents=True)
        for name in ("feature_definitions.py", "feature_store.yaml"):
            text = (template / name).read_text().replace("__PROJECT__", "bench")
            (self.folder / name).write_text(text)
        self.run(str(self.python), "-c", DATA, str(rows))
        self.run(str(self.feast), "apply")
        self.run(str(self.feast), "materialize", "2026-11-19T00:00:00", NOON)

    def function(self, rows: int, calls: int) -> float:
        """CPU seconds of one call of the function alone."""
        return float(self.run(str(self.python), "-c", FUNCTION, str(rows), str(calls)))

    def served(self, rows: int, requests: int) -> tuple[float, object]:
        """CPU seconds per request over HTTP, and one answer."""
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        with (self.folder / "server.log").open("wb") as log:
            process = subprocess.Popen(
                [str(self.feast), "serve", "--port", str(port), "--no-access-log"],
                cwd=self.folder,
                stdout=log,
                stderr=log,
                env=quiet(),
                start_new_session=True,
            )
        try:
            deadline = time.monotonic() + 120
            while True:
                try:
                    answer = ask(http.client.HTTPConnection("127.0.0.1", port, timeout=60), rows)
                    break
                except OSError:
                    if time.monotonic() > deadline or process.poll() is not None:
                        sys.exit(f"error: {self.name}: the server does not start, see {self.folder}/server.log")
                    time.sleep(0.1)
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            for _ in range(max(20, requests // 10)):
                ask(connection, rows)
            before = cpu_of_session(process.pid)
            for _ in range(requests):
                ask(connection, rows)
            return (cpu_of_session(process.pid) - before) / requests, answer
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def history(self) -> tuple[float, float, str]:
        """CPU seconds and MiB for all entity rows, and what came out."""
        seconds, memory, *outcome = self.run(str(self.python), "-c", HISTORY).split()
        return float(seconds), float(memory), " ".join(outcome)


def quiet() -> dict[str, str]:
    return {**os.environ, "FEAST_USAGE": "False", "PYTHONWARNINGS": "ignore"}


def ask(connection: http.client.HTTPConnection, rows: int) -> object:
    """The values of one request."""
    entities = {
        "driver_id": list(range(rows)),
        "val_to_add": list(range(rows)),
        "val_to_add_2": list(range(rows)),
    }
    names = ["conv_rate_plus_val1", "conv_rate_plus_val2"]
    body = {"features": [f"transformed_conv_rate:{name}" for name in names], "entities": entities}
    connection.request("POST", "/get-online-features", json.dumps(body), {"content-type": "application/json"})
    response = connection.getresponse()
    answer = json.loads(response.read())
    if response.status != 200:
        sys.exit(f"error: the server answered {response.status}: {answer}")
    found = dict(zip(answer["metadata"]["feature_names"], (one["values"] for one in answer["results"])))
    return {name: found[name] for name in names}


def cpu_of_session(leader: int) -> float:
    """CPU seconds of all processes that a server has started, itself included."""
    ticks = 0
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == leader:
            ticks += sum(int(fields[at]) for at in (11, 12, 13, 14))
    return ticks / os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Measures, and prints one table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ours", type=Path, required=True)
    parser.add_argument("--peer", type=Path, required=True)
    parser.add_argument("--requests", type=int, default=500)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--results", type=Path)
    given = parser.parse_args()
    template = Path(__file__).resolve().parents[1] / "crates/feast-cli/templates/local/feature_repo"
    results: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as folder:
        sides = [Side("feast-rs", given.ours, Path(folder) / "ours"), Side("Feast", given.peer, Path(folder) / "peer")]
        for side in sides:
            side.prepare(template, given.rows)
        for rows in (1, 100):
            answers = []
            for side in sides:
                function = side.function(rows, 20_000 // rows)
                request, answer = side.served(rows, given.requests)
                answers.append(answer)
                results.append(
                    {
                        "work": f"{rows} rows over HTTP",
                        "side": side.name,
                        "cpu_ms": request * 1000,
                        "function_ms": function * 1000,
                    }
                )
            if answers[0] != answers[1]:
                sys.exit(f"error: the answers differ for {rows} rows: {answers}")
        outcomes = []
        for side in sides:
            seconds, memory, outcome = side.history()
            outcomes.append(outcome)
            function = side.function(given.rows, 1)
            results.append(
                {
                    "work": f"{given.rows} rows of history",
                    "side": side.name,
                    "cpu_ms": seconds * 1000,
                    "function_ms": function * 1000,
                    "memory_mib": memory,
                }
            )
        if outcomes[0] != outcomes[1]:
            sys.exit(f"error: the training data differ: {outcomes}")
    print(
        f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; CPU milliseconds, the function alone in the last column but one\n"
    )
    print("| work | side | CPU ms | of it the function | most memory MiB |")
    print("|---|---|---:|---:|---:|")
    for one in results:
        memory = f"{one['memory_mib']:.0f}" if "memory_mib" in one else ""
        print(f"| {one['work']} | {one['side']} | {one['cpu_ms']:.3f} | {one['function_ms']:.3f} | {memory} |")
    if given.results:
        given.results.mkdir(parents=True, exist_ok=True)
        (given.results / "transform.json").write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
