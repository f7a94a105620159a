"""Writes online.db, a SQLite online store with a feature of every type, by Feast; with `check <file>` reads such a file.

Run with the Python of an environment that has feast==0.67.0, in UTC: TZ=UTC python make.py

    python make.py             writes online.db beside this script
    python make.py check FILE  reads the same view from FILE, which another program wrote, and prints what differs
"""

import sys
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from uuid import UUID
from zoneinfo import ZoneInfo

from feast import RepoConfig, ValueType
from feast.infra.online_stores.sqlite import SqliteOnlineStore
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from feast.type_map import python_values_to_proto_values

noon = datetime(2026, 11, 20, 12, tzinfo=UTC)
uuid = UUID("12345678-1234-5678-1234-567812345678")
samples = {
    "BYTES": b"\x00\xff",
    "STRING": "é",
    "INT32": -1,
    "INT64": 1001,
    "DOUBLE": 0.5,
    "FLOAT": 0.5,
    "BOOL": True,
    "UNIX_TIMESTAMP": noon,
    "BYTES_LIST": [b"a", b""],
    "STRING_LIST": ["a", "b"],
    "INT32_LIST": [1, -1],
    "INT64_LIST": [1, 300],
    "DOUBLE_LIST": [0.5],
    "FLOAT_LIST": [1.0, 2.0],
    "BOOL_LIST": [True, False],
    "UNIX_TIMESTAMP_LIST": [noon],
    "BYTES_SET": {b"a"},
    "STRING_SET": {"a"},
    "INT32_SET": {1},
    "INT64_SET": {300},
    "DOUBLE_SET": {0.5},
    "FLOAT_SET": {0.5},
    "BOOL_SET": {True},
    "UNIX_TIMESTAMP_SET": {noon},
    "JSON": {"a": [1, 2]},
    "JSON_LIST": ['{"a": 1}'],
    "UUID": uuid,
    "TIME_UUID": uuid,
    "UUID_LIST": [uuid],
    "TIME_UUID_LIST": [uuid],
    "UUID_SET": {uuid},
    "TIME_UUID_SET": {uuid},
    "DECIMAL": Decimal("12.50"),
    "DECIMAL_LIST": [Decimal("1.5")],
    "DECIMAL_SET": {Decimal("1.5")},
    "MAP": {"a": 1},
    "MAP_LIST": [{"a": 1}],
    "STRUCT": {"a": 1},
    "STRUCT_LIST": [{"a": 1}],
    "VALUE_LIST": [[1, 2], [3]],
    "VALUE_SET": [[1, 2]],
    "SCALAR_MAP": {1: "a"},
    "ZONED_TIMESTAMP": noon.astimezone(ZoneInfo("Europe/Paris")),
}
here = Path(__file__).parent


def config(path):
    return RepoConfig(
        project="formats",
        provider="local",
        registry=str(here / "unused.db"),
        online_store={"type": "sqlite", "path": str(path)},
        entity_key_serialization_version=3,
    )


class Table:
    """What the store asks of a feature view; a real one would have to know the types of its features in advance."""

    name = "types"
    projection = None
    features = []


def keys():
    return [EntityKey(join_keys=["id"], entity_values=[Value(int64_val=number)]) for number in (1, 2, 3)]


def rows():
    """A row of values, one of nulls; key 3 has none."""
    full = {name: python_values_to_proto_values([value], ValueType[name])[0] for name, value in samples.items()}
    empty = {name: Value() for name in samples}
    return [(keys()[0], full, noon, noon + timedelta(minutes=1)), (keys()[1], empty, noon - timedelta(hours=1), None)]


if sys.argv[1:2] == ["check"]:
    answers = SqliteOnlineStore().online_read(config(Path(sys.argv[2]).absolute()), Table(), keys())
    expected = [(row[2], row[1]) for row in rows()] + [(None, None)]
    differences = [(answer, wanted) for answer, wanted in zip(answers, expected, strict=True) if answer != wanted]
    print(differences or "the same")
    sys.exit(1 if differences else 0)
else:
    path = here / "online.db"
    path.unlink(missing_ok=True)
    store = SqliteOnlineStore()
    store.update(config(path), [], [Table()], [], [], False)
    store.online_write_batch(config(path), Table(), rows(), None)
    # Feast before value_text: the same table without that column.
    connection = store._get_conn(config(path))
    connection.execute(
        "CREATE TABLE formats_old (entity_key BLOB, feature_name TEXT, value BLOB, vector_value BLOB, "
        "event_ts timestamp, created_ts timestamp, PRIMARY KEY(entity_key, feature_name))"
    )
    connection.execute(
        "INSERT INTO formats_old SELECT entity_key, feature_name, value, vector_value, event_ts, created_ts "
        "FROM formats_types"
    )
    connection.commit()
    connection.close()
