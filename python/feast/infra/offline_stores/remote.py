"""Settings of the remote (Feast server) offline store."""

from __future__ import annotations

from feast._settings import Settings


class RemoteOfflineStoreConfig(Settings):
    """Settings of the remote (Feast server) offline store."""

    type: str = "remote"
    scheme: str = "http"
    host: str
    port: int | None = None
    cert: str = ""
    connection_retries: int = 3
