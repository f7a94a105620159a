"""Settings of the SQLite online store."""

from __future__ import annotations

from feast.infra.online_stores.vector_store import VectorStoreConfig


class SqliteOnlineStoreConfig(VectorStoreConfig):
    """Settings of the SQLite online store."""

    type: str = "sqlite"
    path: str = "data/online.db"
    text_search_enabled: bool = False
    enable_openai_compatible_store: bool = False
