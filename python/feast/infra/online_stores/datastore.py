"""Settings of the Google Datastore online store."""

from __future__ import annotations

from feast._settings import Settings


class DatastoreOnlineStoreConfig(Settings):
    """Settings of the Google Datastore online store."""

    type: str = "datastore"
    project_id: str | None = None
    namespace: str | None = None
    database: str | None = None
    emulator_host: str | None = None
    write_concurrency: int | None = 40
    write_batch_size: int | None = 50
