"""A feature view with vectors, searched like a vector store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy

    from feast.feature_store import FeatureStore
    from feast.feature_view import FeatureView
    from feast.online_response import OnlineResponse


class FeastVectorStore:
    """Searches the vectors of one view; the view is applied at the first search."""

    def __init__(self, repo_path: str, rag_view: FeatureView, features: list[str]) -> None:
        self._store: FeatureStore | None = None
        self._store_repo_path = repo_path
        self.rag_view = rag_view
        self.features = features

    @property
    def store(self) -> FeatureStore:
        """The feature store of the repository."""
        if self._store is None:
            from feast.feature_store import FeatureStore

            self._store = FeatureStore(repo_path=self._store_repo_path)
            self._store.apply([self.rag_view])
        return self._store

    def query(
        self,
        query_vector: numpy.ndarray | None = None,
        query_string: str | None = None,
        query_image_bytes: bytes | None = None,
        top_k: int = 10,
    ) -> OnlineResponse:
        """The rows nearest to a vector, a text or an image."""
        metrics = [one.vector_search_metric for one in self.rag_view.features if one.vector_index]
        arguments: dict[str, Any] = {
            "features": self.features,
            "query": None if query_vector is None else query_vector.tolist(),
            "query_string": query_string,
            "query_image_bytes": query_image_bytes,
            "top_k": top_k,
            "distance_metric": metrics[0] if metrics else None,
        }
        return self.store.retrieve_online_documents_v2(**arguments)
