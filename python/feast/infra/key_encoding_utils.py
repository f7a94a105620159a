"""The bytes by which online stores know an entity, for scripts that look into a store themselves.

The engine has its own encoder; a test holds both to the same bytes. This is version 3, the current one: the number of join
keys, their names in order of code points, then the values in that order; every number is little-endian.
"""

from __future__ import annotations

import struct

from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value, ValueType

__all__ = ["deserialize_entity_key", "serialize_entity_key", "serialize_entity_key_prefix"]

# Types of join keys: the field of `Value`, the number of the type, and the form of fixed width.
_TYPES = {
    "string_val": (ValueType.STRING, None),
    "bytes_val": (ValueType.BYTES, None),
    "int32_val": (ValueType.INT32, "<i"),
    "int64_val": (ValueType.INT64, "<q"),
    "unix_timestamp_val": (ValueType.UNIX_TIMESTAMP, "<q"),
}
_FIELDS = {number: (field, form) for field, (number, form) in _TYPES.items()}


def serialize_entity_key(entity_key: EntityKey, entity_key_serialization_version: int = 3) -> bytes:
    """The bytes of an entity key. The type of a value is part of them: an `int32` 1 is another key than an `int64` 1."""
    pairs = sorted(
        zip(entity_key.join_keys, entity_key.entity_values, strict=True), key=lambda pair: pair[0]
    )
    names = [name for name, _ in pairs]
    return serialize_entity_key_prefix(names, entity_key_serialization_version) + b"".join(
        _value(value) for _, value in pairs
    )


def serialize_entity_key_prefix(
    entity_keys: list[str], entity_key_serialization_version: int = 3
) -> bytes:
    """With what the bytes of all entities with these join keys begin."""
    _check(entity_key_serialization_version)
    parts = [struct.pack("<I", len(entity_keys))]
    for name in sorted(entity_keys):
        encoded = name.encode()
        parts += [struct.pack("<II", ValueType.STRING, len(encoded)), encoded]
    return b"".join(parts)


def deserialize_entity_key(
    serialized_entity_key: bytes, entity_key_serialization_version: int = 3
) -> EntityKey:
    """The entity key of some bytes; raises ValueError when they are none."""
    _check(entity_key_serialization_version)
    rest = memoryview(serialized_entity_key)

    def take(length: int) -> bytes:
        nonlocal rest
        if length > len(rest):
            raise ValueError("the bytes end in the middle of an entity key")
        taken, rest = bytes(rest[:length]), rest[length:]
        return taken

    def number() -> int:
        return int.from_bytes(take(4), "little")

    names, values = [], []
    for _ in range(number()):
        if (kind := number()) != ValueType.STRING:
            raise ValueError(f"the name of a join key has the type {kind}, expected a string")
        names.append(take(number()).decode())
    for _ in names:
        kind, data = number(), take(number())
        if kind not in _FIELDS:
            raise ValueError(f"a value of an entity key has the type {kind}, which no join key has")
        field, form = _FIELDS[kind]
        value = data.decode() if field == "string_val" else data
        values.append(Value(**{field: struct.unpack(form, data)[0] if form else value}))
    if rest:
        raise ValueError(f"{len(rest)} bytes follow an entity key")
    return EntityKey(join_keys=names, entity_values=values)


def _value(value: Value) -> bytes:
    field = value.WhichOneof("val")
    if field not in _TYPES:
        raise ValueError(f"a join key cannot be a value of `{field or 'no type'}`")
    number, form = _TYPES[field]
    held = getattr(value, field)
    if form:
        data = struct.pack(form, held)
    else:
        data = held.encode() if isinstance(held, str) else held
    return struct.pack("<II", number, len(data)) + data


def _check(version: int) -> None:
    if version != 3:
        raise ValueError(
            f"entity keys of version {version} are not written here; 3 is the current one"
        )
