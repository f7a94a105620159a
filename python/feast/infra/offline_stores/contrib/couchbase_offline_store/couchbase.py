"""Settings of the Couchbase offline store."""

from __future__ import annotations

from feast._settings import Settings


class CouchbaseColumnarOfflineStoreConfig(Settings):
    """Settings of the Couchbase offline store."""

    type: str = "couchbase.offline"
    connection_string: str | None = None
    user: str | None = None
    password: str | None = None
    timeout: float = 120
