"""Settings of the Ray offline store."""

from __future__ import annotations

from typing import Any

from feast._settings import Settings


class RayOfflineStoreConfig(Settings):
    """Settings of the Ray offline store."""

    type: str = "ray"
    storage_path: str | None = None
    ray_address: str | None = None
    broadcast_join_threshold_mb: int | None = 100
    enable_distributed_joins: bool | None = True
    max_parallelism_multiplier: int | None = 2
    target_partition_size_mb: int | None = 64
    window_size_for_joins: str | None = "1H"
    enable_ray_logging: bool | None = False
    ray_conf: dict[str, Any] | None = None
    use_kuberay: bool | None = None
    cluster_name: str | None = None
    auth_token: str | None = None
    kuberay_conf: dict[str, Any] | None = None
    num_gpus: float | None = None
    gpu_batch_format: str = "pandas"
    worker_task_options: dict[str, Any] | None = None
