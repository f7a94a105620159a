"""How soon the server answers, and how much memory it holds when nobody asks, with a registry of 1,000 views.

python bench/online/start.py --binary FILE --peer ENVIRONMENT [--views N] [--rounds N]

Feast's Python makes the registry; only this server is measured.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

DEFINITIONS = """
from datetime import timedelta
from feast import Entity, FeatureView, Field, FileSource, ValueType
from feast.types import Float64, Int64, String

driver = Entity(name="driver", join_keys=["driver_id"], value_type=ValueType.INT64)
for number in range({views}):
    globals()[f"view_{{number:04}}"] = FeatureView(
        name=f"view_{{number:04}}",
        entities=[driver],
        ttl=timedelta(days=1),
        schema=[Field(name="driver_id", dtype=Int64)]
        + [Field(name=f"f{{number:04}}_{{at}}", dtype=[Int64, Float64, String][at % 3]) for at in range(10)],
        source=FileSource(name=f"source_{{number:04}}", path="data/rows.parquet", timestamp_field="event_timestamp"),
    )
"""

FILL = """
import sys
from pathlib import Path
import pandas as pd
from feast import FeatureStore
import definitions
Path("data").mkdir(exist_ok=True)
pd.DataFrame({"driver_id": [1], "event_timestamp": pd.to_datetime(["2026-01-01"], utc=True)}).to_parquet("data/rows.parquet")
store = FeatureStore(".")
from feast import Entity, FeatureView
store.apply([value for value in vars(definitions).values() if isinstance(value, (Entity, FeatureView))])
"""


def resident_mib(pid: int) -> list[float]:
    """Resident memory of a process: all of it, its own, and the pages of files."""
    status = Path(f"/proc/{pid}/status").read_text()
    lines = dict(line.split(":", 1) for line in status.splitlines())
    return [int(lines[name].split()[0]) / 1024 for name in ("VmRSS", "RssAnon", "RssFile")]


def answers(port: int) -> bool:
    """Whether the server says that it is well."""
    try:
        with socket.create_connection(("127.0.0.1", port), 5) as stream:
            stream.sendall(b"GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            return stream.recv(64).startswith(b"HTTP/1.1 200")
    except OSError:
        return False


def main() -> None:
    """Fills a registry once, then starts the server several times."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--binary", type=Path, required=True)
    parser.add_argument("--peer", type=Path, required=True)
    parser.add_argument("--views", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        repository = Path(scratch)
        (repository / "definitions.py").write_text(DEFINITIONS.format(views=arguments.views))
        (repository / "feature_store.yaml").write_text(
            "project: many\nprovider: local\nregistry: data/registry.db\nentity_key_serialization_version: 3\n"
        )
        python = arguments.peer.absolute() / "bin" / "python"
        filled = subprocess.run([python, "-c", FILL], cwd=repository, capture_output=True, text=True, check=False)
        if filled.returncode != 0:
            sys.exit(f"error: the registry could not be filled:\n{filled.stderr[-2000:]}")
        ready, cpu, memory = [], [], []
        for _ in range(arguments.rounds):
            with socket.socket() as found:
                found.bind(("127.0.0.1", 0))
                port = found.getsockname()[1]
            started = time.perf_counter()
            command = [arguments.binary.absolute(), "-c", repository, "serve", "--port", str(port), "--no-access-log"]
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            while not answers(port):
                if process.poll() is not None:
                    sys.exit("error: the server did not start")
                time.sleep(0.001)
            ready.append((time.perf_counter() - started) * 1000)
            time.sleep(2)  # what starting leaves behind is let go by then
            memory.append(resident_mib(process.pid))
            fields = Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()
            cpu.append((int(fields[11]) + int(fields[12])) * 1000 / os.sysconf("SC_CLK_TCK"))
            process.send_signal(signal.SIGTERM)
            process.wait()
        size = (repository / "data" / "registry.db").stat().st_size / 2**20
        print(f"registry of {arguments.views} views ({size:.1f} MiB), median of {arguments.rounds} starts")
        print(f"ready after {statistics.median(ready):.0f} ms ({statistics.median(cpu):.0f} ms of CPU)")
        resident, own, files = (statistics.median(values) for values in zip(*memory, strict=True))
        print(f"idle with {resident:.1f} MiB resident: {own:.1f} of its own, {files:.1f} of files")


if __name__ == "__main__":
    main()
