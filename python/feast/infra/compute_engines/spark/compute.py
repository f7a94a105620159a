"""Settings of the Spark compute engine."""

from __future__ import annotations

from feast._settings import Settings


class SparkComputeEngineConfig(Settings):
    """Settings of the Spark compute engine."""

    type: str = "spark.engine"
    spark_conf: dict[str, str] | None = None
    staging_location: str | None = None
    region: str | None = None
    partitions: int = 0
