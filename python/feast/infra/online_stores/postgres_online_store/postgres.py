"""Settings of the PostgreSQL online store."""

from __future__ import annotations

from feast.infra.online_stores.vector_store import VectorStoreConfig
from feast.infra.utils.postgres.postgres_config import PostgreSQLConfig


class PostgreSQLOnlineStoreConfig(PostgreSQLConfig, VectorStoreConfig):
    """Settings of the PostgreSQL online store."""

    type: str = "postgres"
    enable_openai_compatible_store: bool | None = False
    max_batched_result_rows: int = 2048
