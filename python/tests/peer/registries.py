"""Writes the objects of the corpus into a registry, or reads all of one; run by our package and by Feast's.

    python registries.py write REPOSITORY
    python registries.py read REPOSITORY     # {kind: {name: base64 of the message}}
    python registries.py add REPOSITORY PREFIX NUMBER     # entities, one commit each
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any

import exchange

PROJECT = "interop"
# A permission for everybody is one that Feast writes and cannot read.
UNREADABLE = {"permission": {"all"}}


def write(registry: Any) -> None:
    """Puts the objects of the corpus into a registry, one after the other."""
    import corpus

    for kind, objects in corpus.OBJECTS.items():
        for key, one in objects.items():
            if kind == "project" or key in UNREADABLE.get(kind, ()):
                continue
            # Some of the corpus share a name; that of a source with options in JSON stands in these too.
            if kind == "saved_dataset" or (kind == "data_source" and key not in ("clickhouse", "couchbase")):
                one.name = key
            verb = "feature_view" if kind.endswith("_view") else kind
            getattr(registry, f"apply_{verb}")(one, PROJECT)


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
        if kind == "validation_reference" and hasattr(registry, "read_engine"):
            result[kind] = raw_references(registry)
            continue
        plural = "entities" if kind == "entity" else f"{kind}s"
        listed = getattr(registry, f"list_{plural}")(PROJECT)
        result[kind] = {one.name: one.to_proto().SerializeToString() for one in listed}
    return result


def raw_references(registry: Any) -> dict[str, bytes]:
    """What Feast stores, for objects whose library it would need to read them."""
    from sqlalchemy import text

    select = "SELECT validation_reference_name, validation_reference_proto FROM validation_references"
    with registry.read_engine.begin() as connection:
        return {name: bytes(data) for name, data in connection.execute(text(select))}


if __name__ == "__main__":
    # The stand-ins come last: libraries that are installed are the real ones.
    sys.meta_path.append(exchange.Finder())
    warnings.simplefilter("ignore")
    sys.path.insert(0, str(Path(__file__).parent))
    sys.stdout, stdout = sys.stderr, sys.stdout
    from feast import FeatureStore

    registry = FeatureStore(repo_path=sys.argv[2]).registry
    if sys.argv[1] == "write":
        write(registry)
    elif sys.argv[1] == "add":
        add(registry, sys.argv[3], int(sys.argv[4]))
    else:
        stdout.write(exchange.to_json(read(registry)))
