"""Settings of the SQL Server offline store."""

from __future__ import annotations

from feast._settings import Settings


class MsSqlServerOfflineStoreConfig(Settings):
    """Settings of the SQL Server offline store."""

    type: str = "mssql"
    connection_string: str
