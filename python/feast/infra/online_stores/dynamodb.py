"""Settings of the DynamoDB online store."""

from __future__ import annotations

from feast._settings import Settings


class DynamoDBOnlineStoreConfig(Settings):
    """Settings of the DynamoDB online store."""

    type: str = "dynamodb"
    batch_size: int = 100
    endpoint_url: str | None = None
    region: str
    table_name_template: str = "{project}.{table_name}"
    consistent_reads: bool = False
    warmup_connections: bool = False
    tags: dict[str, str] | None = None
    session_based_auth: bool = False
    max_read_workers: int = 10
    max_pool_connections: int = 50
    keepalive_timeout: float = 30.0
    connect_timeout: int | float = 5
    read_timeout: int | float = 10
    total_max_retry_attempts: int | None = 3
    retry_mode: str | None = "adaptive"
