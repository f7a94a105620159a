"""The kinds of objects a registry holds: their classes, their messages, and where they nest in each other."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator
from types import SimpleNamespace
from typing import Any, NamedTuple


class Kind(NamedTuple):
    """One kind of object."""

    name: str
    class_path: tuple[str, str]
    message_path: tuple[str, str]
    registry_field: str
    words: str

    def python_class(self) -> Any:
        """The class users declare."""
        module, name = self.class_path
        return getattr(importlib.import_module(module), name)

    def message_class(self) -> Any:
        """The protobuf message it is stored as."""
        module, name = self.message_path
        return getattr(importlib.import_module(f"feast.protos.feast.core.{module}"), name)

    def decode(self, message: bytes) -> Any:
        """The object in a serialized message."""
        return self.python_class().from_proto(self.message_class().FromString(message))


_KINDS = (
    Kind(
        "project", ("feast.project", "Project"), ("Project_pb2", "Project"), "projects", "project"
    ),
    Kind("entity", ("feast.entity", "Entity"), ("Entity_pb2", "Entity"), "entities", "entity"),
    Kind(
        "data_source",
        ("feast.data_source", "DataSource"),
        ("DataSource_pb2", "DataSource"),
        "data_sources",
        "data source",
    ),
    Kind(
        "stream_feature_view",
        ("feast.stream_feature_view", "StreamFeatureView"),
        ("StreamFeatureView_pb2", "StreamFeatureView"),
        "stream_feature_views",
        "stream feature view",
    ),
    Kind(
        "on_demand_feature_view",
        ("feast.on_demand_feature_view", "OnDemandFeatureView"),
        ("OnDemandFeatureView_pb2", "OnDemandFeatureView"),
        "on_demand_feature_views",
        "on demand feature view",
    ),
    Kind(
        "label_view",
        ("feast.labeling.label_view", "LabelView"),
        ("LabelView_pb2", "LabelView"),
        "label_views",
        "label view",
    ),
    Kind(
        "feature_view",
        ("feast.feature_view", "FeatureView"),
        ("FeatureView_pb2", "FeatureView"),
        "feature_views",
        "feature view",
    ),
    Kind(
        "feature_service",
        ("feast.feature_service", "FeatureService"),
        ("FeatureService_pb2", "FeatureService"),
        "feature_services",
        "feature service",
    ),
    Kind(
        "saved_dataset",
        ("feast.saved_dataset", "SavedDataset"),
        ("SavedDataset_pb2", "SavedDataset"),
        "saved_datasets",
        "saved dataset",
    ),
    Kind(
        "validation_reference",
        ("feast.saved_dataset", "ValidationReference"),
        ("ValidationProfile_pb2", "ValidationReference"),
        "validation_references",
        "validation reference",
    ),
    Kind(
        "permission",
        ("feast.permissions.permission", "Permission"),
        ("Permission_pb2", "Permission"),
        "permissions",
        "permission",
    ),
)
KINDS = {kind.name: kind for kind in _KINDS}
VIEW_KINDS = ("feature_view", "stream_feature_view", "on_demand_feature_view", "label_view")
_KIND_OF_CLASS = {kind.class_path: kind for kind in _KINDS}


def kind_of(obj: Any) -> Kind | None:
    """The kind of an object; None for what is not declared in a repository.

    Looks at the names of the object's classes, so that a kind nobody uses is not imported.
    """
    if isinstance(obj, type):
        return None
    for base in type(obj).__mro__:
        kind = _KIND_OF_CLASS.get((base.__module__, base.__qualname__))
        if kind is not None:
            return kind
    return None


def nested_sources(obj: Any) -> Iterator[Any]:
    """The data sources an object brings along: those of views, and the batch source of a stream source.

    Request sources of on demand feature views do not count: a repository names them itself.
    """
    kind = kind_of(obj)
    if kind is None:
        return
    if kind.name == "data_source":
        found = [getattr(obj, "batch_source", None)]
    elif kind.name == "label_view":
        found = [getattr(obj, "source", None)]
    elif kind.name == "on_demand_feature_view":
        return
    elif kind.name in VIEW_KINDS:
        found = [getattr(obj, "batch_source", None), getattr(obj, "stream_source", None)]
    else:
        found = []
    for source in found:
        if source is not None:
            yield source
            yield from nested_sources(source)


def with_nested_sources(objects: Iterable[Any]) -> list[Any]:
    """The objects, each once, followed by the data sources that only nest in others."""
    result: list[Any] = []
    seen: set[int] = set()
    for obj in [*objects]:
        for each in (obj, *nested_sources(obj)):
            if id(each) not in seen:
                seen.add(id(each))
                result.append(each)
    return result


def views_by_name(objects: Iterable[Any]) -> dict[str, Any]:
    """The feature views among the objects."""
    return {
        obj.name: obj
        for obj in objects
        if (kind := kind_of(obj)) is not None and kind.name in VIEW_KINDS
    }


class _Named:
    """Views by name; of those that only the registry has, the engine knows the rest."""

    def __init__(self, views: dict[str, Any]) -> None:
        self._views = views

    def get_any_feature_view(self, name: str, project: str) -> Any:
        from feast.feature_view_projection import FeatureViewProjection

        unknown = SimpleNamespace(projection=FeatureViewProjection(name, None, [], []))
        return self._views.get(name, unknown)

    def get_feature_view_by_version(self, name: str, project: str, version_number: int) -> Any:
        return self.get_any_feature_view(name, project)


def message_of(obj: Any, views: dict[str, Any]) -> Any:
    """The message of an object as a registry holds it.

    Feature services that name views by text find them in `views`, or in the registry.
    """
    from feast.data_source import DataSource
    from feast.feature_service import FeatureService
    from feast.proto_utils import serialize_data_source

    if isinstance(obj, DataSource):
        return serialize_data_source(obj)
    if isinstance(obj, FeatureService):
        obj.resolve_pending_refs("", _Named(views))
    return obj.to_proto()


def registry_message(objects: Iterable[Any]) -> Any:
    """A `feast.core.Registry` message that holds the objects, each of several equal ones once."""
    from feast.protos.feast.core.Registry_pb2 import Registry

    registry = Registry()
    objects = list(objects)
    views = views_by_name(objects)
    known: dict[tuple[str, str], Any] = {}
    for obj in objects:
        kind = kind_of(obj)
        if kind is None:
            raise TypeError(f"`{type(obj).__name__}` is not a kind of object that a registry holds")
        message = message_of(obj, views)
        first = known.setdefault((kind.name, obj.name), message)
        # Views may have sources of their own that are alike, or come from a registry with copies of what else does.
        if first is message or _definition(first) != _definition(message):
            getattr(registry, kind.registry_field).append(message)
    return registry


def _definition(message: Any) -> Any:
    """A copy without what a registry records beside the definition, also of what nests in it."""
    twin = type(message)()
    twin.CopyFrom(message)
    rest = [twin]
    while rest:
        one = rest.pop()
        for field, value in one.ListFields():
            if field.name == "meta":
                one.ClearField("meta")
            elif field.message_type is not None and not field.message_type.GetOptions().map_entry:
                rest.extend([value] if hasattr(value, "ListFields") else value)
    return twin
