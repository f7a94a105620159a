"""Conversions between Python values and protobuf's well-known types.

Only `to_proto` and `from_proto` import this module: it is where protobuf gets loaded.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.json_format import MessageToJson

_TIMES = ("created_timestamp", "last_updated_timestamp")


def as_json(message: Any) -> str:
    """A message as indented JSON, with protobuf's names of the fields in JSON."""
    return str(MessageToJson(message))


def to_duration(span: timedelta | None) -> Duration | None:
    """The message of a time span; nothing stays unset."""
    if span is None:
        return None
    message = Duration()
    message.FromTimedelta(span)
    return message


def from_duration(message: Any, member: str) -> timedelta | None:
    """The time span of a member, or nothing if it is unset."""
    return getattr(message, member).ToTimedelta() if message.HasField(member) else None


def to_datetime(stamp: Any) -> datetime:
    """A protobuf timestamp as an aware time in UTC."""
    return stamp.ToDatetime(tzinfo=UTC)


def write_times(meta: Any, source: Any, names: tuple[str, ...] = _TIMES) -> Any:
    """Copies the times an object knows into its message; returns the message."""
    for name in names:
        value = getattr(source, name, None)
        if value is not None:
            getattr(meta, name).FromDatetime(value)
    return meta


def read_times(
    meta: Any, target: Any, names: tuple[str, ...] = _TIMES, *, zone: tzinfo | None = None
) -> None:
    """Sets the times of an object from its message, in UTC; times that are not there become `None`.

    Feast has them without zone for all objects but projects and data sources, and users compare
    them with their own.
    """
    for name in names:
        moment = getattr(meta, name).ToDatetime(tzinfo=zone) if meta.HasField(name) else None
        setattr(target, name, moment)


def read_version(target: Any, meta: Any, declared: str) -> None:
    """Sets `version` and `current_version_number`.

    The number zero is the default of its field, so that only a pinned version tells "version
    zero" from "no version yet".
    """
    target.version = declared or "latest"
    number = meta.current_version_number
    pinned = bool(declared) and declared.lower() != "latest"
    target.current_version_number = number if number > 0 or pinned else None
