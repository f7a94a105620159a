"""Delta Lake tables as sources, as a user of the package and of the command meets them."""

from __future__ import annotations

import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from drivers import HOUR, T0

from feast import Entity, FeatureStore, FeatureView, Field, FileSource
from feast.data_format import DeltaFormat
from feast.types import Int64

driver = Entity(name="driver", join_keys=["driver_id"])


@pytest.fixture
def lake(repository: Path) -> Path:
    """A table whose second version corrects a row of the first, and whose third deletes one."""
    place = repository / "lake"
    first = {"driver_id": [1, 2, 3], "event_timestamp": [T0 - HOUR] * 3, "trips": [10, 20, 30]}
    write_deltalake(place, pa.table(first))
    table = DeltaTable(place)
    table.update(updates={"trips": "trips + 100"}, predicate="driver_id = 2")
    table.delete("driver_id = 3")
    return place


def applied(repository: Path, source: FileSource) -> FeatureStore:
    """A store with a view of the table."""
    view = FeatureView(
        name="trips_of_drivers",
        entities=[driver],
        ttl=timedelta(days=1),
        schema=[Field(name="driver_id", dtype=Int64), Field(name="trips", dtype=Int64)],
        source=source,
    )
    store = FeatureStore(repo_path=str(repository))
    store.apply([driver, source, view])
    return store


@pytest.mark.parametrize(
    ("path", "version", "trips"),
    [("lake", 2, [10, 120, None]), ("lake@v0", 0, [10, 20, 30]), ("lake@v1", 1, [10, 120, 30])],
)
@pytest.mark.parametrize("format", [DeltaFormat(), None])
def test_a_version_is_joined_served_and_told(
    repository: Path,
    lake: Path,
    path: str,
    version: int,
    trips: list[int | None],
    format: DeltaFormat | None,
) -> None:
    source = FileSource(
        name="lake", path=path, timestamp_field="event_timestamp", file_format=format
    )
    store = applied(repository, source)
    rows = pa.table({"driver_id": [1, 2, 3], "event_timestamp": [T0] * 3})
    job = store.get_historical_features(rows, ["trips_of_drivers:trips"])
    assert job.to_arrow()["trips"].to_pylist() == trips
    assert f"scan of `lake` at version {version}" in job.explain()
    store.materialize(T0 - HOUR, T0)
    online = store.get_online_features(
        ["trips_of_drivers:trips"], [{"driver_id": number} for number in (1, 2, 3)]
    )
    assert online.to_dict()["trips"] == trips


def test_the_command_explains_which_version_it_reads(repository: Path, lake: Path) -> None:
    applied(
        repository,
        FileSource(
            name="lake",
            path="lake@v0",
            timestamp_field="event_timestamp",
            file_format=DeltaFormat(),
        ),
    )
    command = [
        Path(sys.executable).with_name("feast"),
        "-c",
        repository,
        "get-historical-features",
        "-f",
        "trips_of_drivers:trips",
        "-d",
        f'[{{"driver_id": 2, "event_timestamp": "{T0.isoformat()}"}}]',
    ]
    told = subprocess.run([*command, "--explain"], capture_output=True, text=True, check=True)
    assert "scan of `lake` at version 0" in told.stdout
    told = subprocess.run(command, capture_output=True, text=True, check=True)
    assert '"trips":20' in told.stdout.replace(" ", "")
