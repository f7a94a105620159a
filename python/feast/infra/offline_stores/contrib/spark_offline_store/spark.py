"""Settings of the Spark offline store."""

from __future__ import annotations

from feast._settings import Settings


class SparkOfflineStoreConfig(Settings):
    """Settings of the Spark offline store."""

    type: str = "spark"
    spark_conf: dict[str, str] | None = None
    staging_location: str | None = None
    region: str | None = None
