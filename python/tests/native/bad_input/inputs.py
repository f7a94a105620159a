"""What is right, for tests to make it wrong: a repository, its definitions, and the rows that are asked for."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pandas as pd
from drivers import T0, write_repository

ONLINE = ["get-online-features", "-e", "driver_id=1001", "-f", "driver_stats:trips"]
MATERIALIZE = ["materialize", "2026-01-01", "2026-12-01"]
TRIPS = ["driver_stats:trips"]


PRELUDE = """\
from datetime import timedelta
from feast import *
from feast.types import *
driver = Entity(name="driver", join_keys=["driver_id"])
source = FileSource(name="stats", path="stats.parquet", timestamp_field="event_timestamp", created_timestamp_column="created")
schema = [Field(name="driver_id", dtype=Int64), Field(name="trips", dtype=Int64), Field(name="city", dtype=String)]
"""
VIEW = 'view = FeatureView(name="v", entities=[driver], ttl=timedelta(days=1), schema=schema, source=source)\n'


def view(**changed: str) -> str:
    arguments = {
        "name": '"v"',
        "entities": "[driver]",
        "ttl": "timedelta(days=1)",
        "schema": "schema",
        "source": "source",
    } | changed
    return PRELUDE + f"view = FeatureView({', '.join(f'{k}={v}' for k, v in arguments.items())})\n"


def file_source(path: str, **arguments: str) -> str:
    first, _, rest = (PRELUDE + VIEW).partition('path="stats.parquet"')
    extra = "".join(f", {name}={value}" for name, value in arguments.items())
    return f'{first}path="{path}"{extra}{rest}'


def service(features: str, name: str = '"s"') -> str:
    return PRELUDE + VIEW + f"service = FeatureService(name={name}, features={features})\n"


HEADER = "driver_id,event_timestamp,created,trips,city\n"
Files = dict[str, "str | bytes"]


def write_definitions(folder: Path, files: str | Files) -> None:
    write_repository(folder)
    for name, data in ({"defs.py": files} if isinstance(files, str) else files).items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data if isinstance(data, bytes) else data.encode())


ROW = {"driver_id": [1001], "event_timestamp": [T0]}


def frame(**changed: Any) -> Callable[[], pd.DataFrame]:
    return lambda: pd.DataFrame(ROW | changed)


def foreign_database() -> bytes:
    connection = sqlite3.connect(":memory:")
    connection.execute("CREATE TABLE t (a)")
    return connection.serialize()


def tables_of(folder: Path) -> list[str]:
    connection = sqlite3.connect(folder / "online.db")
    try:
        return sorted(
            name
            for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        )
    finally:
        connection.close()


def without_online_store(folder: Path) -> None:
    for path in folder.glob("online.db*"):
        path.unlink()


PUSHED = {
    "driver_id": [1001],
    "event_timestamp": [T0 + timedelta(hours=5)],
    "created": [T0],
    "conv_rate": [0.5],
    "trips": [5],
    "city": ["x"],
}


def pushed(*left_out: str, **changed: Any) -> pd.DataFrame:
    columns = PUSHED | changed
    return pd.DataFrame({name: values for name, values in columns.items() if name not in left_out})
