"""What taxis report while they drive: pushed as it happens, and kept for training."""

from datetime import timedelta

from feast import Entity, FeatureView, Field, FileSource, PushSource
from feast.types import Float32, Int64, String

taxi = Entity(name="taxi", join_keys=["taxi_id"])

reports = PushSource(
    name="taxi_reports",
    batch_source=FileSource(
        name="taxi_history",
        # A directory: each push adds a file to it, and small files are merged now and then.
        path="data/history",
        timestamp_field="event_timestamp",
    ),
)

taxi_state = FeatureView(
    name="taxi_state",
    entities=[taxi],
    ttl=timedelta(hours=1),
    schema=[
        Field(name="taxi_id", dtype=Int64),
        Field(name="speed", dtype=Float32),
        Field(name="passengers", dtype=Int64),
        Field(name="zone", dtype=String),
    ],
    source=reports,
)
