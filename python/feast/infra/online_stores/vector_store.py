"""Settings of the online stores that can search vectors."""

from __future__ import annotations

from feast._settings import Settings


class VectorStoreConfig(Settings):
    """Keys that such stores share."""

    vector_enabled: bool | None = False
    similarity: str | None = "cosine"
