"""Where Feast's users find the retrieval job."""

from feast._settings import Settings
from feast.retrieval_job import RetrievalJob, RetrievalMetadata

__all__ = ["OfflineStoreConfig", "RetrievalJob", "RetrievalMetadata"]

OfflineStoreConfig = Settings
