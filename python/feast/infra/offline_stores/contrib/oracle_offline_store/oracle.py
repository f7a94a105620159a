"""Settings of the Oracle offline store."""

from __future__ import annotations

from feast._settings import Settings


class OracleOfflineStoreConfig(Settings):
    """Settings of the Oracle offline store."""

    type: str = "oracle"
    user: str
    password: str
    host: str = "localhost"
    port: int = 1521
    service_name: str | None = None
    sid: str | None = None
    database: str | None = None
    dsn: str | None = None
