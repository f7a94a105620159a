"""Settings of the Kubernetes compute engine."""

from __future__ import annotations

from feast._settings import Settings


class KubernetesComputeEngineConfig(Settings):
    """Settings of the Kubernetes compute engine."""

    type: str = "k8s"
    namespace: str = "default"
    image: str = "feast/feast-k8s-materialization:latest"
    env: list[dict] = []
    image_pull_secrets: list[dict] = []
    resources: dict = {}
    service_account_name: str = ""
    annotations: dict = {}
    include_security_context_capabilities: bool = True
    labels: dict = {}
    max_parallelism: int = 10
    synchronous: bool = False
    retry_limit: int = 2
    mini_batch_size: int = 1000
    active_deadline_seconds: int = 86400
    job_batch_size: int = 100
    print_pod_logs_on_failure: bool = True
