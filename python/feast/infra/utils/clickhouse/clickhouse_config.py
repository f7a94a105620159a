"""ClickHouse connection settings."""

from __future__ import annotations

from typing import Any

from feast._settings import Settings


class ClickhouseConfig(Settings):
    """ClickHouse connection settings."""

    host: str
    port: int = 8123
    database: str
    user: str
    password: str
    use_temporary_tables_for_entity_df: bool = True
    additional_client_args: dict[str, Any] | None = None
