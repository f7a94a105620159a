"""Settings of the MongoDB offline store."""

from __future__ import annotations

from feast._settings import Settings


class MongoDBOfflineStoreConfig(Settings):
    """Settings of the MongoDB offline store."""

    type: str = (
        "feast.infra.offline_stores.contrib.mongodb_offline_store.mongodb.MongoDBOfflineStore"
    )
    connection_string: str = "mongodb://localhost:27017"
    database: str = "feast"
    collection: str = "feature_history"
