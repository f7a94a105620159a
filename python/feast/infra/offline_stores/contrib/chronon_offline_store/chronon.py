"""Settings of the Chronon offline store."""

from __future__ import annotations

from feast._settings import Settings


class ChrononOfflineStoreConfig(Settings):
    """Settings of the Chronon offline store."""

    type: str = "chronon"
    path: str | None = None
