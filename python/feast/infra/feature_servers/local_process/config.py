"""Settings of the HTTP feature server."""

from __future__ import annotations

from feast.infra.feature_servers.base_config import BaseFeatureServerConfig


class LocalFeatureServerConfig(BaseFeatureServerConfig):
    """Settings of the HTTP feature server."""

    type: str = "local"
    transformation_service_endpoint: str = "localhost:6569"
