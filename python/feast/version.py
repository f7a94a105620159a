"""The version of the product."""

from __future__ import annotations


def get_version() -> str:
    """The version, as `feast version` shows it."""
    from feast import __version__

    return __version__
