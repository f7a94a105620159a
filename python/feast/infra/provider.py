"""Providers: which stores belong together. There is one, for every name of the configuration."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

_PASSTHROUGH = "feast.infra.passthrough_provider.PassthroughProvider"
PROVIDERS_CLASS_FOR_TYPE = dict.fromkeys(("local", "gcp", "aws", "azure"), _PASSTHROUGH)


class Provider(ABC):
    """Base of providers that a team writes itself: what happens around the stores."""

    @abstractmethod
    def __init__(self, config: Any) -> None:
        """Takes the configuration of the repository."""

    @abstractmethod
    def update_infra(
        self,
        project: str,
        tables_to_delete: Sequence[Any],
        tables_to_keep: Sequence[Any],
        entities_to_delete: Sequence[Any],
        entities_to_keep: Sequence[Any],
        partial: bool,
    ) -> None:
        """Prepares the stores for the views of a project."""

    @abstractmethod
    def teardown_infra(self, project: str, tables: Sequence[Any], entities: Sequence[Any]) -> None:
        """Removes what was prepared."""
