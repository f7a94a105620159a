"""`Field`: a named, typed column of a view, a request or an entity key."""

from __future__ import annotations

from typing import Any

from feast._definition import Definition, check_text, checked_texts, kind_of
from feast.feature import Feature
from feast.types import (
    Array,
    ComplexFeastType,
    FeastType,
    PrimitiveFeastType,
    Set,
    Struct,
    from_value_type,
)
from feast.value_type import ValueType

# The stored type of a struct or of a nested collection does not say what is inside. These tags
# do, and are hidden from `Field.tags`.
STRUCT_SCHEMA_TAG = "feast:struct_schema"
NESTED_COLLECTION_INNER_TYPE_TAG = "feast:nested_inner_type"
_HIDDEN_TAGS = (STRUCT_SCHEMA_TAG, NESTED_COLLECTION_INNER_TYPE_TAG)


class Field(Definition):
    """A column: name, type and, for embeddings, how it is searched.

    `vector_length` is the number of dimensions (0: not given). `vector_search_metric` is one that
    the online store knows, such as `cosine` or `L2`.
    """

    _compared = (
        "name",
        "dtype",
        "description",
        "tags",
        "vector_index",
        "vector_length",
        "vector_search_metric",
    )

    def __init__(
        self,
        *,
        name: str,
        dtype: FeastType,
        description: str = "",
        tags: dict[str, str] | None = None,
        vector_index: bool = False,
        vector_length: int = 0,
        vector_search_metric: str | None = None,
    ) -> None:
        check_text("a field", "name", name)
        where = f"field `{name}`"
        if not isinstance(dtype, (PrimitiveFeastType, ComplexFeastType)):
            raise TypeError(
                f"{where}: `dtype` must be a type of `feast.types`, but is {kind_of(dtype)}{_advice(dtype)}"
            )
        check_text(where, "description", description)
        self.name = name
        self.dtype = dtype
        self.description = description
        self.tags = checked_texts(where, "tags", tags)
        self.vector_index = vector_index
        self.vector_length = vector_length
        self.vector_search_metric = vector_search_metric or None

    def __hash__(self) -> int:
        return hash((self.name, self.dtype))

    def __str__(self) -> str:
        return f"Field(name={self.name}, dtype={self.dtype}, tags={self.tags})"

    def to_proto(self) -> Any:
        """The message `feast.core.FeatureSpecV2`."""
        from feast.protos.feast.core.Feature_pb2 import FeatureSpecV2

        # Repositories have tens of thousands of fields, most of which say no more than name and type.
        said: dict[str, Any] = {}
        if self.description:
            said["description"] = self.description
        if tags := {**self.tags, **_tags_of(self.dtype)}:
            said["tags"] = tags
        if self.vector_index or self.vector_length or self.vector_search_metric:
            said["vector_index"] = self.vector_index
            said["vector_length"] = self.vector_length
            said["vector_search_metric"] = self.vector_search_metric or ""
        return FeatureSpecV2(name=self.name, value_type=_number_of(self.dtype), **said)

    @classmethod
    def from_proto(cls, field_proto: Any) -> Field:
        """Reads `feast.core.FeatureSpecV2`."""
        tags = dict(field_proto.tags)
        return cls(
            name=field_proto.name,
            dtype=_type_from(ValueType(field_proto.value_type), tags),
            description=field_proto.description,
            tags={key: value for key, value in tags.items() if key not in _HIDDEN_TAGS},
            vector_index=field_proto.vector_index,
            vector_length=field_proto.vector_length,
            vector_search_metric=field_proto.vector_search_metric,
        )

    @classmethod
    def from_feature(cls, feature: Feature) -> Field:
        """The field that says the same as an old `Feature`."""
        return cls(
            name=feature.name,
            dtype=from_value_type(feature.dtype),
            description=feature.description,
            tags=feature.labels,
        )


def _advice(dtype: Any) -> str:
    """What to write instead of a wrong type, for the mistakes people make."""
    if isinstance(dtype, ValueType):
        try:
            return f"; write `{from_value_type(dtype)}`"
        except ValueError:
            return ""
    known = {int: "Int64", float: "Float64", str: "String", bool: "Bool", bytes: "Bytes"}
    if isinstance(dtype, type) and dtype in known:
        return f"; write `{known[dtype]}`"
    if isinstance(dtype, type) and issubclass(dtype, ComplexFeastType):
        return f"; say of what, for instance `{dtype.__name__}(Int64)`"
    return "; write for instance `Int64` or `Array(Float32)`"


_NUMBERS = {dtype: int(dtype.to_value_type().value) for dtype in PrimitiveFeastType}


def _number_of(dtype: FeastType) -> int:
    """The number of the stored type."""
    if type(dtype) is PrimitiveFeastType:
        return _NUMBERS[dtype]
    return int(dtype.to_value_type().value)


def _tags_of(dtype: FeastType) -> dict[str, str]:
    """The hidden tags that describe a type beyond its stored type."""
    if type(dtype) is PrimitiveFeastType:
        return {}
    import json

    if isinstance(dtype, (Array, Set)) and isinstance(dtype.base_type, (Array, Set)):
        return {NESTED_COLLECTION_INNER_TYPE_TAG: _type_text(dtype)}
    inner = dtype.base_type if isinstance(dtype, Array) else dtype
    if isinstance(inner, Struct):
        parts = {name: _type_text(one) for name, one in inner.fields.items()}
        return {STRUCT_SCHEMA_TAG: json.dumps(parts)}
    return {}


def _type_from(stored: ValueType, tags: dict[str, str]) -> FeastType:
    """A stored type together with its hidden tags."""
    import json

    if stored in (ValueType.STRUCT, ValueType.STRUCT_LIST) and STRUCT_SCHEMA_TAG in tags:
        parts = json.loads(tags[STRUCT_SCHEMA_TAG])
        struct = Struct({name: _type_of_text(text) for name, text in parts.items()})
        return struct if stored is ValueType.STRUCT else Array(struct)
    nested = stored in (ValueType.VALUE_LIST, ValueType.VALUE_SET)
    if nested and NESTED_COLLECTION_INNER_TYPE_TAG in tags:
        return _type_of_text(tags[NESTED_COLLECTION_INNER_TYPE_TAG])
    return from_value_type(stored)


def _type_text(dtype: FeastType) -> str:
    """A type as text: `INT64`, `Array(INT64)`, or the JSON of a struct."""
    import json

    if isinstance(dtype, PrimitiveFeastType):
        return dtype.name
    if isinstance(dtype, Struct):
        return json.dumps(
            {"__struct__": {name: _type_text(one) for name, one in dtype.fields.items()}}
        )
    inner = dtype.base_type  # type: ignore[attr-defined]
    return f"{type(dtype).__name__}({_type_text(inner)})"


def _type_of_text(text: str) -> FeastType:
    """The inverse of `_type_text`."""
    import json

    for kind in (Array, Set):
        opening = f"{kind.__name__}("
        if text.startswith(opening) and text.endswith(")"):
            return kind(_type_of_text(text[len(opening) : -1]))
    if text.startswith("{"):
        parts = json.loads(text)["__struct__"]
        return Struct({name: _type_of_text(one) for name, one in parts.items()})
    if text not in PrimitiveFeastType.__members__:
        names = ", ".join(PrimitiveFeastType.__members__)
        raise ValueError(f"`{text}` is no type; known are {names}, Array(…), Set(…)")
    return PrimitiveFeastType[text]
