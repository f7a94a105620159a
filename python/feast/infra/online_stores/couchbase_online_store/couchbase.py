"""Settings of the Couchbase online store."""

from __future__ import annotations

from feast._settings import Settings


class CouchbaseOnlineStoreConfig(Settings):
    """Settings of the Couchbase online store."""

    type: str = "couchbase.online"
    connection_string: str | None = None
    user: str | None = None
    password: str | None = None
    bucket_name: str | None = None
    kv_port: int | None = None
