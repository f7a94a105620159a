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
    """Settings of the Redis online store.

    `connection_string` has addresses and settings, set apart by commas:
    `redis-1:6379,redis-2:6379,ssl=true,username=feast,password=${REDIS_PASSWORD}`. An item with `=` is a setting:

    - `db`, `username`, `password`, `client_name`;
    - `ssl=true`, with `ssl_ca_certs` (file of the authorities; default: those of the system), `ssl_certfile` and
      `ssl_keyfile` (our own certificate), `ssl_check_hostname=false`, `ssl_cert_reqs=none`;
    - `socket_timeout` (seconds a call may take, default 5), `socket_connect_timeout` (default 2);
    - `sentinel_kwargs={"password": "..."}` for the sentinels themselves, which are asked without password otherwise.

    `redis_type` says what the addresses are: one server, some nodes of a cluster, or sentinels, which know the server
    under the name `sentinel_master`. `key_ttl_seconds` lets an entity vanish that long after its last write, in all
    views. `skip_dedup` writes without looking at the event times that are stored. `full_scan_for_deletion=False` leaves
    the rows of dropped views. `client` is for Feast and has no effect here.
    """

    type: str = "redis"
    redis_type: RedisType | str = RedisType.redis
    client: RedisClient | str = RedisClient.redis
    sentinel_master: str = "mymaster"
    connection_string: str = "localhost:6379"
    key_ttl_seconds: int | None = None
    full_scan_for_deletion: bool | None = True
    skip_dedup: bool = False
