"""Settings of the DuckDB offline store."""

from __future__ import annotations

from feast._settings import Settings


class DuckDBOfflineStoreConfig(Settings):
    """Settings of the DuckDB offline store."""

    type: str = "duckdb"
    staging_location: str | None = None
    staging_location_endpoint_override: str | None = None
