"""Settings of the Snowflake offline store."""

from __future__ import annotations

from feast._settings import Settings


class SnowflakeOfflineStoreConfig(Settings, extra="allow"):
    """Settings of the Snowflake offline store."""

    _aliases = {
        "schema": "schema_",
    }

    type: str = "snowflake.offline"
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
    storage_integration_name: str | None = None
    blob_export_location: str | None = None
    convert_timestamp_columns: bool | None = None
    max_file_size: int | None = None
