"""Online features over HTTP: this server and Feast's in one run, on the same repository, store, requests and client.

    make bench-online
    python bench/online/run.py --binary FILE --constant FILE --peer ENVIRONMENT [--store sqlite --store redis]

Feast itself applies and materializes the repository; both servers read what it wrote. The client is wrk. What bounds
every server from above is measured too: the HTTP stack of this server with a constant body of the same size, and, for
Redis, HMGET of as many fields pipelined by Redis' own C client. CPU time is what a busy machine distorts least.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import platform
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
KEYS, FEATURES = 5000, 10
#        entities, views
CASES = {
    "1 x 10, 1 view": (1, 1),
    "1 x 50, 5 views": (1, 5),
    "100 x 50, 5 views": (100, 5),
    "500 x 250, 25 views": (500, 25),
}
TICK = os.sysconf("SC_CLK_TCK")


def say(text: str) -> None:
    """Tells how far the run is."""
    print(f"    {text}", file=sys.stderr, flush=True)


def run(command: list[object], **options: object) -> str:
    """Runs a command to its end and returns what it printed."""
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False, **options)
    if done.returncode != 0:
        told = f"{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
        sys.exit(f"error: `{' '.join(str(word) for word in command)}` failed:\n{told}")
    return done.stdout


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def tree(pid: int) -> list[int]:
    """A process and all below it."""
    found = [pid]
    for process in found:
        with contextlib.suppress(OSError):
            for task in Path(f"/proc/{process}/task").iterdir():
                found += [int(child) for child in (task / "children").read_text().split()]
    return found


def cpu_seconds(pid: int) -> float:
    """User and system time of a process, all below it, and its children that ended."""
    ticks = 0
    for process in tree(pid):
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
            ticks += sum(int(field) for field in fields[11:15])
    return ticks / TICK


def memory_mib(pid: int) -> float:
    """Memory of a process and all below it; what they share counts once."""
    kib = 0
    for process in tree(pid):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    kib += int(line.split()[1])
    return kib / 1024


@dataclass
class Server:
    """A server of one side."""

    name: str
    process: subprocess.Popen
    url: str

    def post(self, body: str) -> dict:
        """The answer to one request."""
        request = urllib.request.Request(
            self.url + "/get-online-features", body.encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)


@contextlib.contextmanager
def serving(name: str, command: list[object], port: int, path: str = "/health") -> Iterator[Server]:
    """Runs a server for as long as the block lasts."""
    environment = {**os.environ, "FEAST_USAGE": "False", "PYTHONWARNINGS": "ignore"}
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [str(word) for word in command], stdout=log, stderr=log, env=environment, start_new_session=True
        )
        url = f"http://127.0.0.1:{port}"
        try:
            for _ in range(600):
                if process.poll() is not None:
                    break
                with contextlib.suppress(OSError, urllib.error.URLError):
                    urllib.request.urlopen(url + path, timeout=5).close()
                    yield Server(name, process, url)
                    return
                time.sleep(0.1)
            log.seek(0)
            sys.exit(f"error: the server `{name}` did not start:\n{log.read().decode(errors='replace')[-2000:]}")
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


@contextlib.contextmanager
def redis(folder: Path) -> Iterator[tuple[int, int]]:
    """A Redis of its own: port and process."""
    port = free_port()
    process = subprocess.Popen(
        ["redis-server", "--port", str(port), "--save", "", "--dir", str(folder)], stdout=subprocess.DEVNULL
    )
    try:
        for _ in range(100):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.1)
        yield port, process.pid
    finally:
        process.terminate()
        process.wait()


def bodies(case: str, folder: Path) -> Path:
    """Requests with random keys, one per line, the same for everybody."""
    entities, views = CASES[case]
    features = [f"view_{view:02}:f{view:02}_{at}" for view in range(views) for at in range(FEATURES)]
    dice = random.Random(7)
    path = folder / f"{entities}x{views}.jsonl"
    with path.open("w") as file:
        for _ in range(200 if entities < 500 else 40):
            keys = dice.sample(range(KEYS), entities)
            file.write(json.dumps({"features": features, "entities": {"driver_id": keys}}) + "\n")
    return path


def check_same(servers: list[Server], body: str) -> int:
    """Both sides give the same values; returns how many bytes an answer has."""
    answers = []
    for server in servers:
        answer = server.post(body)
        answers.append(dict(zip(answer["metadata"]["feature_names"], answer["results"], strict=True)))
    first, *others = answers
    for other in others:
        if first.keys() != other.keys():
            sys.exit("error: the servers answer different features")
        for name, column in first.items():
            for a, b in zip(column["values"], other[name]["values"], strict=True):
                if a != b and not (isinstance(a, float) and math.isclose(a, b, rel_tol=1e-6)):
                    sys.exit(f"error: the servers answer different values for `{name}`: {a!r} and {b!r}")
            if any(column[part] != other[name][part] for part in ("statuses", "event_timestamps")):
                sys.exit(f"error: the servers answer different statuses or times for `{name}`")
    return len(json.dumps(answer, separators=(",", ":")))


def load(server: Server, file: Path, connections: int, seconds: int, store: int | None) -> dict[str, float]:
    """Requests as fast as they are answered; figures per request."""
    for _ in range(3):
        server.post(file.open().readline())
    before = cpu_seconds(server.process.pid), cpu_seconds(store) if store else 0.0
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "60s", "-s", HERE / "post.lua"]
    told = json.loads(run([*command, server.url, "--", file]).strip().splitlines()[-1])
    after = cpu_seconds(server.process.pid), cpu_seconds(store) if store else 0.0
    done = max(1, told["requests"])
    return {
        "rps": told["requests"] / (told["microseconds"] / 1e6),
        "p50_ms": told["p50"] / 1000,
        "p99_ms": told["p99"] / 1000,
        "cpu_ms": (after[0] - before[0]) * 1000 / done,
        "store_cpu_ms": (after[1] - before[1]) * 1000 / done,
        "memory_mib": memory_mib(server.process.pid),
        "bad": told["bad"],
    }


def redis_floor(port: int, pid: int, case: str, connections: int, seconds: int) -> dict[str, float]:
    """HMGET of as many fields of as many keys, pipelined by redis-benchmark, on hashes as large as Feast's."""
    entities, views = CASES[case]
    fields = [f"{at:04x}" for at in range(views * FEATURES)] + [f"_ts:view_{view:02}" for view in range(views)]
    with socket.create_connection(("127.0.0.1", port)) as stream:
        answers = stream.makefile("rb")
        for key in range(KEYS):
            words = ["HSET", f"floor:{key:012}"]
            for field in fields:
                words += [field, "x" * 8]
            stream.sendall((f"*{len(words)}\r\n" + "".join(f"${len(word)}\r\n{word}\r\n" for word in words)).encode())
            answers.readline()

    def measure(n: int) -> tuple[float, float, list[float]]:
        before, started = cpu_seconds(pid), time.monotonic()
        told = run(
            ["redis-benchmark", "-p", port, "-n", n, "-c", connections, "-P", entities, "-r", KEYS, "--csv"]
            + ["HMGET", "floor:__rand_int__", *fields]
        )
        row = [line for line in told.splitlines() if line.startswith('"HMGET')][-1]
        values = [float(cell.strip('"')) for cell in row.split('","')[1:]]
        return time.monotonic() - started, cpu_seconds(pid) - before, values

    probe = max(2000, entities * connections * 2)
    wall, _, _ = measure(probe)
    n = max(entities, int(probe * seconds / max(wall, 0.05)) // entities * entities)
    _, cpu, values = measure(n)
    return {
        "rps": values[0] / entities,
        "p50_ms": values[3],
        "p99_ms": values[5],
        "cpu_ms": 0.0,
        "store_cpu_ms": cpu * 1000 * entities / n,
        "memory_mib": 0.0,
        "bad": 0,
    }


def measure_store(store: str, arguments: argparse.Namespace, scratch: Path) -> list[dict]:
    """All cases on one store."""
    rows = []
    with contextlib.ExitStack() as stack:
        port, pid = stack.enter_context(redis(scratch)) if store == "redis" else (None, None)
        repository = scratch / store
        python = arguments.peer / "bin" / "python"
        run([python, HERE / "prepare.py", repository, *([f"127.0.0.1:{port}"] if port else [])])
        feast = arguments.peer / "bin" / "feast"
        for command in (["apply"], ["materialize", "2026-01-01T00:00:00", "2026-03-01T00:00:00"]):
            say(f"{store}: Feast runs `{' '.join(command)}`")
            run([feast, *command], cwd=repository)
        ours_port, peer_port, floor_port = free_port(), free_port(), free_port()
        common = ["serve", "--no-access-log", "--port"]
        ours = stack.enter_context(
            serving("feast-rs", [arguments.binary, "-c", repository, *common, ours_port], ours_port)
        )
        # Feast restarts its worker every 1,000 requests by default; it is spared that here.
        peer_command = [feast, "-c", repository, *common, peer_port, "--max-requests", "1000000000"]
        peer = stack.enter_context(serving("Feast", peer_command, peer_port))
        for case in arguments.case or CASES:
            file = bodies(case, scratch)
            length = check_same([ours, peer], file.open().readline())
            for connections in arguments.connections:
                for server in (ours, peer):
                    found = load(server, file, connections, arguments.seconds, pid)
                    row = {"store": store, "case": case, "connections": connections, "side": server.name}
                    rows.append(row | found)
                    say(f"{store}, {case}, {connections}: {server.name} {found['rps']:.0f} requests/s")
                with serving("constant body", [arguments.constant, floor_port, length], floor_port, "/") as constant:
                    constant.post = lambda _body: {}
                    found = load(constant, file, connections, arguments.seconds, None)
                rows.append(
                    {"store": store, "case": case, "connections": connections, "side": "floor: constant body", **found}
                )
                if pid:
                    found = redis_floor(port, pid, case, connections, arguments.seconds)
                    row = {"store": store, "case": case, "connections": connections, "side": "floor: HMGET", **found}
                    rows.append(row)
    return rows


def table(rows: list[dict]) -> str:
    """Markdown; ratios are against Feast in the same case."""
    lines = [
        "| store | case | connections | side | requests/s | p50 ms | p99 ms | server CPU ms | store CPU ms "
        + "| memory MiB | failed | Feast's CPU / this |",
        "|---|---|--:|---|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    feast = {(row["store"], row["case"], row["connections"]): row for row in rows if row["side"] == "Feast"}
    for row in rows:
        reference = feast.get((row["store"], row["case"], row["connections"]))
        is_other = row["side"] == "feast-rs" and reference is not None and row["cpu_ms"] > 0
        ratio = f"{reference['cpu_ms'] / row['cpu_ms']:.0f}" if is_other else ""
        lines.append(
            f"| {row['store']} | {row['case']} | {row['connections']} | {row['side']} | {row['rps']:,.0f} "
            f"| {row['p50_ms']:.2f} | {row['p99_ms']:.2f} | {row['cpu_ms']:.3f} | {row['store_cpu_ms']:.3f} "
            f"| {row['memory_mib']:.0f} | {row['bad']} | {ratio} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measures, prints the table and keeps the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--binary", type=Path, required=True, help="the standalone command")
    parser.add_argument("--constant", type=Path, required=True, help="the program `constant_body` of feast-server")
    parser.add_argument("--peer", type=Path, required=True, help="environment with feast==0.67.0")
    parser.add_argument("--store", action="append", choices=["sqlite", "redis"], help="default: sqlite")
    parser.add_argument("--case", action="append", choices=list(CASES), help="default: all")
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 64])
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--results", type=Path, help="directory for a JSON file with the figures")
    arguments = parser.parse_args()
    for name in ("binary", "constant", "peer"):
        setattr(arguments, name, getattr(arguments, name).absolute())
    stores = arguments.store or ["sqlite"]
    for tool in ["wrk", *(["redis-server", "redis-benchmark"] if "redis" in stores else [])]:
        if shutil.which(tool) is None:
            sys.exit(f"error: `{tool}` not found; Debian: apt-get install wrk redis-server redis-tools")
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        for store in stores:
            rows += measure_store(store, arguments, Path(scratch))
    machine = {"cores": os.cpu_count(), "load": os.getloadavg()[0], "system": platform.platform()}
    print(f"{machine['cores']} cores, load {machine['load']:.1f} at the end, {machine['system']}\n")
    print(table(rows))
    if arguments.results:
        arguments.results.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"machine": machine, "rows": rows}, indent=1)
        (arguments.results / "online.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
