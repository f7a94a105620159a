"""Pieces of messages that several kinds of view write."""

from __future__ import annotations

from typing import Any


def serialize_data_source(source: Any) -> Any:
    """A source with the path of its class, by which other readers find it; nothing stays unset."""
    if source is None:
        return None
    message = source.to_proto()
    message.data_source_class_type = f"{type(source).__module__}.{type(source).__name__}"
    return message


def transformation_to_proto(transformation: Any) -> Any:
    """The message `feast.core.FeatureTransformationV2` around a transformation."""
    if transformation is None:
        return None
    from feast.protos.feast.core.Transformation_pb2 import (
        FeatureTransformationV2,
        SubstraitTransformationV2,
    )

    message = transformation.to_proto()
    if isinstance(message, SubstraitTransformationV2):
        return FeatureTransformationV2(substrait_transformation=message)
    return FeatureTransformationV2(user_defined_function=message)


def mode_to_string(mode: Any) -> str:
    """A transformation mode as text; nothing is the empty text."""
    return "" if mode is None else getattr(mode, "value", mode)
