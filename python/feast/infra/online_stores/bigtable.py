"""Settings of the Bigtable online store."""

from __future__ import annotations

from feast._settings import Settings


class BigtableOnlineStoreConfig(Settings):
    """Settings of the Bigtable online store."""

    type: str = "bigtable"
    project_id: str | None = None
    instance: str
    max_versions: int = 2
    mutations_per_write: int = 50_000
    write_concurrency: int = 10
