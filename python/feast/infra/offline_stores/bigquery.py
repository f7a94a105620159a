"""Settings of the BigQuery offline store."""

from __future__ import annotations

from feast._settings import Settings


class BigQueryOfflineStoreConfig(Settings):
    """Settings of the BigQuery offline store."""

    type: str = "bigquery"
    dataset: str = "feast"
    project_id: str | None = None
    billing_project_id: str | None = None
    location: str | None = None
    gcs_staging_location: str | None = None
    table_create_disposition: str = "CREATE_IF_NEEDED"
