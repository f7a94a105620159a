"""Settings of the Redis online store."""

from __future__ import annotations

from enum import Enum

from feast._settings import Settings


class RedisType(str, Enum):
    """How the Redis servers are arranged."""

    redis = "redis"
    redis_cluster = "redis_cluster"
    redis_sentinel = "redis_sentinel"


class RedisClient(str, Enum):
    """The client library Feast would use; one client serves both here."""

    redis = "redis"
    glide = "glide"


class RedisOnlineStoreConfig(Settings):
    """Settings of the Redis online store."""

    type: str = "redis"
    redis_type: RedisType | str = RedisType.redis
    client: RedisClient | str = RedisClient.redis
    sentinel_master: str = "mymaster"
    connection_string: str = "localhost:6379"
    key_ttl_seconds: int | None = None
    full_scan_for_deletion: bool | None = True
    skip_dedup: bool = False
