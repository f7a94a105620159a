"""What the offline benches share: running one worker, medians, and tables."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).parent


@dataclass
class Measured:
    """What one side took for one piece of work, sample by sample."""

    work: str
    side: str
    samples: list[dict] = field(default_factory=list)
    failure: str = ""
    checksum: str = ""
    """Of the values of the answer."""

    def median(self, of: str) -> float | None:
        """The median of one measure; none where nothing was measured."""
        values = [sample[of] for sample in self.samples if of in sample]
        return statistics.median(values) if values else None


def run_worker(command: list[str | Path], environment: dict[str, str] | None = None, memory_cap: int = 0) -> dict:
    """Runs a worker that prints a line of JSON at its end. A worker that takes more than `memory_cap` bytes is stopped.

    The answer has `failure` instead of measures where the worker did not come to its end.
    """
    process = subprocess.Popen(
        [str(part) for part in command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "FEAST_USAGE": "False", "PYTHONWARNINGS": "ignore", **(environment or {})},
        text=True,
    )
    stopped = threading.Event()
    too_large = threading.Event()

    def watch() -> None:
        while not stopped.wait(0.1):
            if memory_cap and resident(process.pid) > memory_cap:
                too_large.set()
                process.kill()
                return

    watcher = threading.Thread(target=watch)
    watcher.start()
    output, messages = process.communicate()
    stopped.set()
    watcher.join()
    if too_large.is_set():
        return {"failure": f"stopped at {memory_cap >> 30} GiB"}
    if process.returncode != 0:
        print(messages, file=sys.stderr)
        return {"failure": f"ended with {process.returncode}"}
    return json.loads(output.strip().splitlines()[-1])


def resident(pid: int) -> int:
    """Bytes of memory a process has now."""
    try:
        with open(f"/proc/{pid}/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0


def made(python: Path, folder: Path, kind: str, *numbers: int) -> Path:
    """The path of a file with rows, made if it is not there; in a process of its own, to keep this one small."""
    command = [str(python), str(HERE / "data.py"), str(folder), kind, *map(str, numbers)]
    return Path(subprocess.check_output(command, text=True).strip())


def shown(value: float | None, digits: int = 2) -> str:
    """A number for a table."""
    return "" if value is None else f"{value:.{digits}f}"


def markdown(header: list[str], rows: list[list[str]]) -> str:
    """A table; all columns but the first two are numbers."""
    line = lambda cells: f"| {' | '.join(cells)} |"
    rule = ["---", "---", *["--:"] * (len(header) - 2)]
    return "\n".join([line(header), line(rule), *map(line, rows)])


def machine() -> str:
    """What the figures were measured on."""
    with open("/proc/cpuinfo") as file:
        model = next((text.split(":")[1].strip() for text in file if text.startswith("model name")), "unknown")
    return f"{model}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, {time.strftime('%Y-%m-%d')}"
