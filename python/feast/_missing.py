"""What is said where a module of Feast's is imported that is not here."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from types import ModuleType

# Module → what its users want to know. What is below a module is meant, too.
_INSTEAD = {
    "feast.feature_server": "`feast serve` and `FeatureStore.serve` serve; the server is no Python application",
    "feast.infra.offline_stores.offline_utils": "it is for offline stores in Python, which are not run",
    "feast.infra.online_stores.helpers": "it is for online stores in Python, which are not run",
    "feast.infra.registry.registry_store": "it is for registries in Python, which are not run",
    "feast.lineage": "the routes `/lineage` of `feast serve_registry --rest-api` tell what is made from what",
    "feast.offline_server": "`feast serve_offline` is not available yet",
    "feast.openlineage": "events of OpenLineage are not available yet",
    "feast.ui_server": "`feast ui` is not available yet",
}


class _NoSuchModule:
    """Asked last, when no file was found."""

    @staticmethod
    def find_spec(
        name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> None:
        if not name.startswith("feast."):
            return
        instead = next(
            (_INSTEAD[known] for known in _INSTEAD if f"{name}.".startswith(f"{known}.")), None
        )
        if instead is None:
            instead = "the modules that Feast documents are here, those that only Feast itself uses are not"
        raise ModuleNotFoundError(f"feast-rs has no module `{name}`: {instead}", name=name)


def say_so() -> None:
    """From now on, who imports a module that is not here is told why."""
    if _NoSuchModule not in sys.meta_path:
        sys.meta_path.append(_NoSuchModule)  # type: ignore[arg-type]
