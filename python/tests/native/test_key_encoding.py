"""The bytes of entity keys that Python makes are those that the engine stores."""

from __future__ import annotations

import sqlite3

import pytest
from drivers import T0

from feast import Entity, FeatureStore, FeatureView, Field, FileSource, PushSource, ValueType
from feast.infra.key_encoding_utils import (
    deserialize_entity_key,
    serialize_entity_key,
    serialize_entity_key_prefix,
)
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from feast.types import Int32, Int64, String

KEYS = {
    "a_text": ("string_val", "é", ValueType.STRING, String),
    "Z_large": ("int64_val", -(2**62), ValueType.INT64, Int64),
    "é_small": ("int32_val", 7, ValueType.INT32, Int32),
}


def entity_key() -> EntityKey:
    values = [Value(**{field: value}) for field, value, _, _ in KEYS.values()]
    return EntityKey(join_keys=list(KEYS), entity_values=values)


def test_a_key_of_feast_is_the_same_bytes() -> None:
    key = EntityKey(join_keys=["driver_id"], entity_values=[Value(int64_val=1001)])
    name, value = b"driver_id".hex(), "e903000000000000"
    expected = f"010000000200000009000000{name}0400000008000000{value}"
    assert serialize_entity_key(key).hex() == expected
    assert expected.startswith(serialize_entity_key_prefix(["driver_id"]).hex())


def test_what_the_engine_stores_is_what_is_computed(
    store: FeatureStore,
) -> None:
    entities = [
        Entity(name=name, join_keys=[name], value_type=kind)
        for name, (_, _, kind, _) in KEYS.items()
    ]
    history = FileSource(name="history", path="pushed.parquet", timestamp_field="event_timestamp")
    view = FeatureView(
        name="keyed",
        entities=entities,
        schema=[
            *(Field(name=name, dtype=dtype) for name, (_, _, _, dtype) in KEYS.items()),
            Field(name="x", dtype=Int64),
        ],
        source=PushSource(name="keys", batch_source=history),
    )
    store.apply([*entities, view], skip_feature_view_validation=True)
    row = {name: [value] for name, (_, value, _, _) in KEYS.items()}
    store.push("keys", row | {"x": [1], "event_timestamp": [T0]})
    with sqlite3.connect(f"{store.repo_path}/online.db") as database:
        ((stored,),) = database.execute("SELECT DISTINCT entity_key FROM proj_keyed").fetchall()
    assert serialize_entity_key(entity_key()) == stored
    read = deserialize_entity_key(stored)
    assert dict(zip(read.join_keys, read.entity_values, strict=True)) == dict(
        zip(KEYS, entity_key().entity_values, strict=True)
    )


@pytest.mark.parametrize("wrong", [b"", b"\x01", b"\x01\0\0\0\x09\0\0\0", b"\0\0\0\0x"])
def test_bytes_that_are_no_key_are_refused(wrong: bytes) -> None:
    with pytest.raises(ValueError):
        deserialize_entity_key(wrong)


def test_what_is_no_join_key_is_refused() -> None:
    with pytest.raises(ValueError, match="`double_val`"):
        serialize_entity_key(EntityKey(join_keys=["a"], entity_values=[Value(double_val=1.0)]))
    with pytest.raises(ValueError, match="version 2"):
        serialize_entity_key(entity_key(), 2)
