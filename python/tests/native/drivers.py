"""The objects and times of the drivers that the tests of the engine use."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from feast import Entity, FeatureService, FeatureView, Field, FileSource, PushSource
from feast.types import Float32, Int64, String

T0 = datetime(2026, 11, 20, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


def write_repository(folder: Path) -> Path:
    """Writes a configuration and the data of the drivers into a folder."""
    rows = [
        (1001, T0 - 2 * HOUR, T0 - 2 * HOUR, 0.1, 10, "a"),
        (1001, T0, T0, 0.2, 20, "b"),
        (1001, T0, T0 + timedelta(minutes=1), 0.3, 30, "c"),
        (1002, T0 - HOUR, T0, 0.4, 40, None),
        (1003, T0 - 72 * HOUR, T0, 0.5, 50, "e"),
    ]
    names = ["driver_id", "event_timestamp", "created", "conv_rate", "trips", "city"]
    table = pa.table({name: [row[at] for row in rows] for at, name in enumerate(names)})
    pq.write_table(table, folder / "stats.parquet")
    pq.write_table(table, folder / "pushed.parquet")
    (folder / "feature_store.yaml").write_text(
        "project: proj\nregistry: registry.db\nonline_store:\n  type: sqlite\n  path: online.db\n"
    )
    return folder


def definitions() -> dict[str, object]:
    """The objects of the feature store, by name."""
    driver = Entity(name="driver", join_keys=["driver_id"])
    schema = [
        Field(name="driver_id", dtype=Int64),
        Field(name="conv_rate", dtype=Float32),
        Field(name="trips", dtype=Int64),
        Field(name="city", dtype=String),
    ]

    def source(name: str) -> FileSource:
        return FileSource(
            name=name,
            path=f"{name}.parquet",
            timestamp_field="event_timestamp",
            created_timestamp_column="created",
        )

    stats = FeatureView(
        name="driver_stats",
        entities=[driver],
        ttl=timedelta(days=1),
        schema=schema,
        source=source("stats"),
        tags={"team": "rides"},
    )
    pushed = FeatureView(
        name="driver_push",
        entities=[driver],
        ttl=timedelta(0),
        schema=schema,
        source=PushSource(name="push", batch_source=source("pushed")),
    )
    service = FeatureService(name="model", features=[stats[["conv_rate", "trips"]]])
    return {"driver": driver, "driver_stats": stats, "driver_push": pushed, "model": service}
