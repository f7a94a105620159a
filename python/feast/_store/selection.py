"""Which features are asked for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from feast._objects import kind_of
from feast.errors import InvalidFeaturesParameterType


def selection(features: Any) -> list[str] | bytes:
    """Feature references, or the message of a feature service."""
    # Whatever holds references in a row: lists, arrays, the columns of a frame.
    if isinstance(features, Iterable) and not isinstance(features, (str, bytes, Mapping)):
        features = list(features)
        if not all(isinstance(each, str) for each in features):
            raise InvalidFeaturesParameterType(features)
        return list(features)
    kind = kind_of(features)
    if kind is None or kind.name != "feature_service":
        raise InvalidFeaturesParameterType(features)
    return bytes(features.to_proto().SerializeToString())
