"""Versions of feature views: `latest`, or a pinned `v3` (also written `version3`)."""

from __future__ import annotations

import re

LATEST_VERSION = "latest"
_PINNED = re.compile(r"v(?:ersion)?(\d+)", re.IGNORECASE)


def parse_version(version: str) -> tuple[bool, int]:
    """(whether it is the latest, the pinned number or 0)."""
    if not version or version.lower() == LATEST_VERSION:
        return True, 0
    pinned = _PINNED.fullmatch(version)
    if pinned is None:
        raise ValueError(f"`{version}` is no version; write `latest`, or a number such as `v2`")
    return False, int(pinned.group(1))


def normalize_version_string(version: str) -> str:
    """The one way of writing a version: `latest` or `v` and a number."""
    latest, number = parse_version(version)
    return LATEST_VERSION if latest else version_tag(number)


def version_tag(n: int) -> str:
    """How a version number is written."""
    return f"v{n}"


def generate_version_id() -> str:
    """A new unique identifier for a stored version."""
    import uuid

    return str(uuid.uuid4())
