"""Measures on-demand feature views and pushes beside Feast in the same run: the template's view over HTTP and over rows
of history, and pushes of 100 rows to both stores.

    make bench-transform
    python bench/transform.py --ours ENVIRONMENT --peer ENVIRONMENT [--requests N] [--rows N] [--pushes N]
        [--history N] [--results DIRECTORY]

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
    # Each row at a time of its own: of rows with the same key and time, Feast drops all but one.
    "event_timestamp": noon + pd.to_timedelta(np.arange(rows), unit="ms"),
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
PUSH = """
import resource, sys, time
import pandas as pd
from feast import FeatureStore
from feast.data_source import PushMode
store = FeatureStore(repo_path=".")
pushes, warm, history = int(sys.argv[1]), 3, int(sys.argv[2])
# So many rows were pushed before; they are as old as they say, so the online store keeps what it has.
old = pd.read_parquet("data/driver_stats.parquet")
repeated = pd.concat([old] * -(-history // len(old)), ignore_index=True).head(history)
repeated["event_timestamp"] -= pd.to_timedelta(range(1, len(repeated) + 1), unit="ms")
repeated.to_parquet("data/driver_stats.parquet")
noon = pd.Timestamp.now(tz="UTC").floor("s")
def frame(number):
    return pd.DataFrame({
        "driver_id": range(100),
        "event_timestamp": [noon + pd.Timedelta(seconds=number)] * 100,
        "created": [noon] * 100,
        "conv_rate": pd.array([number / 1000] * 100, dtype="float32"),
        "acc_rate": pd.array([0.5] * 100, dtype="float32"),
        "avg_daily_trips": [number] * 100,
    })
def used():
    own, children = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime
# The rows are the caller's: making them is not part of a push.
frames = [frame(number) for number in range(pushes + warm)]
for number in range(pushes + warm):
    if number == warm:
        before, started = used(), time.perf_counter()
    store.push("driver_stats_push_source", frames[number], to=PushMode.ONLINE_AND_OFFLINE)
seconds, wall = used() - before, time.perf_counter() - started
answer = store.get_online_features(features=["driver_hourly_stats_fresh:avg_daily_trips"], entity_rows=[{"driver_id": 7}])
history = len(pd.read_parquet("data/driver_stats.parquet"))
print("ANSWER", seconds / pushes, wall / pushes, answer.to_dict()["avg_daily_trips"][0], history)
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


def pushes(sides: list[Side], count: int, history: int) -> list[dict[str, object]]:
    """CPU of a push of 100 rows to both stores, per side, onto so many rows of history; what the stores hold afterwards has
    to agree."""
    results, outcomes = [], []
    for side in sides:
        seconds, wall, *outcome = side.run(str(side.python), "-c", PUSH, str(count), str(history)).split()
        outcomes.append(outcome)
        results.append(
            {
                "work": f"push of 100 rows, history of {history}",
                "side": side.name,
                "cpu_ms": float(seconds) * 1000,
                "wall_ms": float(wall) * 1000,
            }
        )
    if outcomes[0] != outcomes[1]:
        sys.exit(f"error: the stores differ after the pushes: {outcomes}")
    return results


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
    parser.add_argument("--pushes", type=int, default=100)
    parser.add_argument("--history", type=int, default=1_000_000)
    parser.add_argument("--results", type=Path)
    given = parser.parse_args()
    load = os.getloadavg()[0]
    template = Path(__file__).resolve().parents[1] / "crates/feast-cli/templates/local/feature_repo"
    results: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as folder:
        environments = [("feast-rs", given.ours.absolute(), "ours"), ("Feast", given.peer.absolute(), "peer")]
        sides = [Side(name, environment, Path(folder) / part) for name, environment, part in environments]
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
        for history in (1_000, given.history):
            results += pushes(sides, given.pushes, history)
    before, after = load, os.getloadavg()[0]
    print(f"{os.cpu_count()} cores, load {before:.1f} at the start and {after:.1f} at the end; CPU milliseconds\n")
    print("| work | side | CPU ms | of it the function | the rest | Feast / ours | most memory MiB |")
    print("|---|---|---:|---:|---:|---:|---:|")
    cpu = {(one["work"], one["side"]): one["cpu_ms"] for one in results}
    for one in results:
        memory = f"{one['memory_mib']:.0f}" if "memory_mib" in one else ""
        split = ["", ""]
        if "function_ms" in one:
            share = 100 * one["function_ms"] / max(one["cpu_ms"], one["function_ms"])
            split = [f"{one['function_ms']:.3f} ({share:.0f} %)", f"{one['cpu_ms'] - one['function_ms']:.3f}"]
        times = ""
        if one["side"] == sides[0].name:
            times = f"{cpu[one['work'], sides[1].name] / max(one['cpu_ms'], 1e-6):.1f}"
        print(f"| {one['work']} | {one['side']} | {one['cpu_ms']:.3f} | {split[0]} | {split[1]} | {times} | {memory} |")
    if given.results:
        given.results.mkdir(parents=True, exist_ok=True)
        (given.results / "transform.json").write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
