"""Which stored type belongs to a type of Python, Arrow, or a database.

Each store is one table from stored types to the store's own names. What the names have in common
(parameters in parentheses, arrays around them) is taken apart by `_Types`.
"""

from __future__ import annotations

import re
from datetime import UTC
from typing import Any

from feast.value_type import ValueType


class _Types:
    """The types of one store: a table of names, and the brackets it puts around arrays."""

    def __init__(
        self,
        store: str,
        names: dict[str, str],
        array: str | None = None,
        unknown: ValueType | None = ValueType.UNKNOWN,
    ) -> None:
        self._store = store
        self._by_name = {
            name: ValueType[stored] for stored, text in names.items() for name in text.split(", ")
        }
        self._array = re.compile(array) if array else None
        self._unknown = unknown

    def __call__(self, text: str) -> ValueType:
        name = text.strip().lower()
        found = self._array.fullmatch(name) if self._array else None
        if found:
            inner = self._one(found.group(1).strip())
            listed = f"{inner.name}_LIST"
            return ValueType[listed] if listed in ValueType.__members__ else ValueType.VALUE_LIST
        return self._one(name)

    def _one(self, name: str) -> ValueType:
        for candidate in (name, re.split(r"[(<{\[]", name)[0].strip()):
            if candidate in self._by_name:
                return self._by_name[candidate]
        if self._unknown is None:
            raise ValueError(
                f"{self._store} columns of type `{name}` cannot be used; known are "
                + ", ".join(sorted(self._by_name))
            )
        return self._unknown


_ANGLES = r"array<(.+)>"

_BIGQUERY = _Types(
    "BigQuery",
    {
        "INT64": "integer, numeric, int64",
        "DOUBLE": "float, float64",
        "STRING": "string",
        "BYTES": "bytes",
        "BOOL": "bool, boolean",
        "UNIX_TIMESTAMP": "datetime, timestamp",
        "JSON": "json",
        "STRUCT": "struct, record",
        "NULL": "null",
    },
    array=_ANGLES,
    unknown=ValueType.STRING,
)
_REDSHIFT = _Types(
    "Redshift",
    {
        "INT32": "int2, int4",
        "INT64": "int8",
        "FLOAT": "float4",
        "DOUBLE": "float8, numeric",
        "STRING": "character, varchar",
        "BOOL": "bool",
        "UNIX_TIMESTAMP": "timestamp, timestamptz",
        "MAP": "super",
        "JSON": "json",
    },
    unknown=None,
)
_SNOWFLAKE = _Types(
    "Snowflake",
    {
        "INT32": "number32",
        "INT64": "number64",
        "DOUBLE": "numberwscale, double",
        "STRING": "varchar",
        "STRING_LIST": "array",
        "BYTES": "binary",
        "BOOL": "boolean",
        "UNIX_TIMESTAMP": "date, timestamp, timestamp_tz, timestamp_ltz, timestamp_ntz",
        "MAP": "variant, object",
        "JSON": "json",
    },
    unknown=None,
)
_POSTGRES = _Types(
    "PostgreSQL",
    {
        "INT32": "smallint, integer",
        "INT64": "bigint",
        "FLOAT": "real",
        "DOUBLE": "double precision, numeric",
        "STRING": "char, character, character varying, text",
        "BYTES": "bytea",
        "BOOL": "boolean",
        "UNIX_TIMESTAMP": "date, time without time zone, timestamp without time zone, "
        "timestamp with time zone",
        "MAP": "json, jsonb",
        "UUID": "uuid",
    },
    array=r"(.+)\[\]",
)
_SPARK = _Types(
    "Spark",
    {
        "INT32": "int, short, smallint, tinyint",
        "INT64": "bigint, long",
        "FLOAT": "float",
        "DOUBLE": "double, decimal",
        "STRING": "string",
        "BYTES": "byte, binary",
        "BOOL": "boolean",
        "UNIX_TIMESTAMP": "timestamp, date",
        "MAP": "map",
        "STRUCT": "struct",
        "UNKNOWN": "null",
    },
    array=_ANGLES,
    unknown=ValueType.NULL,
)
_TRINO = _Types(
    "Trino",
    {
        "INT32": "tinyint, smallint, int, integer",
        "INT64": "bigint",
        "FLOAT": "real",
        "DOUBLE": "double, decimal",
        "STRING": "char, varchar, date, binary, varbinary, json",
        "BOOL": "boolean",
        "UNIX_TIMESTAMP": "timestamp",
    },
    unknown=None,
)
_ATHENA = _Types(
    "Athena",
    {
        "INT32": "tinyint, smallint, int, integer",
        "INT64": "bigint",
        "FLOAT": "float, real",
        "DOUBLE": "double",
        "DECIMAL": "decimal",
        "STRING": "char, varchar, string, ipaddress",
        "BYTES": "binary, varbinary",
        "BOOL": "boolean",
        "UNIX_TIMESTAMP": "timestamp, timestamp with time zone, time, date",
        "MAP": "map",
        "STRUCT": "struct, row",
        "JSON": "json",
        "UUID": "uuid",
        "UNKNOWN": "null",
    },
    array=r"array[<(\[](.+)[>)\]]",
)
_MSSQL = _Types(
    "SQL Server",
    {
        "INT32": "int, smallint, tinyint",
        "INT64": "bigint",
        "FLOAT": "real",
        "DOUBLE": "float",
        "STRING": "char, nchar, varchar, nvarchar",
        "BYTES": "binary, varbinary",
        "BOOL": "bit",
        "UNIX_TIMESTAMP": "date, datetime, datetime2, datetimeoffset",
        "JSON": "json",
        "NULL": "none",
    },
    unknown=None,
)
_ORACLE = _Types(
    "Oracle",
    {
        "INT32": "int8, int16, int32, integer, smallint",
        "INT64": "int64",
        "FLOAT": "float16, float32, real, binary_float",
        "DOUBLE": "float64, decimal, number, float, double precision, binary_double",
        "STRING": "string, varchar2, nvarchar2, char, nchar, clob, nclob, long",
        "BYTES": "binary, blob, raw, long raw",
        "BOOL": "boolean",
        "UNIX_TIMESTAMP": "timestamp, date, time, interval",
        "NULL": "null",
    },
    unknown=ValueType.STRING,
)
_CLICKHOUSE = _Types(
    "ClickHouse",
    {
        "INT32": "int32",
        "INT64": "int64",
        "FLOAT": "float32",
        "DOUBLE": "float64, decimal",
        "STRING": "string",
        "BOOL": "bool, boolean",
        "UNIX_TIMESTAMP": "datetime, datetime64",
    },
    array=r"array\((.+)\)",
)
_COUCHBASE = _Types(
    "Couchbase",
    {
        "INT64": "bigint",
        "DOUBLE": "double",
        "STRING": "string",
        "BOOL": "boolean",
        "UUID": "uuid",
        "NULL": "null",
    },
    array=_ANGLES,
)
_MONGODB = _Types(
    "MongoDB",
    {
        "INT64": "int, int64",
        "DOUBLE": "float, float64",
        "STRING": "str, string",
        "BYTES": "bytes",
        "BOOL": "bool",
        "UNIX_TIMESTAMP": "datetime",
    },
    array=r"list\[(.+)\]",
)
_ICEBERG = _Types(
    "Iceberg",
    {
        "INT32": "int, date",
        "INT64": "long, timestamp, timestamptz",
        "FLOAT": "float",
        "DOUBLE": "double, decimal",
        "STRING": "string, uuid",
        "BYTES": "binary, fixed",
        "BOOL": "boolean",
    },
)
_ARROW = _Types(
    "Arrow",
    {
        "INT32": "int8, int16, int32, uint8, uint16",
        "INT64": "int64, uint32, uint64",
        "FLOAT": "float, float32, halffloat",
        "DOUBLE": "double, float64",
        "STRING": "string, utf8, string_view, dictionary, str",
        "BYTES": "binary, large_binary, fixed_size_binary, bytes",
        "BOOL": "bool",
        "UNIX_TIMESTAMP": "timestamp, date32, date64",
        "MAP": "map",
        "JSON": "large_string",
        "STRUCT": "struct",
        "NULL": "null",
    },
    array=r"(?:large_|fixed_size_)?list<(?:item|element): (.+)>(?:\[\d+\])?",
    unknown=None,
)


def pa_to_feast_value_type(pa_type_as_str: str) -> ValueType:
    """The stored type of an Arrow type, as Arrow writes it (`list<item: float>`)."""
    inner = _ARROW._array.fullmatch(pa_type_as_str) if _ARROW._array else None
    if inner and _ARROW._array.fullmatch(inner.group(1)):  # type: ignore[union-attr]
        return ValueType.VALUE_LIST
    return _ARROW(re.sub(r" not null\b", "", pa_type_as_str))


def bq_to_feast_value_type(bq_type_as_str: str) -> ValueType:
    """The stored type of a BigQuery type; unknown ones become texts."""
    return _BIGQUERY(bq_type_as_str)


def redshift_to_feast_value_type(redshift_type_as_str: str) -> ValueType:
    """The stored type of a Redshift type."""
    return _REDSHIFT(redshift_type_as_str)


def snowflake_type_to_feast_value_type(snowflake_type: str) -> ValueType:
    """The stored type of a Snowflake type; numbers come with their width (`NUMBER64`)."""
    return _SNOWFLAKE(snowflake_type)


def pg_type_to_feast_value_type(type_str: str) -> ValueType:
    """The stored type of a PostgreSQL type."""
    return _POSTGRES(type_str)


def spark_to_feast_value_type(spark_type_as_str: str) -> ValueType:
    """The stored type of a Spark type; unknown ones become `NULL`."""
    return _SPARK(spark_type_as_str) if isinstance(spark_type_as_str, str) else ValueType.NULL


def trino_to_feast_value_type(trino_type_as_str: str) -> ValueType:
    """The stored type of a Trino type. Decimals of up to 32 digits are single precision."""
    digits = re.fullmatch(r"decimal\((\d+)(?:,\s?\d+)?\)", trino_type_as_str.lower())
    if digits and int(digits.group(1)) <= 32:
        return ValueType.FLOAT
    return _TRINO(trino_type_as_str)


def athena_to_feast_value_type(athena_type_as_str: str) -> ValueType:
    """The stored type of an Athena type."""
    return _ATHENA(athena_type_as_str)


def mssql_to_feast_value_type(mssql_type_as_str: str) -> ValueType:
    """The stored type of a SQL Server type."""
    return _MSSQL(mssql_type_as_str)


def oracle_to_feast_value_type(oracle_type_as_str: str) -> ValueType:
    """The stored type of an Oracle type; unknown ones become texts."""
    return _ORACLE(oracle_type_as_str)


def ch_type_to_feast_value_type(type_str: str) -> ValueType:
    """The stored type of a ClickHouse type."""
    return _CLICKHOUSE(type_str)


def cb_columnar_type_to_feast_value_type(type_str: str) -> ValueType:
    """The stored type of a Couchbase Columnar type."""
    return _COUCHBASE(type_str)


def mongodb_to_feast_value_type(type_str: str) -> ValueType:
    """The stored type of a value in a document."""
    return _MONGODB(type_str)


def iceberg_to_feast_value_type(iceberg_type: str) -> ValueType:
    """The stored type of an Iceberg type."""
    return _ICEBERG(iceberg_type)


# --- values of Python

_PYTHON = {
    name: ValueType[stored]
    for stored, text in {
        "INT32": "int8, int16, int32, uint8, uint16",
        "INT64": "int, int64, uint32, uint64",
        "FLOAT": "float32",
        "DOUBLE": "float, float64",
        "STRING": "str, string, category, str_",
        "BYTES": "bytes, bytes_",
        "BOOL": "bool, bool_, boolean",
        "UNIX_TIMESTAMP": "datetime, timestamp, timedelta, date",
        "UUID": "uuid",
        "DECIMAL": "decimal",
    }.items()
    for name in text.split(", ")
}


def python_type_to_feast_value_type(
    name: str, value: Any = None, recurse: bool = True, type_name: str | None = None
) -> ValueType:
    """The stored type of a value; `type_name` is what numpy or pandas call its type.

    Items of a list or set must agree. Nested collections are refused: declare their type.
    """
    kind = (type_name or type(value).__name__).lower()
    if kind in _PYTHON:
        return _PYTHON[kind]
    if kind.startswith("datetime64"):
        return ValueType.UNIX_TIMESTAMP
    own = type(value).__name__.lower()
    if own in _PYTHON:
        return _PYTHON[own]
    if isinstance(value, dict):
        texts = not value or isinstance(next(iter(value)), str)
        return ValueType.MAP if texts else ValueType.SCALAR_MAP
    is_array = type(value).__module__ == "numpy" and own == "ndarray"
    if is_array and str(value.dtype) in _PYTHON:
        return ValueType[f"{_PYTHON[str(value.dtype)].name}_LIST"]
    if is_array or isinstance(value, (list, tuple, set, frozenset)):
        suffix = "SET" if isinstance(value, (set, frozenset)) else "LIST"
        if not recurse:
            raise ValueError(
                f"the type of `{name}` cannot be inferred from a nested collection; declare it, for "
                "instance as `Array(Array(Int64))`"
            )
        inner = {python_type_to_feast_value_type(name, value=one, recurse=False) for one in value}
        if len(inner) > 1:
            kinds = ", ".join(sorted(one.name for one in inner))
            raise ValueError(f"the items of `{name}` have different types: {kinds}")
        return ValueType[f"{inner.pop().name}_{suffix}"] if inner else ValueType.UNKNOWN
    if value is None:
        return ValueType.NULL
    raise ValueError(f"the type of `{name}` cannot be inferred from a {type(value).__name__}")


def python_values_to_feast_value_type(name: str, values: Any, recurse: bool = True) -> ValueType:
    """The stored type that all values of a column share; nulls fit every type."""
    found = {python_type_to_feast_value_type(name, value=one, recurse=recurse) for one in values}
    found -= {ValueType.NULL, ValueType.UNKNOWN}
    if len(found) > 1:
        kinds = ", ".join(sorted(one.name for one in found))
        raise TypeError(f"the values of `{name}` have different types: {kinds}")
    if not found:
        raise ValueError(f"the type of `{name}` cannot be inferred: all its values are null")
    return found.pop()


def sample_value(value_type: ValueType) -> Any:
    """A made-up value of a stored type, for trying out a function; nothing if there is none."""
    import uuid
    from datetime import datetime
    from decimal import Decimal

    samples = {
        "BYTES": b"hello world",
        "STRING": "hello world",
        "INT32": 1,
        "INT64": 1,
        "DOUBLE": 1.0,
        "FLOAT": 1.0,
        "BOOL": True,
        "UNIX_TIMESTAMP": datetime.now(tz=UTC),
        "ZONED_TIMESTAMP": datetime.now(tz=UTC),
        "UUID": uuid.uuid4(),
        "TIME_UUID": uuid.uuid1(),
        "DECIMAL": Decimal("1.0"),
        "MAP": {"key": "value"},
        "SCALAR_MAP": {1: "value"},
        "JSON": "{}",
        "STRUCT": {"_value": "value"},
        "PDF_BYTES": b"%PDF-1.4\n%%EOF\n",
        "IMAGE_BYTES": b"\xff\xd8\xff\xd9",
    }
    base, _, suffix = value_type.name.rpartition("_")
    if suffix in ("LIST", "SET") and base in samples:
        return [samples[base]] if suffix == "LIST" else {samples[base]}
    return samples.get(value_type.name)
