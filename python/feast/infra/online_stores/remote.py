"""Settings of the remote (Feast server) online store."""

from __future__ import annotations

from feast._settings import Settings


class RemoteOnlineStoreConfig(Settings):
    """Settings of the remote (Feast server) online store."""

    type: str = "remote"
    path: str = "http://localhost:6566"
    cert: str = ""
    connection_pool_size: int = 50
    connection_idle_timeout: int = 300
    connection_retries: int = 3
