"""What Feast has and this product does not have yet: each call says so, and what to do instead."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from feast._store.opened import Opened
from feast._unavailable import NotAvailableYet

if TYPE_CHECKING:
    from feast.feature_service import FeatureService
    from feast.online_response import OnlineResponse
    from feast.saved_dataset import ValidationReference


class NotYet(Opened):
    """Searching, precomputing, validating."""

    def retrieve_online_documents(
        self,
        query: str | list[float],
        top_k: int,
        features: list[str],
        distance_metric: str | None = "L2",
    ) -> OnlineResponse:
        """Similarity search: not available yet."""
        raise NotAvailableYet("searching for similar vectors")

    def retrieve_online_documents_v2(
        self,
        features: list[str],
        top_k: int,
        query: list[float] | None = None,
        query_string: str | None = None,
        distance_metric: str | None = "L2",
        query_image_bytes: bytes | None = None,
        query_image_model: str | None = "resnet34",
        combine_with_text: bool = False,
        text_weight: float = 0.5,
        image_weight: float = 0.5,
        combine_strategy: str = "weighted_sum",
        include_feature_view_version_metadata: bool = False,
        filters: Any = None,
    ) -> OnlineResponse:
        """Similarity and text search: not available yet."""
        raise NotAvailableYet("searching for similar vectors")

    async def openai_search(
        self,
        vector_store_id: str,
        query: str | list[str],
        *,
        vs_id: str | None = None,
        max_num_results: int = 10,
        filters: Any = None,
        ranking_options: dict[str, Any] | None = None,
        rewrite_query: bool | None = None,
        features_to_retrieve: list[str] | None = None,
    ) -> dict[str, Any]:
        """Search in the shape of OpenAI's vector stores: not available yet."""
        raise NotAvailableYet("searching for similar vectors")

    def precompute_feature_service(
        self, feature_service_name: str | None = None, batch_size: int = 1000
    ) -> int:
        """Precomputed feature vectors: not available yet."""
        raise NotAvailableYet(
            "precomputing feature services", "read them with `get_online_features`"
        )

    def validate_logged_features(
        self,
        source: FeatureService,
        start: datetime,
        end: datetime,
        reference: ValidationReference,
        throw_exception: bool = True,
        cache_profile: bool = True,
    ) -> Any:
        """Validation of logged features: not available yet."""
        raise NotAvailableYet("validating logged features")
