"""Settings of the SQL registry."""

from __future__ import annotations

from typing import Any

from feast.repo_config import RegistryConfig


class SqlRegistryConfig(RegistryConfig):
    """Settings of the SQL registry."""

    registry_type: str = "sql"
    path: str = ""
    read_path: str | None = None
    sqlalchemy_config_kwargs: dict[str, Any] = {"echo": False}
    thread_pool_executor_worker_count: int = 0
    schema_mode: str = "auto"
