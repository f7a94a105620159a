"""Settings of the hybrid offline store."""

from __future__ import annotations

from feast._settings import Settings


class HybridOfflineStoreConfig(Settings):
    """Settings of the hybrid offline store."""

    type: str = "hybrid_offline_store.HybridOfflineStore"
    offline_stores: list[dict] | None
