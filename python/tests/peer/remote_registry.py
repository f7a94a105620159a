"""Feast's own client of a registry server; run by Feast's interpreter, with the path of the server.

    python remote_registry.py changes HOST:PORT     # every change and every question, each kind of object
    python remote_registry.py read HOST:PORT        # {kind: {name: base64 of the message}} of all objects
    python remote_registry.py write HOST:PORT       # applies the corpus; {kind: names}
    python remote_registry.py missing HOST:PORT     # how unknown names and projects are answered

`changes` and `missing` print JSON; what is not as it should be ends the program with an error.
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import exchange

PROJECT = "remote"
PLURALS = {
    kind: "entities" if kind == "entity" else f"{kind}s"
    for kind in exchange.MESSAGES
    if kind != "project"
}


def connect(path: str) -> Any:
    """A client."""
    from feast.infra.registry.remote import RemoteRegistry, RemoteRegistryConfig

    cert = os.environ.get("REGISTRY_CERTIFICATE", "")
    return RemoteRegistry(RemoteRegistryConfig(path=path, cert=cert), PROJECT, None)


def apply(registry: Any, kind: str, one: Any) -> None:
    """Puts an object."""
    is_view = kind.endswith("_view")
    getattr(registry, "apply_feature_view" if is_view else f"apply_{kind}")(one, PROJECT)


def delete(registry: Any, kind: str, name: str) -> None:
    """Deletes an object."""
    is_view = kind.endswith("_view")
    getattr(registry, "delete_feature_view" if is_view else f"delete_{kind}")(name, PROJECT)


def written(registry: Any) -> dict[str, dict[str, bytes]]:
    """The objects of the project."""
    result = {}
    for kind, plural in PLURALS.items():
        listed = getattr(registry, f"list_{plural}")(PROJECT)
        result[kind] = {one.name: one.to_proto().SerializeToString() for one in listed}
    return result


def corpus() -> dict[str, dict[str, Any]]:
    """What can be applied."""
    import corpus as definitions

    objects = {kind: dict(definitions.OBJECTS[kind]) for kind in PLURALS}
    # Feast cannot read back a permission for everybody, not even its own.
    del objects["permission"]["all"]
    return {kind: {one.name: one for one in named.values()} for kind, named in objects.items()}


def write(registry: Any) -> dict[str, list[str]]:
    """Applies what the server takes: Feast's needs the libraries of sources. Gives the names, by kind."""
    import grpc

    from feast.errors import FeastModuleImportError

    taken: dict[str, list[str]] = {}
    for kind, named in corpus().items():
        for name, one in named.items():
            try:
                apply(registry, kind, one)
                taken.setdefault(kind, []).append(name)
            except (grpc.RpcError, FeastModuleImportError) as error:
                lacks = ("No module named", "Could not import", "_storage'")
                assert any(part in str(error) for part in lacks), error
    return taken


def raised(call: Any, *arguments: Any, **named: Any) -> tuple[str, str]:
    """The exception of a call that must fail."""
    try:
        call(*arguments, **named)
    except Exception as error:
        return type(error).__name__, str(error)
    raise AssertionError(f"{call} did not fail")


def changes(registry: Any) -> dict[str, Any]:
    """Applies, reads, changes and deletes each object."""
    from feast import Entity, Project
    from feast.protos.feast.core.Registry_pb2 import Registry as RegistryMessage

    registry.refresh(PROJECT)
    registry.apply_project(Project(name=PROJECT, description="d", tags={"team": "a"}, owner="o"))
    assert registry.get_project(PROJECT).tags == {"team": "a"}
    report: dict[str, Any] = {"applied": {}}
    objects = corpus()
    for kind, named in objects.items():
        for name, one in named.items():
            apply(registry, kind, one)
            got = getattr(registry, f"get_{kind}")(name, PROJECT)
            assert got.name == name, (kind, name)
        plural = getattr(registry, f"list_{PLURALS[kind]}")
        assert {one.name for one in plural(PROJECT)} == set(named), kind
        assert not plural(PROJECT, tags={"no": "such tag"}), kind
        assert not plural("nobody"), kind
        report["applied"][kind] = sorted(named)
    registry.commit()
    message = registry.proto()
    assert isinstance(message, RegistryMessage) and message.version_id
    assert {one.spec.name for one in message.entities} == set(objects["entity"])
    assert [one.spec.name for one in message.projects] == [PROJECT]

    # An object that is there already is no change; one that differs is.
    driver = registry.get_entity("driver", PROJECT)
    apply(registry, "entity", objects["entity"]["driver"])
    assert registry.proto().version_id == message.version_id
    changed = Entity(
        name="driver", join_keys=[driver.join_key], value_type=driver.value_type, description="new"
    )
    registry.apply_entity(changed, PROJECT)
    again = registry.get_entity("driver", PROJECT, allow_cache=True)
    assert (again.description, again.created_timestamp) == ("new", driver.created_timestamp)
    assert again.last_updated_timestamp > driver.last_updated_timestamp
    assert registry.proto().version_id != message.version_id

    start = datetime(2026, 1, 1, tzinfo=UTC)
    view = registry.get_feature_view("driver_stats", PROJECT)
    before = list(view.materialization_intervals)
    for day in range(3):
        registry.apply_materialization(
            view, PROJECT, start + timedelta(days=day), start + timedelta(days=day + 1)
        )
    after = registry.get_feature_view("driver_stats", PROJECT)
    report["intervals"] = [
        [str(a), str(b)] for a, b in after.materialization_intervals if (a, b) not in before
    ]
    report["state"] = after.state.name
    any_view = registry.get_any_feature_view("scaled_rate", PROJECT)
    report["any"] = type(any_view).__name__
    report["all"] = sorted(one.name for one in registry.list_all_feature_views(PROJECT))
    report["new"] = [
        one.name
        for one in registry.list_all_feature_views(
            PROJECT, updated_since=after.last_updated_timestamp
        )
    ]
    report["datasets"] = len(registry.list_saved_datasets(PROJECT, namespace="no such namespace"))
    direct, indirect = registry.get_registry_lineage(PROJECT)
    relation = lambda one: [
        one.source.type.value,
        one.source.name,
        one.target.type.value,
        one.target.name,
    ]
    report["lineage"] = [[relation(one) for one in direct], [relation(one) for one in indirect]]
    report["relations"] = [
        relation(one)
        for one in registry.get_object_relationships(
            PROJECT, "entity", "driver", include_indirect=True
        )
    ]
    report["metadata"] = [one.project_name for one in registry.list_project_metadata(PROJECT)]
    from feast.infra.infra_object import Infra
    from feast.infra.online_stores.sqlite import SqliteTable

    registry.update_infra(Infra([SqliteTable("/online.db", f"{PROJECT}_driver_stats")]), PROJECT)
    report["infra"] = [one.name for one in registry.get_infra(PROJECT).infra_objects]
    assert not registry.get_infra("nobody").infra_objects
    for kind, named in reversed(list(objects.items())):
        for name in named:
            delete(registry, kind, name)
            report.setdefault("gone", {})[kind] = raised(
                getattr(registry, f"get_{kind}"), name, PROJECT
            )[0]
            again = (
                "FeatureViewNotFoundException" if kind.endswith("_view") else report["gone"][kind]
            )
            assert raised(delete, registry, kind, name)[0] == again
    registry.delete_project(PROJECT)
    report["projects"] = [one.name for one in registry.list_projects()]
    return report


def missing(registry: Any) -> dict[str, Any]:
    """How unknown names are told."""
    from feast import Entity, FeatureView, FileSource
    from feast.labeling.label_view import LabelView

    told = {}
    for kind in PLURALS:
        told[kind] = raised(getattr(registry, f"get_{kind}"), "nobody", PROJECT)
    told["project"] = raised(registry.get_project, "nobody")
    told["any"] = raised(registry.get_any_feature_view, "nobody", PROJECT)
    told["relations"] = raised(registry.get_object_relationships, PROJECT, "nonsense", "x")
    told["unnamed project"] = raised(registry.apply_entity, Entity(name="e"), "")
    registry.apply_feature_view(
        FeatureView(name="same", source=FileSource(name="s", path="p.parquet")), PROJECT
    )
    told["same name"] = raised(
        registry.apply_feature_view, LabelView(name="same", entities=[Entity(name="e")]), PROJECT
    )
    registry.delete_project(PROJECT)
    return told


if __name__ == "__main__":
    # The stand-ins come last: libraries that are installed are the real ones.
    sys.meta_path.append(exchange.Finder())
    warnings.simplefilter("ignore")
    sys.path.insert(0, str(Path(__file__).parent))
    sys.stdout, stdout = sys.stderr, sys.stdout
    client = connect(sys.argv[2])
    if sys.argv[1] == "read":
        stdout.write(exchange.to_json(written(client)))
    elif sys.argv[1] == "write":
        stdout.write(json.dumps(write(client)))
    else:
        stdout.write(json.dumps(changes(client) if sys.argv[1] == "changes" else missing(client)))
