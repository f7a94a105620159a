"""Settings of the Flink compute engine."""

from __future__ import annotations

from feast._settings import Settings


class FlinkComputeEngineConfig(Settings):
    """Settings of the Flink compute engine."""

    type: str = "flink.engine"
    execution_mode: str = "batch"
    parallelism: int | None = None
    table_config: dict[str, str] | None = None
    pandas_split_num: int = 1
