"""Settings of the Hazelcast online store."""

from __future__ import annotations

from feast._settings import Settings


class HazelcastOnlineStoreConfig(Settings):
    """Settings of the Hazelcast online store."""

    type: str = "hazelcast"
    cluster_name: str = "dev"
    cluster_members: list[str] | None = ["localhost:5701"]
    discovery_token: str | None = ""
    ssl_cafile_path: str | None = ""
    ssl_certfile_path: str | None = ""
    ssl_keyfile_path: str | None = ""
    ssl_password: str | None = ""
    key_ttl_seconds: int | None = 0
