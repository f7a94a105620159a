"""Settings of the MongoDB online store."""

from __future__ import annotations

from typing import Any

from feast.infra.online_stores.vector_store import VectorStoreConfig


class MongoDBOnlineStoreConfig(VectorStoreConfig):
    """Settings of the MongoDB online store."""

    type: str = "mongodb"
    connection_string: str = "mongodb://localhost:27017"
    database_name: str = "features"
    collection_suffix: str = "latest"
    client_kwargs: dict[str, Any] = {}
    vector_index_wait_timeout: int = 60
    vector_index_wait_poll_interval: float = 1.0
