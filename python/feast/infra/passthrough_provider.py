"""The provider behind `local`, `gcp`, `aws` and `azure`: it leaves everything to the engine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from feast.infra.provider import Provider


class PassthroughProvider(Provider):
    """Prepares nothing besides what the engine prepares. A base for providers of a team."""

    def __init__(self, config: Any) -> None:
        self.repo_config = config

    def update_infra(
        self,
        project: str,
        tables_to_delete: Sequence[Any],
        tables_to_keep: Sequence[Any],
        entities_to_delete: Sequence[Any],
        entities_to_keep: Sequence[Any],
        partial: bool,
    ) -> None:
        """Nothing: the engine prepares its stores on apply."""

    def teardown_infra(self, project: str, tables: Sequence[Any], entities: Sequence[Any]) -> None:
        """Nothing: the engine removes what it prepared."""
