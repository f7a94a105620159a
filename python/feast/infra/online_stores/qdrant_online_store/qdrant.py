"""Settings of the Qdrant online store."""

from __future__ import annotations

from feast.infra.online_stores.vector_store import VectorStoreConfig


class QdrantOnlineStoreConfig(VectorStoreConfig):
    """Settings of the Qdrant online store."""

    type: str = "qdrant"
    location: str | None = None
    url: str | None = None
    port: int | None = 6333
    grpc_port: int = 6334
    prefer_grpc: bool = False
    https: bool | None = None
    api_key: str | None = None
    prefix: str | None = None
    timeout: int | None = None
    host: str | None = None
    path: str | None = None
    vector_name: str = ""
    write_batch_size: int | None = 64
    upload_wait: bool = True
