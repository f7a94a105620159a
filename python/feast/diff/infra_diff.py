"""The difference between the tables that exist in stores and those that are needed."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from feast.diff.property_diff import PropertyDiff, TransitionType

_TRANSITIONS = {
    "create": TransitionType.CREATE,
    "update": TransitionType.UPDATE,
    "drop": TransitionType.DELETE,
}


@dataclass
class InfraObjectDiff:
    """What happens to one table."""

    name: str
    infra_object_type: str
    current_infra_object: Any
    new_infra_object: Any
    infra_object_property_diffs: list[PropertyDiff]
    transition_type: TransitionType


@dataclass
class InfraDiff:
    """What happens to which tables."""

    infra_object_diffs: list[InfraObjectDiff] = field(default_factory=list)

    def to_string(self) -> str:
        """One line per table that changes."""
        lines = [
            f"{each.transition_type.name.capitalize()}d {each.infra_object_type} {each.name}"
            for each in self.infra_object_diffs
        ]
        return "\n".join(lines) if lines else "No changes to infrastructure"

    @classmethod
    def _from_native(cls, answer: str) -> InfraDiff:
        result = cls()
        for change in json.loads(answer).get("tables", []):
            result.infra_object_diffs.append(
                InfraObjectDiff(
                    name=change["table"],
                    infra_object_type="table",
                    current_infra_object=None,
                    new_infra_object=None,
                    infra_object_property_diffs=[],
                    transition_type=_TRANSITIONS[change["action"]],
                )
            )
        return result
