"""Settings of the FAISS online store."""

from __future__ import annotations

from feast._settings import Settings


class FaissOnlineStoreConfig(Settings):
    """Settings of the FAISS online store."""

    dimension: int
    index_path: str
    index_type: str = "IVFFlat"
    nlist: int = 100
