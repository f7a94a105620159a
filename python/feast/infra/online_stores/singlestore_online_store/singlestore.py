"""Settings of the SingleStore online store."""

from __future__ import annotations

from feast._settings import Settings


class SingleStoreOnlineStoreConfig(Settings):
    """Settings of the SingleStore online store."""

    type: str = "singlestore"
    host: str | None = None
    user: str | None = None
    password: str | None = None
    database: str | None = None
    port: int | None = None
