"""Adds entities to a registry, or reads all of one; run by our package and by Feast's.

python registries.py read REPOSITORY     # {kind: {name: base64 of the message}}
python registries.py add REPOSITORY PREFIX NUMBER     # entities, one commit each
python registries.py serve REPOSITORY PORT     # a registry server
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any

import exchange

PROJECT = "interop"


def add(registry: Any, prefix: str, number: int) -> None:
    """Puts entities into a registry, one after the other."""
    from feast import Entity, ValueType

    for at in range(number):
        entity = Entity(name=f"{prefix}{at}", join_keys=["id"], value_type=ValueType.INT64)
        registry.apply_entity(entity, PROJECT)


def read(registry: Any) -> dict[str, dict[str, bytes]]:
    """All objects of a registry as messages."""
    result = {}
    for kind in exchange.MESSAGES:
        if kind == "project":
            continue
        plural = "entities" if kind == "entity" else f"{kind}s"
        listed = getattr(registry, f"list_{plural}")(PROJECT)
        result[kind] = {one.name: one.to_proto().SerializeToString() for one in listed}
    return result


if __name__ == "__main__":
    # The stand-ins come last: libraries that are installed are the real ones.
    sys.meta_path.append(exchange.Finder())
    warnings.simplefilter("ignore")
    sys.path.insert(0, str(Path(__file__).parent))
    sys.stdout, stdout = sys.stderr, sys.stdout
    from feast import FeatureStore

    store = FeatureStore(repo_path=sys.argv[2])
    if sys.argv[1] == "serve":
        store.serve_registry(port=int(sys.argv[3]), tls_key_path="", tls_cert_path="")
    registry = store.registry
    if sys.argv[1] == "add":
        add(registry, sys.argv[3], int(sys.argv[4]))
    else:
        stdout.write(exchange.to_json(read(registry)))
