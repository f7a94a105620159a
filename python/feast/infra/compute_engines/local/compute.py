"""Settings of the local compute engine."""

from __future__ import annotations

from feast._settings import Settings


class LocalComputeEngineConfig(Settings):
    """Settings of the local compute engine."""

    type: str = "local"
    backend: str | None = None
