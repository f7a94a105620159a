"""Settings of the hybrid online store."""

from __future__ import annotations

from feast._settings import Settings


class HybridOnlineStoreConfig(Settings):
    """Settings of the hybrid online store."""

    type: str = "hybrid"
    online_stores: list[dict] | None
    routing_tag: str = "tribe"
