"""`Feature`: name and stored type of a feature, the form older code uses instead of `Field`."""

from __future__ import annotations

from typing import Any

from feast._definition import Definition, kind_of
from feast.value_type import ValueType


class Feature(Definition):
    """A feature by name and stored type. New code declares a `feast.Field`."""

    _compared = ("name", "dtype")

    def __init__(
        self,
        name: str,
        dtype: ValueType,
        description: str = "",
        labels: dict[str, str] | None = None,
    ) -> None:
        if not isinstance(dtype, ValueType) or dtype is ValueType.UNKNOWN:
            raise ValueError(
                f"feature `{name}`: `dtype` must be a known ValueType, but is {kind_of(dtype)}; "
                "write for instance `ValueType.INT64`"
            )
        self._name = name
        self._dtype = dtype
        self._description = description
        self._labels = {} if labels is None else labels

    @property
    def name(self) -> str:  # type: ignore[override]
        """Name of the feature."""
        return self._name

    @property
    def dtype(self) -> ValueType:
        """Stored type of its values."""
        return self._dtype

    @property
    def description(self) -> str:
        """What it means."""
        return self._description

    @property
    def labels(self) -> dict[str, str]:
        """Free labels."""
        return self._labels

    def __repr__(self) -> str:
        return f"Feature(name={self.name!r}, dtype={self.dtype!r})"

    def __str__(self) -> str:
        return f"Feature<{self.name}: {self.dtype}>"

    def to_proto(self) -> Any:
        """The message `feast.core.FeatureSpecV2`."""
        from feast.protos.feast.core.Feature_pb2 import FeatureSpecV2

        return FeatureSpecV2(
            name=self.name,
            value_type=self.dtype.value,
            description=self.description,
            tags=self.labels,
        )

    @classmethod
    def from_proto(cls, feature_proto: Any) -> Feature:
        """Reads `feast.core.FeatureSpecV2`."""
        return cls(
            name=feature_proto.name,
            dtype=ValueType(feature_proto.value_type),
            description=feature_proto.description,
            labels=dict(feature_proto.tags),
        )
