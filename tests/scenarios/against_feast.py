"""Runs the scenarios against Feast's own server; see README.md.

Every file gets a repository of its own, made, applied and materialized by the Feast that this Python has.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

HERE = Path(__file__).parent
NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
TIME = pa.timestamp("us", tz="UTC")
INFINITY = float("inf")
NUMBERS = [0.0, 1.0, 1e20, 1e-7, 0.1, INFINITY, -INFINITY, 1e16, -0.0, 123456789.125, 1e15, 5e-324]

CONFIGURATION = """\
project: proj
provider: local
registry: data/registry.db
online_store: {type: sqlite, path: data/online.db}
entity_key_serialization_version: 3
"""

DEFINITIONS = """\
from datetime import timedelta

from feast import Entity, FeatureService, FeatureView, Field, FileSource, PushSource, ValueType
from feast.types import Array, Bool, Bytes, Float32, Float64, Int32, Int64, Json, Map, String, UnixTimestamp, Uuid


def file(name, path):
    return FileSource(name=name, path=path, timestamp_field="event_timestamp", created_timestamp_column="created")


def fields(**types):
    return [Field(name=name, dtype=dtype) for name, dtype in types.items()]


driver = Entity(name="driver", join_keys=["driver_id"], value_type=ValueType.INT64)
item = Entity(name="item", join_keys=["id"], value_type=ValueType.STRING)
drivers = file("driver_src", "driver.parquet")
rates = fields(driver_id=Int64, conv_rate=Float32, trips=Int64, city=String)
none = timedelta(0)
driver_stats = FeatureView(
    name="driver_stats", entities=[driver], ttl=timedelta(days=1), schema=rates, source=drivers
)
driver_push = FeatureView(
    name="driver_push", entities=[driver], ttl=none, schema=rates,
    source=PushSource(name="driver_push_source", batch_source=drivers),
)
glob = FeatureView(
    name="glob", entities=[], ttl=timedelta(days=10), schema=fields(g=Float64), source=file("glob_src", "glob.parquet")
)
shapes = FeatureView(
    name="shapes", entities=[item], ttl=none, source=file("shapes_src", "shapes.parquet"),
    schema=fields(
        id=String, d=Float64, f=Float32, b=Bool, i=Int32, l=Int64, s=String, y=Bytes, t=UnixTimestamp,
        dl=Array(Float64), fl=Array(Float32), sl=Array(String), il=Array(Int64), bl=Array(Bool),
        tl=Array(UnixTimestamp),
    ),
)
extras = FeatureView(
    name="extras", entities=[item], ttl=none, source=file("extras_src", "extras.parquet"),
    schema=fields(id=String, m=Map, j=Json, u=Uuid),
)
driver_service = FeatureService(name="driver_service", features=[driver_stats[["conv_rate"]]])
"""


def write_repository(folder: Path) -> None:
    (folder / "feature_store.yaml").write_text(CONFIGURATION)
    (folder / "definitions.py").write_text(DEFINITIONS)

    def write(name: str, **columns: pa.Array) -> None:
        pq.write_table(pa.table(columns), folder / name)

    write(
        "driver.parquet",
        driver_id=pa.array([1001, 1001, 1001, 1002, 1003]),
        event_timestamp=pa.array([NOON - 2 * HOUR, NOON, NOON, NOON - HOUR, NOON - 72 * HOUR], TIME),
        created=pa.array([NOON - 2 * HOUR, NOON, NOON + HOUR / 60, NOON, NOON], TIME),
        conv_rate=pa.array([0.1, 0.2, 0.3, 0.4, 0.5]),
        trips=pa.array([10, 20, 30, 40, 50]),
        city=pa.array(["a", "b", "c", None, "e"]),
    )
    noon = pa.array([NOON], TIME)
    write("glob.parquet", event_timestamp=noon, created=noon, g=pa.array([1.5]))
    n = len(NUMBERS)
    noon = pa.array([NOON] * n, TIME)
    numbers = pa.array(NUMBERS)
    write(
        "shapes.parquet",
        id=pa.array([str(i) for i in range(n)]),
        event_timestamp=noon,
        created=noon,
        d=numbers,
        f=numbers.cast(pa.float32(), safe=False),
        b=pa.array([i % 2 == 0 for i in range(n)]),
        i=pa.array([2**31 - 1 - i for i in range(n)], pa.int32()),
        l=pa.array([2**63 - 1 - i for i in range(n)]),
        s=pa.array(['pläin "quo\\ted"\n\u2028\x01/'] * n),
        y=pa.array([b"\x00\xff\xfe"] * n),
        t=noon,
        dl=pa.array([[1.0, 2.5]] * n),
        fl=pa.array([[0.1, 3.0]] * n, pa.list_(pa.float32())),
        sl=pa.array([["a", ""]] * n),
        il=pa.array([[1, 2]] * n),
        bl=pa.array([[True, False]] * n),
        tl=pa.array([[NOON]] * n, pa.list_(TIME)),
    )
    one, empty = pa.array([NOON], TIME), pa.array([""])
    write("extras.parquet", id=empty, event_timestamp=one, created=one, m=empty, j=empty, u=empty)


class Server:
    """`feast serve` on a free port, for a fresh repository."""

    def __enter__(self) -> Server:
        self.folder = tempfile.TemporaryDirectory()
        path = Path(self.folder.name)
        write_repository(path)
        feast = Path(sys.executable).with_name("feast")
        views = [word for view in ("driver_stats", "driver_push", "glob", "shapes") for word in ("-v", view)]
        for command in (["apply"], ["materialize", "2026-11-01T00:00:00", "2026-11-21T00:00:00", *views]):
            subprocess.run([feast, *command], cwd=path, check=True, capture_output=True)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.log = open(path / "log.txt", "wb")
        # Feast's refresh reads the registry while its materialization writes it, and may find half of it.
        serve = [feast, "serve", "-p", str(self.port), "--no-access-log", "--registry_ttl_sec", "3600"]
        self.process = subprocess.Popen(serve, cwd=path, stdout=self.log, stderr=self.log, start_new_session=True)
        for _ in range(600):
            try:
                self.ask({"method": "GET", "path": "/health"})
                return self
            except OSError:
                time.sleep(0.1)
        raise RuntimeError("Feast's server did not start:\n" + (path / "log.txt").read_text())

    def __exit__(self, *_: Any) -> None:
        os.killpg(self.process.pid, 15)
        self.process.wait()
        self.log.close()
        self.folder.cleanup()

    def ask(self, asked: dict[str, Any]) -> tuple[int, str]:
        body = json.dumps(asked["json"]) if "json" in asked else asked.get("body")
        headers = {"content-type": "application/json"} | asked.get("headers", {})
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{asked['path']}",
            data=None if body is None else body.encode(),
            headers=headers,
            method=asked.get("method", "POST"),
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()


def by_name(body: Any) -> Any:
    """An answer with features in the order of their names: Feast's own order is left to chance."""
    if not (isinstance(body, dict) and "results" in body and "metadata" in body):
        return body
    names = body["metadata"]["feature_names"]
    views = body["metadata"].get("feature_view_metadata")
    views = views and sorted(views, key=lambda view: view["name"])
    return {"columns": dict(zip(names, body["results"])), "views": views}


def difference(scenario: dict[str, Any], status: int, body: str) -> str | None:
    feast = scenario.get("feast")
    if feast:
        return None if status == feast["status"] else f"status {status} instead of {feast['status']}"
    if status != scenario["status"]:
        return f"status {status} instead of {scenario['status']}"
    found = None
    try:
        found = json.loads(body)
    except ValueError:
        pass
    if "json" in scenario and by_name(found) != by_name(scenario["json"]):
        return "another body"
    if "text" in scenario and body != scenario["text"]:
        return "another text"
    if "error" in scenario:
        expected = scenario["error"]
        try:
            inner = json.loads(found)
            told = inner["class"], inner["message"]
        except (ValueError, TypeError, KeyError):
            told = None, str(found)
        if told[0] != expected.get("class") or expected["message"] not in told[1]:
            return f"another error than {expected}"
    if "problems" in scenario:
        told = [[problem["type"], problem["loc"]] for problem in found["detail"]]
        if told != scenario["problems"]:
            return f"other problems than {scenario['problems']}"
    missing = [part for part in scenario.get("contains", []) if part not in body]
    return f"no {missing[0]}" if missing else None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="*", type=Path, default=sorted(HERE.glob("*.yaml")))
    differences = total = marked = 0
    for file in parser.parse_args().files:
        with Server() as server:
            for scenario in yaml.safe_load(file.read_text()):
                total += 1
                marked += "feast" in scenario
                status, body = server.ask(scenario["request"])
                wrong = difference(scenario, status, body)
                if wrong:
                    differences += 1
                    print(f"{file.name}: {scenario['name']}: {wrong}\n    found {status} {body}")
    print(f"{total} scenarios, {marked} with a known difference, {differences} with an unknown one")
    return 1 if differences else 0


if __name__ == "__main__":
    sys.exit(main())
