"""Settings of the Spark application compute engine."""

from __future__ import annotations

from feast._settings import Settings


class SparkApplicationComputeEngineConfig(Settings):
    """Settings of the Spark application compute engine."""

    type: str = "spark_application"
    image: str
    image_pull_secrets: list[str] = []
    namespace: str = "default"
    service_account: str = ""
    driver_cores: int = 1
    driver_memory: str = "1g"
    executor_instances: int = 1
    executor_cores: int = 1
    executor_memory: str = "1g"
    spark_conf: dict[str, str] | None = None
    hadoop_conf: dict[str, str] | None = None
    spark_version: str = "4.0.1"
    staging_location: str | None = None
    env: list[dict] = []
    env_from: list[dict] = []
    queue_name: str | None = None
    job_timeout_seconds: int = 3600
    poll_interval_seconds: int = 10
    ttl_seconds_after_finished: int = 3600
    restart_policy: str = "Never"
    max_retries: int = 3
    concurrency: int = 1
    labels: dict[str, str] = {}
    volumes: list[dict] = []
    volume_mounts: list[dict] = []
    py_files: list[str] = []
    node_selector: dict[str, str] | None = None
    tolerations: list[dict] = []
