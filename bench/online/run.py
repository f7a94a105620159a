"""Online features: this server and SDK, and Feast's, in one run, on the same repository, store, requests and client.

    make bench-online
    python bench/online/run.py --binary FILE --constant FILE --ours ENVIRONMENT --peer ENVIRONMENT [--store redis]

Feast itself applies and materializes the repository; both sides read what it wrote. The client over HTTP is wrk. What
bounds every server from above is measured too: this server with nothing behind its connections but a constant body of the
same size, the HTTP library alone with that body, and, for Redis, the same fields of the same hashes read by a program in C that pipelines HMGET, and whole hashes read by
HGETALL; the same fields of copies of the hashes written by HSET. CPU time is what a busy machine distorts least. When
wrk stops, requests are still on their way: the CPU time of a server is divided by all requests that it answered, those that
nobody waited for included. This server counts them itself; Feast's answers all. What this one spent on requests that it gave
up because nobody waited counts against it: where a request takes tens of milliseconds, few connections and more --seconds
tell more.

Parts: `requests` and `push` over HTTP, `sdk` in process, `soak` (only when asked for; --minutes) at 80 % of capacity
with definitions applied and the registry read again meanwhile.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import math
import os
import platform
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from raw_redis import Redis, client, field, send_pipelines, write_pipelines
from servers import Server, cpu_seconds, free_port, memory_mib, redis, run, say, serving

HERE = Path(__file__).parent
KEYS, FEATURES, VIEWS = 5000, 10, 25


def spread(n_views: int) -> list[int]:
    """So many views whose fields are spread over the hashes as far from each other as they can be."""
    return [VIEWS * (2 * at + 1) // (2 * n_views) for at in range(n_views)]


# Entities and views. How far in front the fields of a view lie in the hashes of Redis is most of what they cost Redis, since
# it walks through them. Feast writes views in no order of its own, so that those of a request may lie anywhere: for five
# views all over the hash, for one in the middle, or in front.
MIDDLE = VIEWS // 2
CASES: dict[str, tuple[int, list[int]]] = {
    "1 x 10, 1 view": (1, [0]),
    "1 x 10, 1 view in the middle": (1, [MIDDLE]),
    "1 x 50, 5 views": (1, spread(5)),
    "100 x 50, 5 views": (100, spread(5)),
    "100 x 50, 5 views in front": (100, list(range(5))),
    "500 x 250, 25 views": (500, spread(VIEWS)),
}
# Rows and the view that they are for.
PUSHES = {
    "push 1 x 10": (1, MIDDLE),
    "push 1 x 10, view in front": (1, 0),
    "push 100 x 10": (100, MIDDLE),
    "push 100 x 10, view in front": (100, 0),
}
PARTS = ["requests", "push", "sdk", "soak"]
# What the keys of hashes begin with that are written to for comparison.
COPIES = b"floor:"


@dataclass
class Bench:
    """What the parts work with: one store with a repository that Feast has filled."""

    store: str
    repository: Path
    scratch: Path
    redis: tuple[int, int] | None
    arguments: argparse.Namespace

    def row(self, case: str, connections: int, side: str, found: dict) -> dict:
        """One line of the table."""
        say(f"{self.store}, {case}, {connections}: {side} {found['rps']:.0f} requests/s")
        return {"store": self.store, "case": case, "connections": connections, "side": side} | found

    @property
    def redis_process(self) -> int | None:
        """The process of Redis."""
        return self.redis[1] if self.redis else None


def bodies(case: str, folder: Path) -> Path:
    """Requests with random keys, one per line, the same for everybody."""
    entities, views = CASES[case]
    features = [f"view_{view:02}:f{view:02}_{at}" for view in views for at in range(FEATURES)]
    dice = random.Random(7)
    path = folder / f"{case}.jsonl"
    with path.open("w") as file:
        for _ in range(200 if entities < 500 else 40):
            keys = dice.sample(range(KEYS), entities)
            file.write(json.dumps({"features": features, "entities": {"driver_id": keys}}) + "\n")
    return path


def pushes(rows: int, view: int, folder: Path) -> Path:
    """Bodies that push rows to a view, one per line, each with keys of its own, all at one time."""
    dice = random.Random(11)
    path = folder / f"push{rows}-{view}.jsonl"
    with path.open("w") as file:
        for _ in range(200):
            frame = {"driver_id": dice.sample(range(KEYS), rows), "event_timestamp": ["2026-02-10T00:00:00Z"] * rows}
            makers: list[Callable[[], object]] = [
                lambda: dice.randrange(100),
                dice.random,
                lambda: dice.randrange(1000) / 8,
                lambda: f"city-{dice.randrange(500)}",
                lambda: dice.randrange(1_000_000),
                lambda: dice.randrange(2**40),
                lambda: dice.gauss(0, 1000),
                lambda: dice.random() > 0.5,
                lambda: f"segment/{dice.randrange(2**31):08x}",
                lambda: dice.randrange(2**53),
            ]
            for at, make in enumerate(makers):
                frame[f"f{view:02}_{at}"] = [make() for _ in range(rows)]
            file.write(json.dumps({"push_source_name": f"pushed_{view:02}", "df": frame, "to": "online"}) + "\n")
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


def settled(process: int) -> float:
    """CPU seconds of a process once it has nothing left to do."""
    before = cpu_seconds(process)
    while True:
        time.sleep(0.3)
        after = cpu_seconds(process)
        if after - before < 0.02:
            return after
        before = after


def wrk(server: Server, file: Path, path: str, connections: int, seconds: float, pause: float = 0) -> dict[str, int]:
    """What wrk tells of requests as fast as they are answered."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "60s", "-s", HERE / "post.lua"]
    return json.loads(run([*command, server.url, "--", file, path, pause]).strip().splitlines()[-1])


def load(
    server: Server, file: Path, connections: int, seconds: int, store: int | None, path: str = "/get-online-features"
) -> dict[str, float]:
    """Figures per request of requests as fast as they are answered."""
    for _ in range(3):
        server.post(file.open().readline(), path)
    counts = server.name == "feast-rs"
    finished = server.finished(path) if counts else 0
    before = settled(server.process.pid), cpu_seconds(store) if store else 0.0
    told = wrk(server, file, path, connections, seconds)
    # wrk does not wait for the last requests of its connections.
    after = settled(server.process.pid), cpu_seconds(store) if store else 0.0
    late = connections if server.name == "Feast" else 0
    done = max(1, server.finished(path) - finished if counts else told["requests"] + late)
    return {
        "rps": told["requests"] / (told["microseconds"] / 1e6),
        "p50_ms": told["p50"] / 1000,
        "p99_ms": told["p99"] / 1000,
        "cpu_ms": (after[0] - before[0]) * 1000 / done,
        "store_cpu_ms": (after[1] - before[1]) * 1000 / done,
        "memory_mib": memory_mib(server.process.pid),
        "bad": told["bad"],
    }


def fields_of(views: list[int]) -> list[bytes]:
    """The fields of some views, as they are named in the hashes of the repository."""
    fields = []
    for view in views:
        fields += [field(f"view_{view:02}", f"f{view:02}_{at}") for at in range(FEATURES)] + [b"_ts:view_%02d" % view]
    return fields


def read_floor(bench: Bench, case: str, connections: int, whole: bool) -> dict[str, float]:
    """The fields of a request read from the hashes of the repository, or these hashes whole."""
    port, _ = bench.redis
    entities, views = CASES[case]
    keys = [key for key in Redis(port).every_key() if not key.startswith(COPIES)]
    fields = fields_of(views)
    file = bench.scratch / "pipelines.bin"
    name, words = (b"HGETALL", []) if whole else (b"HMGET", fields)
    write_pipelines(file, keys, entities, name, [words])
    if not whole and None in (found := Redis(port).ask(b"HMGET", keys[0], *fields)):
        sys.exit(f"error: {found.count(None)} of the fields of the floor are not in the hashes of the repository")
    return pipelined(bench, file, connections)


def pipelined(bench: Bench, file: Path, connections: int) -> dict[str, float]:
    """Figures of pipelines that a program in C sends as fast as they are answered."""
    port, process = bench.redis
    program = client(bench.scratch)
    send_pipelines(program, port, file, connections, 0.2)
    before = cpu_seconds(process)
    told = send_pipelines(program, port, file, connections, bench.arguments.seconds)
    return {
        "rps": told["requests"] / (told["microseconds"] / 1e6),
        "p50_ms": told["p50"] / 1000,
        "p99_ms": told["p99"] / 1000,
        "cpu_ms": 0.0,
        "store_cpu_ms": (cpu_seconds(process) - before) * 1000 / told["requests"],
        "memory_mib": 0.0,
        "bad": 0,
    }


def write_floor(bench: Bench, entities: int, view: int, connections: int) -> dict[str, float]:
    """HSET of the fields of a view, of as many keys, into copies of the hashes of the repository, with values that others of
    them have: where a value is of another length, Redis moves all that is behind it."""
    server = Redis(bench.redis[0])
    keys = [key for key in server.every_key() if not key.startswith(COPIES)]
    for key in keys:
        server.ask(b"COPY", key, COPIES + key, b"REPLACE")
    fields = fields_of([view])
    rows = [
        [word for pair in zip(fields, server.ask(b"HMGET", key, *fields), strict=True) for word in pair]
        for key in keys[:200]
    ]
    file = bench.scratch / "writes.bin"
    write_pipelines(file, [COPIES + key for key in keys], entities, b"HSET", rows)
    return pipelined(bench, file, connections)


@contextlib.contextmanager
def both(bench: Bench) -> Iterator[tuple[Server, Server]]:
    """Both servers on the repository."""
    arguments = bench.arguments
    ours_port, peer_port = free_port(), free_port()
    common = ["serve", "--no-access-log", "--port"]
    # Feast restarts its worker every 1,000 requests by default; it is spared that here.
    peer = [
        arguments.peer / "bin" / "feast",
        "-c",
        bench.repository,
        *common,
        peer_port,
        "--max-requests",
        "1000000000",
    ]
    ours = [arguments.binary, "-c", bench.repository, *common, ours_port]
    with serving("feast-rs", ours, ours_port) as first, serving("Feast", peer, peer_port) as second:
        yield first, second


@contextlib.contextmanager
def constants(program: Path, length: int) -> Iterator[tuple[Server, Server]]:
    """A constant body of so many bytes from this server's connections, and from the HTTP library below them alone."""
    ports = free_port(), free_port()
    with (
        serving("floor: constant body", [program, ports[0], length], ports[0], "/") as first,
        serving("floor: constant body, hyper alone", [program, ports[1], length, "hyper"], ports[1], "/") as second,
    ):
        for server in (first, second):
            server.post = lambda *_: {}
        yield first, second


def in_turns(rounds: int, measures: dict[str, Callable[[], dict]]) -> Iterator[tuple[str, dict]]:
    """The medians of each side. They take turns, because how fast a machine is changes from minute to minute."""
    found: dict[str, list[dict]] = {side: [] for side in measures}
    for _ in range(rounds):
        for side, measure in measures.items():
            found[side].append(measure())
    for side, samples in found.items():
        yield side, {figure: statistics.median(sample[figure] for sample in samples) for figure in samples[0]}


def measure_requests(bench: Bench) -> Iterator[dict]:
    """Reading over HTTP."""
    arguments = bench.arguments
    with both(bench) as (ours, peer):
        for case in arguments.case or CASES:
            file = bodies(case, bench.scratch)
            length = check_same([ours, peer], file.open().readline())
            with constants(arguments.constant, length) as floors:
                for connections in arguments.connections:
                    measures = {
                        server.name: functools.partial(load, server, file, connections, arguments.seconds, store)
                        for server, store in [(ours, bench.redis_process), (peer, bench.redis_process)]
                        + [(floor, None) for floor in floors]
                    }
                    if bench.redis:
                        for whole, name in ((False, "floor: HMGET"), (True, "floor: HGETALL")):
                            measures[name] = functools.partial(read_floor, bench, case, connections, whole)
                    for side, found in in_turns(arguments.rounds, measures):
                        yield bench.row(case, connections, side, found)


def measure_push(bench: Bench) -> Iterator[dict]:
    """Writing over HTTP."""
    arguments = bench.arguments
    with both(bench) as servers:
        for case, (rows, view) in PUSHES.items():
            file = pushes(rows, view, bench.scratch)
            for connections in arguments.connections:
                measures = {
                    server.name: functools.partial(
                        load, server, file, connections, arguments.seconds, bench.redis_process, "/push"
                    )
                    for server in servers
                }
                if bench.redis:
                    measures["floor: HSET"] = functools.partial(write_floor, bench, rows, view, connections)
                for side, found in in_turns(arguments.rounds, measures):
                    yield bench.row(case, connections, side, found)


def measure_sdk(bench: Bench) -> Iterator[dict]:
    """Reading in process."""
    arguments = bench.arguments
    for case in arguments.case or CASES:
        file = bodies(case, bench.scratch)

        def measure(environment: Path, file: Path = file) -> dict:
            before = cpu_seconds(bench.redis_process) if bench.redis else 0.0
            told = run(
                [environment / "bin" / "python", HERE / "sdk.py", bench.repository, file, arguments.seconds],
                env={**os.environ, "FEAST_USAGE": "False", "PYTHONWARNINGS": "ignore"},
            )
            found = json.loads(told.strip().splitlines()[-1])
            after = cpu_seconds(bench.redis_process) if bench.redis else 0.0
            found["store_cpu_ms"] = (after - before) * 1000 / found.pop("calls")
            return found

        sides = {"feast-rs": arguments.ours, "Feast": arguments.peer}
        measures = {side: functools.partial(measure, environment) for side, environment in sides.items()}
        for side, found in in_turns(arguments.rounds, measures):
            yield bench.row(f"SDK {case}", 1, side, found)


def measure_soak(bench: Bench) -> Iterator[dict]:
    """Load at 80 % of capacity for minutes; every half minute is a row, and in every other one definitions are applied.

    Who applies runs on a machine of its own as a rule: here it takes what nobody else wants of the processors."""
    arguments, case, connections = bench.arguments, "1 x 50, 5 views", 64
    port = free_port()
    file = bodies(case, bench.scratch)
    yaml = bench.repository / "feature_store.yaml"
    text = yaml.read_text()
    yaml.write_text(
        text.replace("registry: data/registry.db", "registry: {path: data/registry.db, cache_ttl_seconds: 2}")
    )
    command = [arguments.binary, "-c", bench.repository, "serve", "--no-access-log", "--port", port]
    try:
        with serving("feast-rs", command, port) as server:
            full = wrk(server, file, "/get-online-features", connections, 10)
            capacity = full["requests"] / (full["microseconds"] / 1e6)
            # How long answers take at that rate is found out by trying.
            per_round, pause = connections / (0.8 * capacity) * 1000, 0.0
            for _ in range(3):
                tried = wrk(server, file, "/get-online-features", connections, 5, pause)
                taken = connections * tried["microseconds"] / 1000 / max(1, tried["requests"])
                pause = max(0.05, pause + per_round - taken)
            say(f"{bench.store}, soak: capacity {capacity:.0f} requests/s, each connection pauses {pause:.2f} ms")
            definitions = bench.repository / "definitions.py"
            for at in range(int(arguments.minutes * 2)):
                applies = at % 2 == 1
                if applies:
                    definitions.write_text(
                        definitions.read_text() + f"\ntag_{at} = 0\nview_24.tags = {{'round': '{at}'}}\n"
                    )
                    applying = subprocess.Popen(
                        ["nice", "-n", "19", arguments.ours / "bin" / "feast", "-c", bench.repository, "apply"],
                        stdout=subprocess.DEVNULL,
                        stderr=subprocess.DEVNULL,
                    )
                before = cpu_seconds(server.process.pid)
                told = wrk(server, file, "/get-online-features", connections, 30, pause)
                if applies and applying.wait() != 0:
                    sys.exit("error: `feast apply` failed while the server was under load")
                yield bench.row(
                    f"soak, half minute {at + 1}{', with apply' if applies else ''}",
                    connections,
                    "feast-rs",
                    {
                        "rps": told["requests"] / (told["microseconds"] / 1e6),
                        "p50_ms": told["p50"] / 1000,
                        "p99_ms": told["p99"] / 1000,
                        "cpu_ms": (cpu_seconds(server.process.pid) - before) * 1000 / max(1, told["requests"]),
                        "store_cpu_ms": 0.0,
                        "memory_mib": memory_mib(server.process.pid),
                        "bad": told["bad"],
                    },
                )
    finally:
        yaml.write_text(text)


MEASURES = {"requests": measure_requests, "push": measure_push, "sdk": measure_sdk, "soak": measure_soak}


def measure_store(store: str, arguments: argparse.Namespace, scratch: Path) -> Iterator[dict]:
    """All parts on one store."""
    with contextlib.ExitStack() as stack:
        found = stack.enter_context(redis(scratch)) if store == "redis" else None
        repository = scratch / store
        python = arguments.peer / "bin" / "python"
        run([python, HERE / "prepare.py", repository, *([f"127.0.0.1:{found[0]}"] if found else [])])
        feast = arguments.peer / "bin" / "feast"
        # In one order, since Feast's own is another in each run.
        views = [word for view in range(VIEWS) for word in ("--views", f"view_{view:02}")]
        for command in (["apply"], ["materialize", *views, "2026-01-01T00:00:00", "2026-03-01T00:00:00"]):
            say(f"{store}: Feast runs `{command[0]}`")
            run([feast, *command], cwd=repository)
        bench = Bench(store, repository, scratch, found, arguments)
        for part in arguments.part or PARTS[:3]:
            yield from MEASURES[part](bench)


def table(rows: list[dict]) -> str:
    """Markdown. What stands behind this side: Feast's CPU by its own, Feast's CPU of the store by its own, and its requests
    by those of the floors, in their order."""
    lines = [
        "| store | case | connections | side | requests/s | p50 ms | p99 ms | server CPU ms | store CPU ms "
        + "| memory MiB | failed | Feast's CPU / this | Feast's store CPU / this | of the floors |",
        "|---|---|--:|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|---|",
    ]
    for row in rows:
        beside = [other for other in rows if all(other[part] == row[part] for part in ("store", "case", "connections"))]
        ratios, floors = ["", ""], ""
        if row["side"] == "feast-rs":
            for feast in (other for other in beside if other["side"] == "Feast"):
                figures = [(feast["cpu_ms"], row["cpu_ms"], 0), (feast["store_cpu_ms"], row["store_cpu_ms"], 1)]
                ratios = [f"{theirs / own:.{digits}f}" if own else "" for theirs, own, digits in figures]
            of_floors = [row["rps"] / other["rps"] for other in beside if other["side"].startswith("floor")]
            floors = ", ".join(f"{of:.0%}" for of in of_floors)
        lines.append(
            f"| {row['store']} | {row['case']} | {row['connections']} | {row['side']} | {row['rps']:,.0f} "
            f"| {row['p50_ms']:.2f} | {row['p99_ms']:.2f} | {row['cpu_ms']:.3f} | {row['store_cpu_ms']:.3f} "
            f"| {row['memory_mib']:.0f} | {row['bad']:.0f} | {ratios[0]} | {ratios[1]} | {floors} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measures, prints the table and keeps the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--binary", type=Path, required=True, help="the standalone command")
    parser.add_argument("--constant", type=Path, required=True, help="the program `constant_body` of feast-server")
    parser.add_argument("--ours", type=Path, required=True, help="environment with feast-rs")
    parser.add_argument("--peer", type=Path, required=True, help="environment with feast==0.67.0")
    parser.add_argument("--store", action="append", choices=["sqlite", "redis"], help="default: sqlite")
    parser.add_argument("--part", action="append", choices=PARTS, help="default: all but soak")
    parser.add_argument("--minutes", type=float, default=10, help="of the soak")
    parser.add_argument("--case", action="append", choices=list(CASES), help="default: all")
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 64])
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=1, help="the sides take turns; medians are told")
    parser.add_argument("--results", type=Path, help="directory for a JSON file with the figures")
    arguments = parser.parse_args()
    for name in ("binary", "constant", "ours", "peer"):
        setattr(arguments, name, getattr(arguments, name).absolute())
    stores = arguments.store or ["sqlite"]
    for tool in ["wrk", *(["redis-server"] if "redis" in stores else [])]:
        if shutil.which(tool) is None:
            sys.exit(f"error: `{tool}` not found; Debian: apt-get install wrk redis-server")
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
