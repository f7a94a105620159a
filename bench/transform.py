"""Measures on-demand feature views and pushes beside Feast in the same run: the template's view over HTTP, as the function
of lists that it is here and as the function of frames that it is in Feast's template, one request at a time and from many
connections at once, where requests that wait for the same function go to its process together; over rows of history; and
pushes of 100 rows to both stores, in process and over HTTP.

    make bench-transform
    python bench/transform.py --ours ENVIRONMENT --peer ENVIRONMENT [--requests N] [--connections N] [--rows N]
        [--pushes N] [--history N] [--part requests|history|pushes] [--results DIRECTORY]

What counts is CPU time, of the server and all its processes, because a busy machine distorts it least. The template's
functions are plain arithmetic, which is computed here without calling them; views of the same functions that count their
own time have to be called. Of those, the frames that pandas makes of their input and that Arrow takes from their result are
measured apart, in the same Python: what remains is the feature store's. Of a server with workers, it is told which part of
that is the server's, and how much of it the same request needs without the view. Of functions whose rows are computed
from themselves, as their tag says, the rows of several requests become one frame; Feast does not know the tag. Nothing here
fails because something is slow; the answers of both sides are compared, and a difference does fail.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from functools import partial
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
features = ["by_lists:conv_rate_plus_val1", "by_lists:conv_rate_plus_val2"]
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
# The template's view as a function of lists, which it is here, and of frames, which it is in Feast's template: plain
# arithmetic, which is computed here without calling it. And the same as functions that count their own time, in a file that
# whatever process calls them writes to: those have to be called.
LISTS = """


@on_demand_feature_view(
    sources=[driver_stats_fv, input_request],
    schema=[Field(name="conv_rate_plus_val1", dtype=Float64), Field(name="conv_rate_plus_val2", dtype=Float64)],
    mode="python",
)
def NAME(inputs):
    START
    def plus(values):
        return [None if rate is None else rate + value for rate, value in zip(inputs["conv_rate"], values)]

    result = {
        "conv_rate_plus_val1": plus(inputs["val_to_add"]),
        "conv_rate_plus_val2": plus(inputs["val_to_add_2"]),
    }
    COUNT
    return result
"""
FRAMES_OF = """


@on_demand_feature_view(
    sources=[driver_stats_fv, input_request],
    schema=[Field(name="conv_rate_plus_val1", dtype=Float64), Field(name="conv_rate_plus_val2", dtype=Float64)],
    mode="pandas",
    tags=TAGS,
)
def NAME(inputs):
    import pandas as pd

    START
    result = pd.DataFrame()
    result["conv_rate_plus_val1"] = inputs["conv_rate"] + inputs["val_to_add"]
    result["conv_rate_plus_val2"] = inputs["conv_rate"] + inputs["val_to_add_2"]
    COUNT
    return result
"""
START = """import time

    started = time.thread_time_ns()"""
COUNT = """spent = time.thread_time_ns() - started
    import os
    import sys

    if not hasattr(sys, "spent"):
        sys.spent, sys.spent_in = 0, os.open(f"data/spent-{os.getpid()}", os.O_CREAT | os.O_WRONLY)
    sys.spent += spent
    os.pwrite(sys.spent_in, sys.spent.to_bytes(8, "little"), 0)
"""


def view(text: str, name: str, counts: bool, tags: dict[str, str] | None = None) -> str:
    """The definition of a view."""
    start, count = (START, COUNT) if counts else ("", "")
    text = text.replace("NAME", name).replace("TAGS", repr(tags or {}))
    return text.replace("    START\n", f"    {start}\n").replace("    COUNT\n", f"    {count}\n")


VIEWS = "".join(
    [
        view(LISTS, "by_lists", counts=False),
        view(FRAMES_OF, "by_frame", counts=False),
        view(LISTS, "by_lists_called", counts=True),
        view(FRAMES_OF, "by_frame_called", counts=True),
        view(FRAMES_OF, "by_row_called", counts=True, tags={"feast.row_wise": "true"}),
    ]
)
FRAMES = """
import sys, time
import pyarrow
rows, calls = int(sys.argv[1]), 1000
columns = {"driver_hourly_stats__conv_rate": [0.5], "conv_rate": [0.5], "val_to_add": [1], "val_to_add_2": [2]}
batch = pyarrow.record_batch({name: pyarrow.array(values * rows) for name, values in columns.items()})
given = batch.to_pandas()
result = given[["conv_rate", "val_to_add"]]
try:
    from feast.transformation._functions import columns_of_frame, frame_of_numbers
except ImportError:
    def make():
        batch.to_pandas(use_threads=False)
    def take():
        for name in result:
            pyarrow.array(result[name], from_pandas=True)
else:
    floats, wholes = (bytearray(given[given.columns[at:at + 2]].to_numpy().T.tobytes()) for at in (0, 2))
    def make():
        frame_of_numbers(tuple(columns), "ffii", rows, floats, wholes)
    def take():
        columns_of_frame(result, given, "view", [(name, False) for name in result])
for call in range(2 * calls):
    if call == calls:
        before = time.process_time()
    make()
    take()
print("ANSWER", (time.process_time() - before) / calls)
"""
# What is asked for, by view: rows of a request, and connections that ask at the same time.
SHAPES = [(rows, connections) for rows in (1, 100) for connections in (1, 0)]
REQUESTS = {
    "by_lists": ("a function of lists", SHAPES),
    "by_frame": ("a function of frames", SHAPES),
    "by_lists_called": ("lists, called", SHAPES),
    "by_frame_called": ("frames, called", SHAPES),
    "by_row_called": ("frames of rows by themselves, called", [(1, 0), (100, 0)]),
}


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
            if name.endswith(".py"):
                text += VIEWS
            (self.folder / name).write_text(text)
        self.run(str(self.python), "-c", DATA, str(rows))
        self.run(str(self.feast), "apply")
        self.run(str(self.feast), "materialize", "2026-11-19T00:00:00", NOON)

    def frames(self, rows: int) -> float:
        """CPU seconds of what pandas and Arrow make around one call of a function of frames."""
        return float(self.run(str(self.python), "-c", FRAMES, str(rows)))

    def spent_in_functions(self) -> float:
        """CPU seconds that the functions of both kinds have counted so far."""
        files = (self.folder / "data").glob("spent-*")
        return sum(int.from_bytes(file.read_bytes()[:8], "little") for file in files) / 1e9

    @contextlib.contextmanager
    def serving(self) -> Iterator[tuple[int, http.client.HTTPConnection]]:
        """A server, its process and a connection to it."""
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        with (self.folder / "server.log").open("wb") as log:
            process = subprocess.Popen(
                # Feast's server starts a worker anew after a thousand requests, unless told otherwise.
                [str(self.feast), "serve", "--port", str(port), "--no-access-log", "--max-requests", "0"],
                cwd=self.folder,
                stdout=log,
                stderr=log,
                env=quiet(),
                start_new_session=True,
            )
        try:
            deadline = time.monotonic() + 120
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            while True:
                try:
                    connection.request("GET", "/health")
                    connection.getresponse().read()
                    break
                except OSError:
                    connection.close()
                    if time.monotonic() > deadline or process.poll() is not None:
                        sys.exit(f"error: {self.name}: the server does not start, see {self.folder}/server.log")
                    time.sleep(0.1)
            yield process.pid, connection
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def served(self, requests: int, connections: int) -> dict[tuple[str, int, int], tuple[dict[str, float], object]]:
        """CPU seconds per request over HTTP, and one answer, for each view, number of rows and of connections."""
        measured = {}
        without: dict[tuple[int, int], float] = {}
        with self.serving() as (process, first):
            for view, (_, shapes) in REQUESTS.items():
                for rows, several in shapes:
                    # New ones, because Feast's server closes those that were idle.
                    asking = [
                        http.client.HTTPConnection(first.host, first.port, timeout=60)
                        for _ in range(several or connections)
                    ]
                    if (rows, several) not in without:
                        # What the same server needs for the stored feature that the view is computed from.
                        spent = per_request(process, asking, requests, partial(ask, view=None, rows=rows))
                        without[rows, several] = spent["server"] + spent["workers"]
                    request = partial(ask, view=view, rows=rows)
                    together(asking, max(20, requests // 10), request)
                    before = self.spent_in_functions()
                    spent = per_request(process, asking, requests, request, warm=0)
                    spent["function"] = (self.spent_in_functions() - before) / requests
                    spent["without"] = without[rows, several]
                    measured[view, rows, several] = spent, request(asking[0])
                    for connection in asking:
                        connection.close()
        return measured

    def pushed(self, requests: int, connections: int) -> float:
        """CPU seconds per push of 100 rows to both stores over HTTP, over so many connections."""
        noon = datetime.fromisoformat(f"{NOON}+00:00")
        at = itertools.count(1)

        def body() -> dict[str, object]:
            time = (noon + timedelta(seconds=next(at))).isoformat()
            frame = {
                "driver_id": list(range(100)),
                "event_timestamp": [time] * 100,
                "created": [time] * 100,
                "conv_rate": [0.25] * 100,
                "acc_rate": [0.5] * 100,
                "avg_daily_trips": list(range(100)),
            }
            return {"push_source_name": "driver_stats_push_source", "df": frame, "to": "online_and_offline"}

        with self.serving() as (process, first):
            pushing = [http.client.HTTPConnection(first.host, first.port, timeout=60) for _ in range(connections)]
            spent = per_request(process, pushing, requests, lambda asking: post(asking, "/push", body()))
            return spent["server"] + spent["workers"]

    def history(self) -> tuple[float, float, str]:
        """CPU seconds and MiB for all entity rows, and what came out."""
        seconds, memory, *outcome = self.run(str(self.python), "-c", HISTORY).split()
        return float(seconds), float(memory), " ".join(outcome)


def requests_of(sides: list[Side], requests: int, connections: int) -> list[dict[str, object]]:
    """CPU of a request for a view, per side, and where it goes; the answers have to agree."""
    results = []
    served = [side.served(requests, connections) for side in sides]
    for view, (kind, shapes) in REQUESTS.items():
        for rows, several in shapes:
            answers = []
            for side, measured in zip(sides, served):
                spent, answer = measured[view, rows, several]
                answers.append(answer)
                counts = view.endswith("called")
                split = {part: spent[part] for part in ("without", "wall")}
                if counts:
                    split["function"] = spent["function"]
                if counts and not view.startswith("by_row"):
                    split["frames"] = side.frames(rows) if view.startswith("by_frame") else 0.0
                if side is sides[0]:
                    split["worker"] = spent["workers"] - split.get("function", 0.0) - split.get("frames", 0.0)
                    split["server"] = spent["server"]
                results.append(
                    {
                        "work": f"{rows} rows over HTTP, {several or connections} at once, {kind}",
                        "side": side.name,
                        "cpu_ms": (spent["server"] + spent["workers"]) * 1000,
                        **{f"{part}_ms": seconds * 1000 for part, seconds in split.items()},
                    }
                )
            if any(answer != answers[0] for answer in answers):
                sys.exit(f"error: the answers of {view} differ for {rows} rows: {answers}")
    return results


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


def post(connection: http.client.HTTPConnection, path: str, body: dict[str, object]) -> object:
    """The answer to one request."""
    for attempt in range(2):
        try:
            connection.request("POST", path, json.dumps(body), {"content-type": "application/json"})
            response = connection.getresponse()
            break
        except (http.client.RemoteDisconnected, BrokenPipeError):
            # Feast's server closes connections that were idle.
            connection.close()
            if attempt:
                raise
    answer = json.loads(response.read() or b"null")
    if response.status != 200:
        sys.exit(f"error: the server answered {response.status}: {answer}")
    return answer


def ask(connection: http.client.HTTPConnection, view: str | None, rows: int) -> object:
    """The values of one request, of a view or of the stored feature that it is computed from."""
    entities = {"driver_id": list(range(rows))}
    names = ["conv_rate"]
    if view:
        entities |= {"val_to_add": list(range(rows)), "val_to_add_2": list(range(rows))}
        names = ["conv_rate_plus_val1", "conv_rate_plus_val2"]
    features = [f"{view or 'driver_hourly_stats'}:{name}" for name in names]
    answer = post(connection, "/get-online-features", {"features": features, "entities": entities})
    found = dict(zip(answer["metadata"]["feature_names"], (one["values"] for one in answer["results"])))
    return {name: found[name] for name in names}


def together(
    connections: list[http.client.HTTPConnection],
    requests: int,
    request: Callable[[http.client.HTTPConnection], object],
) -> None:
    """Sends so many requests, over all connections at once."""
    if len(connections) == 1:
        for _ in range(requests):
            request(connections[0])
        return
    numbers = itertools.count()

    def client(connection: http.client.HTTPConnection) -> None:
        while next(numbers) < requests:
            request(connection)

    with ThreadPoolExecutor(len(connections)) as threads:
        for done in [threads.submit(client, connection) for connection in connections]:
            done.result()


def per_request(
    leader: int,
    connections: list[http.client.HTTPConnection],
    requests: int,
    request: Callable[[http.client.HTTPConnection], object],
    warm: int | None = None,
) -> dict[str, float]:
    """CPU seconds per request, of the server and of the processes that it has started, and seconds until all were done."""
    together(connections, max(20, requests // 10) if warm is None else warm, request)
    before, started = cpu_of_session(leader), time.perf_counter()
    together(connections, requests, request)
    wall = time.perf_counter() - started
    spent = {part: (spent - before[part]) / requests for part, spent in cpu_of_session(leader).items()}
    return spent | {"wall": wall / requests}


def cpu_of_session(leader: int) -> dict[str, float]:
    """CPU seconds of a server, and of all processes that it has started."""
    spent = {"server": 0.0, "workers": 0.0}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            session = int((entry / "stat").read_text().rpartition(")")[2].split()[3])
            if session != leader:
                continue
            # The clock of a process counts threads that have ended, too; its number is made as in Linux' `posix-timers.h`.
            seconds = time.clock_gettime((~int(entry.name) << 3) | 2)
            spent["server" if int(entry.name) == leader else "workers"] += seconds
        except OSError:
            continue
    return spent


def main() -> None:
    """Measures, and prints one table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ours", type=Path, required=True)
    parser.add_argument("--peer", type=Path, required=True)
    parser.add_argument("--requests", type=int, default=500)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--part", choices=["requests", "history", "pushes"], action="append")
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
        parts = given.part or ["requests", "history", "pushes"]
        if "requests" in parts:
            results += requests_of(sides, given.requests, given.connections)
        outcomes = []
        for side in sides if "history" in parts else []:
            seconds, memory, outcome = side.history()
            outcomes.append(outcome)
            results.append(
                {
                    "work": f"{given.rows} rows of history",
                    "side": side.name,
                    "cpu_ms": seconds * 1000,
                    "memory_mib": memory,
                }
            )
        if any(outcome != outcomes[0] for outcome in outcomes):
            sys.exit(f"error: the training data differ: {outcomes}")
        for connections in (1, given.connections) if "pushes" in parts else []:
            for side in sides:
                # Feast's server fails on pushes at the same time: it reads the file while it writes it.
                several = connections if side is sides[0] else 1
                spent = side.pushed(given.pushes * min(several, 4), several)
                work = f"push of 100 rows over HTTP, {connections} at once"
                results.append({"work": work, "side": side.name, "cpu_ms": spent * 1000})
        for history in (1_000, given.history) if "pushes" in parts else []:
            results += pushes(sides, given.pushes, history)
    print(f"{os.cpu_count()} cores, load {load:.1f} at the start and {os.getloadavg()[0]:.1f} at the end")
    print(
        "CPU milliseconds; `function` is the user's, `frames` are what pandas and Arrow make around it; `worker` is the rest"
    )
    print(
        "of its process; `without` is what `server` needs for the stored feature alone; `wall` is no CPU: time per request\n"
    )
    parts = ["function", "frames", "worker", "server", "without", "wall"]
    print(f"| work | side | CPU | {' | '.join(parts)} | Feast / ours | most memory MiB |")
    print(f"|---|---|---:|{'---:|' * len(parts)}---:|---:|")
    cpu = {(one["work"], one["side"]): one["cpu_ms"] for one in results}
    for one in results:
        memory = f"{one['memory_mib']:.0f}" if "memory_mib" in one else ""
        split = [f"{one[f'{part}_ms']:.3f}" if f"{part}_ms" in one else "" for part in parts]
        times = ""
        if one["side"] == sides[0].name:
            times = f"{cpu[one['work'], sides[1].name] / max(one['cpu_ms'], 1e-6):.1f}"
        print(f"| {one['work']} | {one['side']} | {one['cpu_ms']:.3f} | {' | '.join(split)} | {times} | {memory} |")
    if given.results:
        given.results.mkdir(parents=True, exist_ok=True)
        (given.results / "transform.json").write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
