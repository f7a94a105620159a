"""Settings of the Ray compute engine."""

from __future__ import annotations

from typing import Any

from feast._settings import Settings


class RayComputeEngineConfig(Settings):
    """Settings of the Ray compute engine."""

    type: str = "ray.engine"
    ray_address: str | None = None
    staging_location: str | None = None
    broadcast_join_threshold_mb: int = 100
    enable_distributed_joins: bool = True
    max_parallelism_multiplier: int = 2
    target_partition_size_mb: int = 64
    window_size_for_joins: str = "1H"
    ray_conf: dict[str, Any] | None = None
    max_workers: int | None = None
    write_concurrency: int | None = None
    enable_optimization: bool = True
    num_gpus: float | None = None
    gpu_batch_format: str = "pandas"
    worker_task_options: dict[str, Any] | None = None
    use_kuberay: bool | None = None
    cluster_name: str | None = None
    auth_token: str | None = None
    kuberay_conf: dict[str, Any] | None = None
    enable_ray_logging: bool = False
