"""Settings of the Aerospike online store."""

from __future__ import annotations

from typing import Any

from feast._settings import Settings


class AerospikeOnlineStoreConfig(Settings):
    """Settings of the Aerospike online store."""

    type: str = "aerospike"
    hosts: list[tuple[str, int] | tuple[str, int, str]] = [("localhost", 3000)]
    namespace: str = "feast"
    set_name_template: str = "{project}_{collection_suffix}"
    collection_suffix: str = "latest"
    namespace_overrides: dict[str, str] = {}
    set_overrides: dict[str, str] = {}
    prewriting_hook: str | None = None
    user: str | None = None
    password: str | None = None
    auth_mode: str = "internal"
    tls: dict[str, Any] | None = None
    ttl_seconds: int | None = None
    write_timeout_ms: int = 1000
    read_timeout_ms: int = 250
    batch_total_timeout_ms: int = 2000
    socket_timeout_ms: int | None = None
    max_retries: int = 2
    batch_max_records: int = 1_000
    client_kwargs: dict[str, Any] = {}
