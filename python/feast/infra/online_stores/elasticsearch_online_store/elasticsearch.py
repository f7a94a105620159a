"""Settings of the Elasticsearch online store."""

from __future__ import annotations

from feast.infra.online_stores.vector_store import VectorStoreConfig


class ElasticSearchOnlineStoreConfig(VectorStoreConfig):
    """Settings of the Elasticsearch online store."""

    type: str = "elasticsearch"
    host: str | None = None
    user: str | None = None
    password: str | None = None
    port: int | None = None
    index: str | None = None
    scheme: str | None = "http"
    vector_field_path: str | None = "embedding.vector_value"
    write_batch_size: int | None = 40
    enable_openai_compatible_store: bool | None = False
