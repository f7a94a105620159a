"""Settings common to the feature servers."""

from __future__ import annotations

from feast._settings import Settings


class FeatureLoggingConfig(Settings):
    """How served features are logged."""

    enabled: bool = False
    flush_interval_secs: int = 600
    write_to_disk_interval_secs: int = 30
    queue_capacity: int = 100000
    emit_timeout_micro_secs: int = 10000


class MetricsConfig(Settings):
    """Which metrics the server publishes."""

    enabled: bool = False
    resource: bool = True
    request: bool = True
    feature_count_bins: list[int] = [10, 50, 200]
    online_features: bool = True
    push: bool = True
    materialization: bool = True
    freshness: bool = True
    offline_features: bool = True
    audit_logging: bool = False


class AuditLoggingConfig(Settings):
    """Where the audit log goes."""

    enabled: bool = False
    sink: str = "stdout"
    file_path: str = "feast_audit.log"
    log_successful_reads: bool = True


class BaseFeatureServerConfig(Settings):
    """What every feature server has."""

    enabled: bool = False
    metrics: MetricsConfig | None = None
    feature_logging: FeatureLoggingConfig | None = None
    audit_logging: AuditLoggingConfig | None = None
    offline_push_batching_enabled: bool | None = None
    offline_push_batching_batch_size: int | None = None
    offline_push_batching_batch_interval_seconds: int | None = None
