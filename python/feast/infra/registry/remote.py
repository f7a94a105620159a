"""Settings of the remote (Feast server) registry."""

from __future__ import annotations

from feast.repo_config import RegistryConfig


class RemoteRegistryConfig(RegistryConfig):
    """Settings of the remote (Feast server) registry."""

    registry_type: str = "remote"
    path: str = ""
    cert: str = ""
    is_tls: bool = False
    client_cert: str = ""
    client_key: str = ""
    authority: str = ""
