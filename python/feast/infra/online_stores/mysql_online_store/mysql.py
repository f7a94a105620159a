"""Settings of the MySQL online store."""

from __future__ import annotations

from feast._settings import Settings


class MySQLOnlineStoreConfig(Settings):
    """Settings of the MySQL online store."""

    type: str = "mysql"
    host: str | None = None
    user: str | None = None
    password: str | None = None
    database: str | None = None
    port: int | None = None
    batch_write: bool | None = False
    batch_size: int | None = None
