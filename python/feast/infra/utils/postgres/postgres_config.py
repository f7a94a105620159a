"""PostgreSQL connection settings shared by its stores."""

from __future__ import annotations

from enum import Enum

from feast._settings import Settings


class ConnectionType(str, Enum):
    """One connection, or a pool of them."""

    singleton = "singleton"
    pool = "pool"


class PostgreSQLConfig(Settings):
    """PostgreSQL connection settings shared by its stores."""

    min_conn: int = 1
    max_conn: int = 10
    conn_type: ConnectionType | str = ConnectionType.singleton
    host: str
    port: int = 5432
    database: str
    db_schema: str = "public"
    user: str
    password: str
    sslmode: str | None = "require"
    sslkey_path: str | None = None
    sslcert_path: str | None = None
    sslrootcert_path: str | None = None
    keepalives_idle: int | None = None
