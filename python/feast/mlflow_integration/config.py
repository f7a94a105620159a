"""Settings of the MLflow integration."""

from __future__ import annotations

from feast._settings import Settings


class DatasetSyncConfig(Settings, extra="allow"):
    """How datasets are copied between MLflow and the offline store."""

    default_field_mapping: dict[str, str] = {}
    watermark_key: str = "feast_last_sync_time"
    default_batch_size: int = 10_000


class MlflowConfig(Settings, extra="allow"):
    """Where the tracking server is and what is logged there."""

    enabled: bool = False
    tracking_uri: str | None = None
    ui_url: str | None = None
    auto_log: bool = True
    auto_log_entity_df: bool = False
    entity_df_max_rows: int = 100_000
    log_operations: bool = False
    ops_experiment_suffix: str = "-feast-ops"
    dataset_sync: DatasetSyncConfig = DatasetSyncConfig()
    ca_bundle: str | None = None
    supported_artifact_formats: list[str] = ["parquet", "csv"]
    request_timeout: int = 30
    max_retries: int = 3
    retry_backoff_factor: float = 1.0
