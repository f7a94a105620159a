"""Settings of the Snowflake online store."""

from __future__ import annotations

from feast._settings import Settings


class SnowflakeOnlineStoreConfig(Settings, extra="allow"):
    """Settings of the Snowflake online store."""

    _aliases = {
        "schema": "schema_",
    }

    type: str = "snowflake.online"
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
