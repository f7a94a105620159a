"""Settings of the Athena offline store."""

from __future__ import annotations

from feast._settings import Settings


class AthenaOfflineStoreConfig(Settings):
    """Settings of the Athena offline store."""

    type: str = "athena"
    data_source: str
    region: str
    database: str
    workgroup: str
    s3_staging_location: str
