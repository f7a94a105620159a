"""The difference between the registry and the desired objects."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from feast._objects import KINDS
from feast.diff.property_diff import PropertyDiff, TransitionType

__all__ = ["FeastObjectDiff", "PropertyDiff", "RegistryDiff", "TransitionType"]

_VERBS = {
    TransitionType.CREATE: "Created",
    TransitionType.UPDATE: "Updated",
    TransitionType.DELETE: "Deleted",
    TransitionType.UNCHANGED: "Unchanged",
}


@dataclass
class FeastObjectDiff:
    """What happens to one object. `feast_object_type` is its kind, such as `feature_view`."""

    name: str
    feast_object_type: str
    current_feast_object: Any
    new_feast_object: Any
    feast_object_property_diffs: list[PropertyDiff]
    transition_type: TransitionType


@dataclass
class RegistryDiff:
    """What happens to which objects."""

    feast_object_diffs: list[FeastObjectDiff] = field(default_factory=list)

    def add_feast_object_diff(self, feast_object_diff: FeastObjectDiff) -> None:
        """Adds one more object."""
        self.feast_object_diffs.append(feast_object_diff)

    def to_string(self) -> str:
        """One line per object that changes, and one per field of it."""
        lines = []
        for diff in self.feast_object_diffs:
            if diff.transition_type is TransitionType.UNCHANGED:
                continue
            kind = (
                KINDS[diff.feast_object_type].words
                if diff.feast_object_type in KINDS
                else diff.feast_object_type
            )
            lines.append(f"{_VERBS[diff.transition_type]} {kind} {diff.name}")
            for each in diff.feast_object_property_diffs:
                lines.append(f"\t{each.property_name}: {each.val_existing} -> {each.val_declared}")
        return "\n".join(lines) if lines else "No changes to registry"

    @classmethod
    def _from_native(cls, answer: str, new_objects: dict[tuple[str, str], Any]) -> RegistryDiff:
        result = cls()
        for change in json.loads(answer).get("changes", []):
            fields = [
                PropertyDiff(each["field"], _shown(each.get("before")), _shown(each.get("after")))
                for each in change.get("fields", [])
            ]
            result.add_feast_object_diff(
                FeastObjectDiff(
                    name=change["name"],
                    feast_object_type=change["kind"],
                    current_feast_object=None,
                    new_feast_object=new_objects.get((change["kind"], change["name"])),
                    feast_object_property_diffs=fields,
                    transition_type=TransitionType[change["action"].upper()],
                )
            )
        return result


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
