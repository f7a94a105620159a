"""Settings of the Cassandra online store."""

from __future__ import annotations

from feast._settings import Settings


class CassandraOnlineStoreConfig(Settings):
    """Settings of the Cassandra online store."""

    type: str = "cassandra"
    hosts: list[str] | None = None
    secure_bundle_path: str | None = None
    port: int | None = None
    keyspace: str = "feast_keyspace"
    username: str | None = None
    password: str | None = None
    protocol_version: int | None = None
    request_timeout: float | None = None
    datacenters: list[dict] | None = None
    routing: dict | None = None
    load_balancing: dict | None = None
    read_concurrency: int | None = 100
    write_concurrency: int | None = 100
