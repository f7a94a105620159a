"""Settings of the local files (`file`, `dask`) offline store."""

from __future__ import annotations

from feast._settings import Settings


class DaskOfflineStoreConfig(Settings):
    """Settings of the local files (`file`, `dask`) offline store."""

    type: str = "dask"
