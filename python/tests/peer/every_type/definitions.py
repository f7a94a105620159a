"""A view with a feature of every type that a column of a Parquet file can hold.

Run by our package and by Feast's.
"""

from datetime import timedelta

from feast import Entity, FeatureService, FeatureView, Field, FileSource, PushSource, ValueType
from feast.types import (
    Array,
    Bool,
    Bytes,
    Decimal,
    Float32,
    Float64,
    Int32,
    Int64,
    Json,
    Map,
    Set,
    String,
    Struct,
    UnixTimestamp,
    Uuid,
)

TYPES = {
    "a_bytes": Bytes,
    "a_string": String,
    "an_int32": Int32,
    "an_int64": Int64,
    "a_double": Float64,
    "a_float": Float32,
    "a_bool": Bool,
    "a_time": UnixTimestamp,
    "some_bytes": Array(Bytes),
    "some_strings": Array(String),
    "some_int32": Array(Int32),
    "some_int64": Array(Int64),
    "some_doubles": Array(Float64),
    "some_floats": Array(Float32),
    "some_bools": Array(Bool),
    "some_times": Array(UnixTimestamp),
    "a_json": Json,
    "a_uuid": Uuid,
    "a_decimal": Decimal,
    "a_map": Map,
    "a_struct": Struct({"x": Int64, "y": String}),
    "a_string_set": Set(String),
    "an_int_set": Set(Int64),
}

key = Entity(name="thing", join_keys=["thing_id"], value_type=ValueType.INT64)

source = FileSource(
    name="things",
    path="data/things.parquet",
    timestamp_field="event_timestamp",
    created_timestamp_column="created",
)

every_type = FeatureView(
    name="every_type",
    entities=[key],
    ttl=timedelta(days=0),
    schema=[Field(name=name, dtype=dtype) for name, dtype in TYPES.items()],
    source=source,
    tags={"team": "interop"},
    description="one feature of every type",
)

fresh = PushSource(name="fresh", batch_source=source)

pushed = FeatureView(
    name="pushed",
    entities=[key],
    ttl=timedelta(days=2),
    schema=[Field(name="an_int64", dtype=Int64), Field(name="a_string", dtype=String)],
    source=fresh,
)

service = FeatureService(
    name="service", features=[every_type[["a_string", "a_double"]], pushed[["an_int64"]]]
)
