"""Settings of the feature server with MCP endpoints."""

from __future__ import annotations

from feast.infra.feature_servers.base_config import BaseFeatureServerConfig


class McpFeatureServerConfig(BaseFeatureServerConfig):
    """Settings of the feature server with MCP endpoints."""

    type: str = "mcp"
    mcp_enabled: bool = False
    mcp_server_name: str = "feast-mcp-server"
    mcp_server_version: str = "1.0.0"
    mcp_transport: str = "sse"
    transformation_service_endpoint: str = "localhost:6566"
