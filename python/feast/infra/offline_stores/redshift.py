"""Settings of the Redshift offline store."""

from __future__ import annotations

from feast._settings import Settings


class RedshiftOfflineStoreConfig(Settings):
    """Settings of the Redshift offline store."""

    type: str = "redshift"
    cluster_id: str | None = None
    user: str | None = None
    workgroup: str | None = None
    region: str
    database: str
    s3_staging_location: str
    iam_role: str
