"""Settings of the Chronon online store."""

from __future__ import annotations

from feast._settings import Settings


class ChrononOnlineStoreConfig(Settings):
    """Settings of the Chronon online store."""

    type: str = "chronon"
    path: str = "http://localhost:8080"
    timeout: int = 30
    verify_ssl: bool = True
    connection_retries: int = 0
