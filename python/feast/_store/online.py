"""The latest feature values of entities."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from feast._store.opened import Opened
from feast.online_response import OnlineResponse

if TYPE_CHECKING:
    from feast.feature_service import FeatureService


class Online(Opened):
    """Reading the online store."""

    def get_online_features(
        self,
        features: list[str] | FeatureService,
        entity_rows: list[dict[str, Any]] | Mapping[str, Any],
        full_feature_names: bool = False,
        include_feature_view_version_metadata: bool = False,
    ) -> OnlineResponse:
        """The latest feature values of entities, which come as one mapping per row or as one list per join key."""
        options = _online_options(full_feature_names, include_feature_view_version_metadata)
        return OnlineResponse._from_native(
            self._native.get_online_features(features, entity_rows, options)
        )

    async def get_online_features_async(
        self,
        features: list[str] | FeatureService,
        entity_rows: list[dict[str, Any]] | Mapping[str, Any],
        full_feature_names: bool = False,
        include_feature_view_version_metadata: bool = False,
    ) -> OnlineResponse:
        """`get_online_features` without blocking the event loop."""
        options = _online_options(full_feature_names, include_feature_view_version_metadata)
        return OnlineResponse._from_native(
            await self._native.get_online_features_async(features, entity_rows, options)
        )


def _online_options(full_feature_names: bool, include_feature_view_version_metadata: bool) -> str:
    if not full_feature_names and not include_feature_view_version_metadata:
        return "{}"
    return json.dumps(
        {
            "full_feature_names": bool(full_feature_names),
            "include_feature_view_version_metadata": include_feature_view_version_metadata,
        }
    )
