"""Settings of the PostgreSQL offline store."""

from __future__ import annotations

from enum import Enum

from feast.infra.utils.postgres.postgres_config import PostgreSQLConfig


class EntitySelectMode(str, Enum):
    """How entity rows given as SQL reach the query."""

    temp_table = "temp_table"
    embed_query = "embed_query"


class PostgreSQLOfflineStoreConfig(PostgreSQLConfig):
    """Settings of the PostgreSQL offline store."""

    type: str = "postgres"
    entity_select_mode: EntitySelectMode | str = EntitySelectMode.temp_table
