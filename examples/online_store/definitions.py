"""One feature view over the rows of `make_data.py`."""

from feast import Entity, FeatureView, Field, FileSource, ValueType
from feast.types import Int64

driver = Entity(name="driver", join_keys=["driver_id"], value_type=ValueType.INT64)
driver_trips = FeatureView(
    name="driver_trips",
    entities=[driver],
    schema=[Field(name="trips", dtype=Int64)],
    source=FileSource(name="trips", path="data/trips.parquet", timestamp_field="event_timestamp"),
)
