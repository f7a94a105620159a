"""Settings of the Snowflake compute engine."""

from __future__ import annotations

from feast._settings import Settings


class SnowflakeComputeEngineConfig(Settings, extra="allow"):
    """Settings of the Snowflake compute engine."""

    _aliases = {
        "schema": "schema_",
    }

    type: str = "snowflake.engine"
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
    python_udf_runtime_version: str = "3.10"
