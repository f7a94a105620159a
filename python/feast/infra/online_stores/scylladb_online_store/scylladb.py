"""Settings of the ScyllaDB online store."""

from __future__ import annotations

from feast._settings import Settings


class ScyllaDBOnlineStoreConfig(Settings):
    """Settings of the ScyllaDB online store."""

    type: str = "scylladb"
    hosts: list[str]
    port: int | None = 9042
    keyspace: str = "feast_keyspace"
    username: str | None = None
    password: str | None = None
    local_dc: str | None = None
    request_timeout: float | None = None
    read_concurrency: int | None = 100
    write_concurrency: int | None = 100
    vector_similarity_function: str = "COSINE"
