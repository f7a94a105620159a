"""The types of features, entities and request fields.

    >>> from feast.types import Array, Float32, Int64, Struct
    >>> str(Array(Float32))
    'Array(Float32)'
    >>> Struct({"lat": Float32, "lon": Float32}).to_value_type().name
    'STRUCT'

A primitive type is a member of `PrimitiveFeastType`, with a short name of its own (`Int64`).
`Array`, `Set` and `Struct` are built from other types. Arrow is imported only by
`from_feast_to_pyarrow_type`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from enum import Enum
from typing import TYPE_CHECKING, Any, Union

from feast.value_type import ValueType

if TYPE_CHECKING:
    import pyarrow


class PrimitiveFeastType(Enum):
    """A type without parts."""

    INVALID = 0
    BYTES = 1
    STRING = 2
    INT32 = 3
    INT64 = 4
    FLOAT64 = 5
    FLOAT32 = 6
    BOOL = 7
    UNIX_TIMESTAMP = 8
    PDF_BYTES = 9
    IMAGE_BYTES = 10
    MAP = 11
    JSON = 12
    UUID = 13
    TIME_UUID = 14
    DECIMAL = 15
    SCALAR_MAP = 16
    ZONED_TIMESTAMP = 17

    def to_value_type(self) -> ValueType:
        """The type under which values of this type are stored."""
        return ValueType[PRIMITIVE_FEAST_TYPES_TO_VALUE_TYPES[self.name]]

    def __str__(self) -> str:
        return PRIMITIVE_FEAST_TYPES_TO_STRING[self.name]


# Stored types have mostly the same names; these are the others.
_RENAMED = {"INVALID": "UNKNOWN", "FLOAT64": "DOUBLE", "FLOAT32": "FLOAT"}

PRIMITIVE_FEAST_TYPES_TO_VALUE_TYPES: dict[str, str] = {
    one.name: _RENAMED.get(one.name, one.name) for one in PrimitiveFeastType
}
PRIMITIVE_FEAST_TYPES_TO_STRING: dict[str, str] = {
    one.name: "".join(part.capitalize() for part in one.name.split("_"))
    for one in PrimitiveFeastType
}

Invalid = PrimitiveFeastType.INVALID
Bytes = PrimitiveFeastType.BYTES
PdfBytes = PrimitiveFeastType.PDF_BYTES
ImageBytes = PrimitiveFeastType.IMAGE_BYTES
String = PrimitiveFeastType.STRING
Bool = PrimitiveFeastType.BOOL
Int32 = PrimitiveFeastType.INT32
Int64 = PrimitiveFeastType.INT64
Float32 = PrimitiveFeastType.FLOAT32
Float64 = PrimitiveFeastType.FLOAT64
UnixTimestamp = PrimitiveFeastType.UNIX_TIMESTAMP
Map = PrimitiveFeastType.MAP
Json = PrimitiveFeastType.JSON
Uuid = PrimitiveFeastType.UUID
TimeUuid = PrimitiveFeastType.TIME_UUID
Decimal = PrimitiveFeastType.DECIMAL
ScalarMap = PrimitiveFeastType.SCALAR_MAP
ZonedTimestamp = PrimitiveFeastType.ZONED_TIMESTAMP

# A map with keys other than texts cannot be an item of a collection.
SUPPORTED_BASE_TYPES: list[PrimitiveFeastType] = [
    one for one in PrimitiveFeastType if one is not ScalarMap
]


class ComplexFeastType(ABC):
    """A type built from other types."""

    @abstractmethod
    def to_value_type(self) -> ValueType:
        """The type under which values of this type are stored."""

    def __hash__(self) -> int:
        return hash(str(self))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ComplexFeastType):
            return False
        return self.to_value_type() == other.to_value_type()

    def __repr__(self) -> str:
        return str(self)


class _Collection(ComplexFeastType):
    """Values of one type: what lists and sets have in common."""

    _suffix: str
    _excluded: tuple[PrimitiveFeastType, ...]

    base_type: FeastType

    def __init__(self, base_type: FeastType) -> None:
        if isinstance(base_type, ComplexFeastType):
            allowed = self._holds(base_type)
        else:
            allowed = base_type in SUPPORTED_BASE_TYPES and base_type not in self._excluded
        if not allowed:
            kind = type(self).__name__
            shown = (
                base_type
                if isinstance(base_type, (PrimitiveFeastType, ComplexFeastType))
                else repr(base_type)
            )
            names = ", ".join(
                str(one) for one in SUPPORTED_BASE_TYPES[1:] if one not in self._excluded
            )
            raise ValueError(
                f"`{kind}({shown})`: items of {kind} cannot be of type {shown}; "
                f"possible are {names} and nested collections"
            )
        self.base_type = base_type

    def _holds(self, base_type: ComplexFeastType) -> bool:
        return isinstance(base_type, _Collection)

    def to_value_type(self) -> ValueType:
        """The list or set type that belongs to the type of the items."""
        if isinstance(self.base_type, _Collection):
            return ValueType[f"VALUE_{self._suffix}"]
        name = f"{self.base_type.to_value_type().name}_{self._suffix}"
        if name not in ValueType.__members__:
            raise ValueError(f"`{self}`: no stored type `{name}` exists; use String or Bytes items")
        return ValueType[name]

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.base_type == other.base_type

    def __hash__(self) -> int:
        return hash((type(self).__name__, self.base_type))

    def __str__(self) -> str:
        return f"{type(self).__name__}({self.base_type})"


class Array(_Collection):
    """A list of values of one type."""

    _suffix = "LIST"
    _excluded = (ZonedTimestamp,)

    def __init__(self, base_type: FeastType) -> None:
        super().__init__(base_type)

    def _holds(self, base_type: ComplexFeastType) -> bool:
        return isinstance(base_type, (_Collection, Struct))


class Set(_Collection):
    """Distinct values of one type, in no particular order."""

    _suffix = "SET"
    _excluded = (Map, ZonedTimestamp)

    def __init__(self, base_type: FeastType) -> None:
        super().__init__(base_type)


class Struct(ComplexFeastType):
    """Named parts, each with its own type."""

    fields: dict[str, FeastType]

    def __init__(self, fields: dict[str, FeastType]) -> None:
        if not fields:
            raise ValueError(
                '`Struct` needs at least one part; write for instance `Struct({"x": Int64})`'
            )
        self.fields = fields

    def to_value_type(self) -> ValueType:
        """Always `STRUCT`; the parts are kept beside it, see `Field.to_proto`."""
        return ValueType.STRUCT

    def to_pyarrow_type(self) -> pyarrow.DataType:
        """The Arrow struct with the same parts."""
        import pyarrow

        return pyarrow.struct(
            [
                pyarrow.field(name, from_feast_to_pyarrow_type(one))
                for name, one in self.fields.items()
            ]
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Struct) and self.fields == other.fields

    def __hash__(self) -> int:
        return hash(
            ("Struct", tuple(sorted((name, hash(one)) for name, one in self.fields.items())))
        )

    def __str__(self) -> str:
        return "Struct({" + ", ".join(f"{name}: {one}" for name, one in self.fields.items()) + "})"


FeastType = Union[ComplexFeastType, PrimitiveFeastType]


def _stored_types() -> dict[ValueType, FeastType]:
    """Each stored type that says everything about its values, with the type that it stores."""
    table: dict[ValueType, FeastType] = {}
    for primitive in PrimitiveFeastType:
        table[primitive.to_value_type()] = primitive
    for kind in (Array, Set):
        for primitive in SUPPORTED_BASE_TYPES:
            name = f"{primitive.to_value_type().name}_{kind._suffix}"
            if name in ValueType.__members__:
                table[ValueType[name]] = kind(primitive)
    return table


VALUE_TYPES_TO_FEAST_TYPES: dict[ValueType, FeastType] = _stored_types()

_VECTORS = ("BYTES_LIST", "INT32_LIST", "INT64_LIST", "FLOAT_LIST", "BOOL_LIST", "MAP_LIST")
FEAST_VECTOR_TYPES: list[ValueType | FeastType] = [
    *(ValueType[name] for name in _VECTORS),
    *(VALUE_TYPES_TO_FEAST_TYPES[ValueType[name]] for name in _VECTORS),
]

# What a stored struct or nested collection becomes when its inner types were not recorded.
_UNDESCRIBED: dict[ValueType, FeastType] = {
    ValueType.STRUCT: Struct({"_value": String}),
    ValueType.STRUCT_LIST: Array(Struct({"_value": String})),
    ValueType.VALUE_LIST: Array(Array(String)),
    ValueType.VALUE_SET: Set(Array(String)),
}


def from_value_type(value_type: ValueType) -> FeastType:
    """The type whose values are stored under `value_type`.

    Structs and nested collections lose their parts in a stored type; they come back with texts.
    """
    if value_type in VALUE_TYPES_TO_FEAST_TYPES:
        return VALUE_TYPES_TO_FEAST_TYPES[value_type]
    if value_type in _UNDESCRIBED:
        return _UNDESCRIBED[value_type]
    raise ValueError(f"no feature type belongs to the stored type `{value_type}`")


def from_feast_type(feast_type: FeastType) -> ValueType:
    """The stored type of a type; the inverse of `from_value_type`."""
    if not isinstance(feast_type, (PrimitiveFeastType, ComplexFeastType)):
        raise ValueError(
            f"expected a type of `feast.types`, found `{feast_type!r}` ({type(feast_type).__name__})"
        )
    return feast_type.to_value_type()


def _arrow_primitives() -> dict[PrimitiveFeastType, Any]:
    import pyarrow

    return {
        Bytes: pyarrow.binary(),
        PdfBytes: pyarrow.binary(),
        ImageBytes: pyarrow.binary(),
        String: pyarrow.string(),
        Bool: pyarrow.bool_(),
        Int32: pyarrow.int32(),
        Int64: pyarrow.int64(),
        Float32: pyarrow.float32(),
        Float64: pyarrow.float64(),
        UnixTimestamp: pyarrow.timestamp("us", tz="UTC"),
        ZonedTimestamp: pyarrow.timestamp("us", tz="UTC"),
        Map: pyarrow.map_(pyarrow.string(), pyarrow.string()),
        Json: pyarrow.large_string(),
        Uuid: pyarrow.string(),
        TimeUuid: pyarrow.string(),
        Decimal: pyarrow.string(),
    }


def from_feast_to_pyarrow_type(feast_type: FeastType) -> pyarrow.DataType:
    """The Arrow type of a column with values of `feast_type` (needs pyarrow)."""
    import pyarrow

    if isinstance(feast_type, Struct):
        return feast_type.to_pyarrow_type()
    if isinstance(feast_type, _Collection):
        return pyarrow.list_(from_feast_to_pyarrow_type(feast_type.base_type))
    known = _arrow_primitives()
    if feast_type not in known:
        raise ValueError(f"columns of type `{feast_type}` have no Arrow type")
    return known[feast_type]  # type: ignore[index]


def __getattr__(name: str) -> Any:
    # The table needs pyarrow, so that it is built on the first look.
    if name == "FEAST_TYPES_TO_PYARROW_TYPES":
        table = _arrow_primitives()
        globals()[name] = table
        return table
    raise AttributeError(f"module `{__name__}` has no attribute `{name}`")
