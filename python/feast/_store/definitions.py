"""Definitions: what a repository declares, and what the registry has."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from feast._objects import KINDS, VIEW_KINDS, kind_of, registry_message, with_nested_sources
from feast._store.filled import fill_in
from feast._store.opened import Opened

if TYPE_CHECKING:
    from feast.base_feature_view import BaseFeatureView
    from feast.data_source import DataSource
    from feast.diff.infra_diff import InfraDiff
    from feast.diff.registry_diff import RegistryDiff
    from feast.entity import Entity
    from feast.feature_service import FeatureService
    from feast.feature_view import FeatureView, FeatureViewState
    from feast.infra.registry.registry import Registry
    from feast.labeling.label_view import LabelView
    from feast.on_demand_feature_view import OnDemandFeatureView
    from feast.permissions.permission import Permission
    from feast.project import Project
    from feast.repo_contents import RepoContents
    from feast.saved_dataset import ValidationReference
    from feast.stream_feature_view import StreamFeatureView

_DUMMY_ENTITY = "__dummy"


class Definitions(Opened):
    """Applying, listing, getting, changing and deleting the objects of a project."""

    @property
    def registry(self) -> Registry:
        """The registry, for those who want to name the project in each call."""
        from feast.infra.registry.registry import Registry

        return Registry._of(self._native)

    def apply(
        self,
        objects: Any,
        objects_to_delete: list[Any] | None = None,
        partial: bool = True,
        skip_feature_view_validation: bool = False,
        no_promote: bool = False,
    ) -> None:
        """Writes objects to the registry and makes the tables they need.

        Nothing else is deleted, except `objects_to_delete` when `partial` is False. With `no_promote`, changed feature
        views are recorded as new versions, and the current ones stay in place.
        """
        objects = list(objects) if isinstance(objects, (list, tuple, set)) else [objects]
        if objects_to_delete and partial:
            warnings.warn(
                "`objects_to_delete` is ignored by `apply(partial=True)`; pass `partial=False` to delete them",
                stacklevel=2,
            )
            objects_to_delete = []
        objects = _with_request_sources(objects)
        self._apply(objects, objects_to_delete or [], skip_feature_view_validation, no_promote)

    def _apply(
        self,
        objects: list[Any],
        deleted: list[Any],
        skip_feature_view_validation: bool,
        no_promote: bool,
    ) -> None:
        options = {
            "prune": False,
            "delete": [[_kind(each), each.name] for each in deleted],
            "skip_feature_view_validation": skip_feature_view_validation,
            "no_promote": no_promote,
            "locations": _locations(objects),
        }
        self._native.apply(registry_message(objects).SerializeToString(), json.dumps(options))
        fill_in(objects, self._native)

    def plan(
        self,
        desired_repo_contents: RepoContents,
        skip_feature_view_validation: bool = False,
        progress_ctx: Any = None,
    ) -> tuple[RegistryDiff, InfraDiff, Any]:
        """What applying the contents of a repository would change; nothing is changed."""
        return (*self._plan(desired_repo_contents, skip_feature_view_validation), None)

    def _plan(
        self,
        desired_repo_contents: RepoContents,
        skip_feature_view_validation: bool,
        skip_source_validation: bool = False,
    ) -> tuple[RegistryDiff, InfraDiff]:
        from feast.diff.infra_diff import InfraDiff
        from feast.diff.registry_diff import RegistryDiff
        from feast.repo_contents import RepoContents

        if not isinstance(desired_repo_contents, RepoContents):
            raise TypeError(
                "`desired_repo_contents` must be a RepoContents, "
                f"but is of class {type(desired_repo_contents).__name__}; `parse_repo` makes one"
            )
        objects = with_nested_sources(each for group in desired_repo_contents for each in group)
        options = {
            "prune": True,
            "delete": [],
            "skip_source_validation": skip_source_validation,
            "skip_feature_view_validation": skip_feature_view_validation,
            "locations": _locations(objects),
        }
        answer = self._native.plan(
            registry_message(objects).SerializeToString(), json.dumps(options)
        )
        desired = {(_kind(each), each.name): each for each in objects}
        return RegistryDiff._from_native(answer, desired), InfraDiff._from_native(answer)

    def teardown(self) -> None:
        """Removes the project: its tables in the online store and its objects in the registry."""
        self._native.teardown()

    def refresh_registry(self) -> None:
        """Reads the registry anew, whatever the age of the copy in use."""
        self._native.refresh_registry()

    def _list(self, kind: str, allow_cache: bool, tags: dict[str, str] | None) -> list[Any]:
        found = self._native.list_objects(kind, self.project, tags, not allow_cache)
        return [_shown(KINDS[kind].decode(message)) for message in found]

    def _get(self, kind: str, name: str, allow_cache: bool) -> Any:
        if not isinstance(name, str):
            raise TypeError(
                f"the name of a {KINDS[kind].words} must be a text, but is {name!r:.80} ({type(name).__name__}); "
                "pass the name, not the object"
            )
        return _shown(
            KINDS[kind].decode(self._native.get_object(kind, name, self.project, not allow_cache))
        )

    def list_entities(
        self, allow_cache: bool = False, tags: dict[str, str] | None = None
    ) -> list[Entity]:
        """The entities."""
        return [
            each for each in self._list("entity", allow_cache, tags) if each.name != _DUMMY_ENTITY
        ]

    def list_feature_services(self, tags: dict[str, str] | None = None) -> list[FeatureService]:
        """The feature services."""
        return self._list("feature_service", False, tags)

    def list_all_feature_views(
        self, allow_cache: bool = False, tags: dict[str, str] | None = None
    ) -> list[BaseFeatureView]:
        """The feature views of every kind."""
        first, *others = VIEW_KINDS
        views = self._list(first, allow_cache, tags)
        for kind in others:
            views += self._list(kind, True, tags)
        return views

    def list_feature_views(
        self, allow_cache: bool = False, tags: dict[str, str] | None = None
    ) -> list[FeatureView]:
        """The batch feature views, as `list_batch_feature_views`."""
        return self._list("feature_view", allow_cache, tags)

    def list_batch_feature_views(
        self, allow_cache: bool = False, tags: dict[str, str] | None = None
    ) -> list[FeatureView]:
        """The feature views over a batch source."""
        return self._list("feature_view", allow_cache, tags)

    def list_on_demand_feature_views(
        self, allow_cache: bool = False, tags: dict[str, str] | None = None
    ) -> list[OnDemandFeatureView]:
        """The on demand feature views."""
        return self._list("on_demand_feature_view", allow_cache, tags)

    def list_stream_feature_views(
        self, allow_cache: bool = False, tags: dict[str, str] | None = None
    ) -> list[StreamFeatureView]:
        """The stream feature views."""
        return self._list("stream_feature_view", allow_cache, tags)

    def list_label_views(
        self, allow_cache: bool = False, tags: dict[str, str] | None = None
    ) -> list[LabelView]:
        """The label views."""
        return self._list("label_view", allow_cache, tags)

    def list_data_sources(
        self, allow_cache: bool = False, tags: dict[str, str] | None = None
    ) -> list[DataSource]:
        """The data sources."""
        return self._list("data_source", allow_cache, tags)

    def list_validation_references(
        self, allow_cache: bool = False, tags: dict[str, str] | None = None
    ) -> list[ValidationReference]:
        """The validation references."""
        return self._list("validation_reference", allow_cache, tags)

    def list_permissions(
        self, allow_cache: bool = False, tags: dict[str, str] | None = None
    ) -> list[Permission]:
        """The permissions."""
        return self._list("permission", allow_cache, tags)

    def list_projects(
        self, allow_cache: bool = False, tags: dict[str, str] | None = None
    ) -> list[Project]:
        """The projects of the registry."""
        found = self._native.list_objects("project", None, tags, not allow_cache)
        return [KINDS["project"].decode(message) for message in found]

    def list_feature_view_versions(self, name: str) -> list[dict[str, Any]]:
        """The versions of a feature view, oldest first."""
        return self.registry.list_feature_view_versions(name, self.project)

    def get_entity(self, name: str, allow_registry_cache: bool = False) -> Entity:
        """The entity of this name."""
        return self._get("entity", name, allow_registry_cache)

    def get_feature_service(self, name: str, allow_cache: bool = False) -> FeatureService:
        """The feature service of this name."""
        return self._get("feature_service", name, allow_cache)

    def get_feature_view(self, name: str, allow_registry_cache: bool = False) -> FeatureView:
        """The batch feature view of this name."""
        return self._get("feature_view", name, allow_registry_cache)

    def get_stream_feature_view(
        self, name: str, allow_registry_cache: bool = False
    ) -> StreamFeatureView:
        """The stream feature view of this name."""
        return self._get("stream_feature_view", name, allow_registry_cache)

    def get_on_demand_feature_view(
        self, name: str, allow_registry_cache: bool = False
    ) -> OnDemandFeatureView:
        """The on demand feature view of this name."""
        return self._get("on_demand_feature_view", name, allow_registry_cache)

    def get_label_view(self, name: str, allow_registry_cache: bool = False) -> LabelView:
        """The label view of this name."""
        return self._get("label_view", name, allow_registry_cache)

    def get_data_source(self, name: str) -> DataSource:
        """The data source of this name."""
        return self._get("data_source", name, False)

    def get_permission(self, name: str) -> Permission:
        """The permission of this name."""
        return self._get("permission", name, False)

    def get_project(self, name: str | None) -> Project:
        """The project of this name, or the current one."""
        name = name or self.project
        return KINDS["project"].decode(self._native.get_object("project", name, name, True))

    def delete_feature_view(self, name: str) -> None:
        """Deletes a feature view of any kind, and its table in the online store."""
        self._native.delete_feature_view(name)

    def delete_feature_service(self, name: str) -> None:
        """Deletes a feature service."""
        self._native.delete_object("feature_service", name)

    def delete_project(self, name: str, commit: bool = True) -> None:
        """Deletes a project with all its objects from the registry."""
        self._native.delete_object("project", name)

    def enable_feature_view(self, name: str) -> None:
        """Lets a feature view be materialized and served again."""
        self._native.set_enabled(name, True)

    def disable_feature_view(self, name: str) -> None:
        """Keeps a feature view from being materialized and served."""
        self._native.set_enabled(name, False)

    def set_feature_view_state(self, name: str, state: FeatureViewState) -> None:
        """Sets where a feature view stands in its life; only some steps are allowed."""
        self._native.set_state(name, state.name)


def _kind(obj: Any) -> str:
    kind = kind_of(obj)
    if kind is None:
        raise TypeError(
            f"`{obj!r:.80}` ({type(obj).__name__}) is not an object of a feature store; "
            f"apply takes {', '.join(each.words for each in KINDS.values())}"
        )
    return kind.name


def _locations(objects: Sequence[Any]) -> dict[str, str]:
    places = {f"{_kind(each)}/{each.name}": getattr(each, "_declared_at", "") for each in objects}
    return {key: place for key, place in places.items() if place}


def _with_request_sources(objects: list[Any]) -> list[Any]:
    """The objects with all data sources that nest in them."""
    found = with_nested_sources(objects)
    for each in list(found):
        if _kind(each) == "on_demand_feature_view":
            found += [
                source
                for source in each.source_request_sources.values()
                if not any(source is x for x in found)
            ]
    return found


def _shown(obj: Any) -> Any:
    """An object as users declared it: without the entity that stands for no entity."""
    if getattr(obj, "entities", None) == [_DUMMY_ENTITY]:
        obj.entities = []
    return obj
