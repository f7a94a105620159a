"""Settings of the Trino compute engine."""

from __future__ import annotations

from feast._settings import Settings


class TrinoComputeEngineConfig(Settings, extra="allow"):
    """Settings of the Trino compute engine."""

    _aliases = {
        "http-scheme": "http_scheme",
    }

    type: str = "trino.engine"
    host: str | None = None
    port: int | None = 8080
    catalog: str | None = None
    dataset: str | None = "feast"
    user: str | None = None
    source: str | None = "trino-python-client"
    http_scheme: str = "http"
    verify: bool = True
    extra_credential: str | None = None
    connector: dict[str, str] | None = None
    auth: dict | None = None
    batch_size: int = 10000
    write_concurrency: int = 4
    offline_write_mode: str = "append"
