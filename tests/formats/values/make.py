"""Writes values.tsv: serialized values of every type, made by Feast, as `type <tab> hex <tab> JSON of its HTTP server`.

Run with the Python of an environment that has feast==0.67.0: python make.py > values.tsv
"""

import json
import sys
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from uuid import UUID
from zoneinfo import ZoneInfo

import numpy
from feast import ValueType
from feast.feature_server_utils import _value_to_native
from feast.protos.feast.types.Value_pb2 import Value
from feast.type_map import python_values_to_proto_values

noon = datetime(2026, 11, 20, 12, tzinfo=UTC)
uuids = [UUID("12345678-1234-5678-1234-567812345678"), UUID("00000000-0000-0000-0000-000000000001")]
samples = {
    "BYTES": [b"", b"\x00\xff"],
    "STRING": ["", "abc", "é"],
    "INT32": [0, -1, 2**31 - 1],
    "INT64": [0, 7, -1, 2**63 - 1, -(2**63)],
    "DOUBLE": [0.0, 0.5, float("inf"), float("nan")],
    "FLOAT": [0.0, 0.5, 0.3],
    "BOOL": [True, False],
    "UNIX_TIMESTAMP": [noon, datetime(1969, 12, 31, 23, 59, 59, tzinfo=UTC)],
    "BYTES_LIST": [[b"a", b""]],
    "STRING_LIST": [["a", "b"]],
    "INT32_LIST": [[1, -1]],
    "INT64_LIST": [[1, 300, -5]],
    "DOUBLE_LIST": [[0.5, -1.0]],
    "FLOAT_LIST": [[1.0, 2.0]],
    "BOOL_LIST": [[True, False]],
    "UNIX_TIMESTAMP_LIST": [[noon, noon + timedelta(seconds=1)]],
    "BYTES_SET": [{b"a"}],
    "STRING_SET": [{"a"}],
    "INT32_SET": [{1}],
    "INT64_SET": [{300}],
    "DOUBLE_SET": [{0.5}],
    "FLOAT_SET": [{0.5}],
    "BOOL_SET": [{True}],
    "UNIX_TIMESTAMP_SET": [{noon}],
    "JSON": [{"a": [1, 2]}],
    "JSON_LIST": [['{"a": 1}', "[]"]],
    "UUID": uuids,
    "TIME_UUID": uuids[:1],
    "UUID_LIST": [uuids],
    "TIME_UUID_LIST": [uuids],
    "UUID_SET": [{uuids[0]}],
    "TIME_UUID_SET": [{uuids[0]}],
    "DECIMAL": [Decimal("12.50")],
    "DECIMAL_LIST": [[Decimal("1.5"), Decimal(-2)]],
    "DECIMAL_SET": [{Decimal("1.5")}],
    "MAP": [{"a": 1}, {"n": {"x": "y"}}, {"l": [1, 2]}, {"d": [{"k": 0.5}]}, {"z": None}, {}],
    "MAP_LIST": [[{"a": 1}, {"b": "c"}]],
    "STRUCT": [{"a": 1}],
    "STRUCT_LIST": [[{"a": 1}, {"a": 2}]],
    "VALUE_LIST": [[[1, 2], [3]], [["a"], []]],
    "VALUE_SET": [[[1, 2]]],
    "SCALAR_MAP": [{1: "a"}, {True: 0.5}, {noon: 1}, {b"k": 1}, {uuids[0]: 1}, {Decimal("1.5"): 1}],
    "ZONED_TIMESTAMP": [
        noon,
        noon.astimezone(ZoneInfo("Europe/Paris")),
        noon.astimezone(timezone(timedelta(hours=5, minutes=30))),
    ],
}
for name, values in samples.items():
    for value in values:
        [proto] = python_values_to_proto_values([value], ValueType[name])
        if name == "FLOAT":
            proto = Value(float_val=numpy.float32(value))
        if name == "BYTES":
            proto = Value(bytes_val=value)
        text = json.dumps(_value_to_native(proto), ensure_ascii=False)
        print(name, proto.SerializeToString().hex(), text, sep="\t", file=sys.stdout)
