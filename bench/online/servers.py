"""Servers of both sides and Redis as processes, and what they take of CPU and memory."""

from __future__ import annotations

import contextlib
import json
import os
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

    def post(self, body: str, path: str = "/get-online-features") -> dict | None:
        """The answer to one request; `None` where it has no body, as to a push."""
        request = urllib.request.Request(self.url + path, body.encode(), {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.loads(answer.read() or "null")

    def finished(self, path: str) -> int:
        """How many requests to a path this server has answered, by its own count: whoever asked may have left."""
        with urllib.request.urlopen(self.url + "/metrics", timeout=60) as answer:
            lines = answer.read().decode().splitlines()
        named = f'feast_feature_server_request_total{{endpoint="{path}"'
        return sum(int(float(line.rsplit(" ", 1)[1])) for line in lines if line.startswith(named))


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
