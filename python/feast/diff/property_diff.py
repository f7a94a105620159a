"""What happens to an object, and which of its fields differ."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class TransitionType(Enum):
    """What happens to an object."""

    UNKNOWN = 0
    CREATE = 1
    DELETE = 2
    UPDATE = 3
    UNCHANGED = 4


@dataclass
class PropertyDiff:
    """A field that differs: what the registry has, and what was declared."""

    property_name: str
    val_existing: str
    val_declared: str
