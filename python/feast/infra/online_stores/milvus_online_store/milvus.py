"""Settings of the Milvus online store."""

from __future__ import annotations

from typing import Any

from feast.infra.online_stores.vector_store import VectorStoreConfig


class MilvusOnlineStoreConfig(VectorStoreConfig):
    """Settings of the Milvus online store."""

    type: str = "milvus"
    path: str | None = ""
    host: str | None = "http://localhost"
    port: int | None = 19530
    uri: str | None = None
    token: str | None = None
    db_name: str | None = None
    index_type: str | None = "FLAT"
    metric_type: str | None = "COSINE"
    embedding_dim: int | None = 128
    vector_enabled: bool | None = True
    text_search_enabled: bool | None = False
    nlist: int | None = 128
    index_params: dict[str, Any] | None = None
    search_params: dict[str, Any] | None = None
    consistency_level: str | None = None
    collection_consistency_level: str | None = None
    partition_key: str | None = None
    username: str | None = ""
    password: str | None = ""
    enable_openai_compatible_store: bool | None = False
    varchar_max_length: int | None = 65535
