"""Settings of the Snowflake registry."""

from __future__ import annotations

from feast.repo_config import RegistryConfig


class SnowflakeRegistryConfig(RegistryConfig, extra="allow"):
    """Settings of the Snowflake registry."""

    _aliases = {
        "schema": "schema_",
    }

    registry_type: str = "snowflake.registry"
    type: str = "snowflake.registry"
    config_path: str | None = "~/.snowsql/config"
    connection_name: str | None = None
    account: str | None = None
    user: str | None = None
    password: str | None = None
    role: str | None = None
    warehouse: str | None = None
    authenticator: str | None = None
    private_key: str | None = None
    private_key_content: bytes | None = None
    private_key_passphrase: str | None = None
    database: str
    schema_: str | None = "PUBLIC"
