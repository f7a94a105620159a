"""The registry as a class, for annotations and `isinstance`."""

from __future__ import annotations


class BaseRegistry:
    """Base class of registries; `store.registry` is one."""
