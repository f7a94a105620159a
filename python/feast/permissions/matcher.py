"""Whether a permission is about an object."""

from __future__ import annotations

import re
from typing import Any

from feast.permissions.action import AuthzedAction


def is_a_feast_object(resource: Any) -> bool:
    """Whether permissions can be about this object at all."""
    from feast.feast_object import ALL_RESOURCE_TYPES

    return isinstance(resource, tuple(ALL_RESOURCE_TYPES))


def resource_match_config(
    resource: Any,
    expected_types: list[Any],
    name_patterns: list[str],
    required_tags: dict[str, str] | None = None,
) -> bool:
    """Whether an object has one of the types, one of the names, and all of the tags."""
    if not is_a_feast_object(resource) or not isinstance(resource, tuple(expected_types)):
        return False
    name = getattr(resource, "name", "")
    if name_patterns and not any(re.fullmatch(one, name) for one in name_patterns):
        return False
    tags = getattr(resource, "tags", None) or {}
    return all(tags.get(key) == value for key, value in (required_tags or {}).items())


def actions_match_config(
    requested_actions: list[AuthzedAction], allowed_actions: list[AuthzedAction]
) -> bool:
    """Whether everything that is asked for is allowed."""
    return all(one in allowed_actions for one in requested_actions)
