"""The registry: what `store.registry` gives, with the project named in each call."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from feast._objects import KINDS, VIEW_KINDS, kind_of
from feast._unavailable import NotAvailableYet
from feast.errors import FeatureViewNotFoundException, FeatureViewVersionNotFound
from feast.infra.registry.base_registry import BaseRegistry
from feast.repo_config import RegistryConfig, RepoConfig
from feast.utils import to_naive_utc

__all__ = ["Registry", "RegistryConfig"]


class Registry(BaseRegistry):
    """The objects of all projects in one registry.

    Every write is committed at once, as one change: `commit` changes nothing.
    """

    def __init__(
        self,
        project: str,
        registry_config: RegistryConfig | None,
        repo_path: Any = None,
        auth_config: Any = None,
    ) -> None:
        from feast._feast import Store

        config = RepoConfig(project=project, registry=registry_config)
        self._native = Store(config.to_yaml(), str(repo_path or "."))

    @classmethod
    def _of(cls, native: Any) -> Registry:
        registry = cls.__new__(cls)
        registry._native = native
        return registry

    def _list(
        self, kind: str, project: str | None, allow_cache: bool, tags: dict[str, str] | None
    ) -> list[Any]:
        found = self._native.list_objects(kind, project, tags, not allow_cache)
        return [KINDS[kind].decode(message) for message in found]

    def _get(self, kind: str, name: str, project: str, allow_cache: bool) -> Any:
        return KINDS[kind].decode(self._native.get_object(kind, name, project, not allow_cache))

    def _put(self, obj: Any, project: str) -> None:
        self._check(project)
        kind = kind_of(obj)
        if kind is None:
            raise TypeError(f"`{type(obj).__name__}` is not a kind of object that a registry holds")
        self._native.put_object(kind.name, obj.to_proto().SerializeToString())

    def _delete(self, kind: str, name: str, project: str) -> None:
        self._check(project)
        self._native.delete_object(kind, name)

    def _check(self, project: str) -> None:
        if project != self._native.project:
            raise ValueError(
                f"the registry was opened for project `{self._native.project}` and cannot write to `{project}`; "
                f"open a feature store of that project"
            )

    def list_entities(
        self, project: str, allow_cache: bool = False, tags: dict[str, str] | None = None
    ) -> list[Any]:
        """The entities of a project."""
        return self._list("entity", project, allow_cache, tags)

    def get_entity(self, name: str, project: str, allow_cache: bool = False) -> Any:
        """The entity of this name."""
        return self._get("entity", name, project, allow_cache)

    def apply_entity(self, entity: Any, project: str, commit: bool = True) -> None:
        """Writes a entity."""
        self._put(entity, project)

    def delete_entity(self, name: str, project: str, commit: bool = True) -> None:
        """Deletes a entity."""
        self._delete("entity", name, project)

    def list_data_sources(
        self, project: str, allow_cache: bool = False, tags: dict[str, str] | None = None
    ) -> list[Any]:
        """The data sources of a project."""
        return self._list("data_source", project, allow_cache, tags)

    def get_data_source(self, name: str, project: str, allow_cache: bool = False) -> Any:
        """The data source of this name."""
        return self._get("data_source", name, project, allow_cache)

    def apply_data_source(self, data_source: Any, project: str, commit: bool = True) -> None:
        """Writes a data source."""
        self._put(data_source, project)

    def delete_data_source(self, name: str, project: str, commit: bool = True) -> None:
        """Deletes a data source."""
        self._delete("data_source", name, project)

    def list_feature_services(
        self, project: str, allow_cache: bool = False, tags: dict[str, str] | None = None
    ) -> list[Any]:
        """The feature services of a project."""
        return self._list("feature_service", project, allow_cache, tags)

    def get_feature_service(self, name: str, project: str, allow_cache: bool = False) -> Any:
        """The feature service of this name."""
        return self._get("feature_service", name, project, allow_cache)

    def apply_feature_service(
        self, feature_service: Any, project: str, commit: bool = True
    ) -> None:
        """Writes a feature service."""
        self._put(feature_service, project)

    def delete_feature_service(self, name: str, project: str, commit: bool = True) -> None:
        """Deletes a feature service."""
        self._delete("feature_service", name, project)

    def list_feature_views(
        self, project: str, allow_cache: bool = False, tags: dict[str, str] | None = None, **_: Any
    ) -> list[Any]:
        """The feature views of a project."""
        return self._list("feature_view", project, allow_cache, tags)

    def get_feature_view(self, name: str, project: str, allow_cache: bool = False) -> Any:
        """The feature view of this name."""
        return self._get("feature_view", name, project, allow_cache)

    def list_stream_feature_views(
        self, project: str, allow_cache: bool = False, tags: dict[str, str] | None = None, **_: Any
    ) -> list[Any]:
        """The stream feature views of a project."""
        return self._list("stream_feature_view", project, allow_cache, tags)

    def get_stream_feature_view(self, name: str, project: str, allow_cache: bool = False) -> Any:
        """The stream feature view of this name."""
        return self._get("stream_feature_view", name, project, allow_cache)

    def list_on_demand_feature_views(
        self, project: str, allow_cache: bool = False, tags: dict[str, str] | None = None, **_: Any
    ) -> list[Any]:
        """The on demand feature views of a project."""
        return self._list("on_demand_feature_view", project, allow_cache, tags)

    def get_on_demand_feature_view(self, name: str, project: str, allow_cache: bool = False) -> Any:
        """The on demand feature view of this name."""
        return self._get("on_demand_feature_view", name, project, allow_cache)

    def list_label_views(
        self, project: str, allow_cache: bool = False, tags: dict[str, str] | None = None
    ) -> list[Any]:
        """The label views of a project."""
        return self._list("label_view", project, allow_cache, tags)

    def get_label_view(self, name: str, project: str, allow_cache: bool = False) -> Any:
        """The label view of this name."""
        return self._get("label_view", name, project, allow_cache)

    def list_saved_datasets(
        self,
        project: str,
        allow_cache: bool = False,
        tags: dict[str, str] | None = None,
        namespace: str | None = None,
        collection: str | None = None,
    ) -> list[Any]:
        """The saved datasets of a project, or of a namespace or collection in it."""
        return [
            each
            for each in self._list("saved_dataset", project, allow_cache, tags)
            if namespace in (None, each.namespace) and collection in (None, each.collection)
        ]

    def get_saved_dataset(self, name: str, project: str, allow_cache: bool = False) -> Any:
        """The saved dataset of this name."""
        return self._get("saved_dataset", name, project, allow_cache)

    def apply_saved_dataset(self, saved_dataset: Any, project: str, commit: bool = True) -> None:
        """Writes a saved dataset."""
        self._put(saved_dataset, project)

    def delete_saved_dataset(self, name: str, project: str, commit: bool = True) -> None:
        """Deletes a saved dataset."""
        self._delete("saved_dataset", name, project)

    def list_validation_references(
        self, project: str, allow_cache: bool = False, tags: dict[str, str] | None = None
    ) -> list[Any]:
        """The validation references of a project."""
        return self._list("validation_reference", project, allow_cache, tags)

    def get_validation_reference(self, name: str, project: str, allow_cache: bool = False) -> Any:
        """The validation reference of this name."""
        return self._get("validation_reference", name, project, allow_cache)

    def apply_validation_reference(
        self, validation_reference: Any, project: str, commit: bool = True
    ) -> None:
        """Writes a validation reference."""
        self._put(validation_reference, project)

    def delete_validation_reference(self, name: str, project: str, commit: bool = True) -> None:
        """Deletes a validation reference."""
        self._delete("validation_reference", name, project)

    def list_permissions(
        self, project: str, allow_cache: bool = False, tags: dict[str, str] | None = None
    ) -> list[Any]:
        """The permissions of a project."""
        return self._list("permission", project, allow_cache, tags)

    def get_permission(self, name: str, project: str, allow_cache: bool = False) -> Any:
        """The permission of this name."""
        return self._get("permission", name, project, allow_cache)

    def apply_permission(self, permission: Any, project: str, commit: bool = True) -> None:
        """Writes a permission."""
        self._put(permission, project)

    def delete_permission(self, name: str, project: str, commit: bool = True) -> None:
        """Deletes a permission."""
        self._delete("permission", name, project)

    def get_any_feature_view(self, name: str, project: str, allow_cache: bool = False) -> Any:
        """The feature view of this name, whatever its kind."""
        for view in self.list_all_feature_views(project, allow_cache):
            if view.name == name:
                return view
        raise FeatureViewNotFoundException(name, project)

    def list_all_feature_views(
        self,
        project: str,
        allow_cache: bool = False,
        tags: dict[str, str] | None = None,
        skip_udf: bool = False,
        updated_since: datetime | None = None,
    ) -> list[Any]:
        """The feature views of every kind, or those that changed at an instant or since."""
        views = [
            view for kind in VIEW_KINDS for view in self._list(kind, project, allow_cache, tags)
        ]
        if updated_since is None:
            return views
        since = to_naive_utc(updated_since)
        changed = ((view.last_updated_timestamp, view) for view in views)
        return [view for moment, view in changed if moment and to_naive_utc(moment) >= since]

    def apply_feature_view(
        self, feature_view: Any, project: str, commit: bool = True, no_promote: bool = False
    ) -> None:
        """Writes a feature view of any kind; tables of the online store are made by `store.apply`."""
        if no_promote:
            raise NotAvailableYet(
                "recording a version through the registry",
                "use `store.apply(..., no_promote=True)`",
            )
        self._put(feature_view, project)

    def delete_feature_view(self, name: str, project: str, commit: bool = True) -> None:
        """Deletes a feature view of any kind."""
        self._delete(kind_of(self.get_any_feature_view(name, project)).name, name, project)  # type: ignore[union-attr]

    def delete_label_view(self, name: str, project: str, commit: bool = True) -> None:
        """Deletes a label view."""
        self._delete("label_view", name, project)

    def list_feature_view_versions(self, name: str, project: str) -> list[dict[str, Any]]:
        """The versions of a feature view, oldest first."""
        records = [
            {
                "version": f"v{record.version_number}",
                "version_number": record.version_number,
                "feature_view_type": record.feature_view_type,
                "created_timestamp": record.created_timestamp.ToDatetime(),
                "version_id": record.version_id,
            }
            for record in self._versions(name, project)
        ]
        return sorted(records, key=lambda record: record["version_number"])

    def get_feature_view_by_version(
        self, name: str, project: str, version_number: int, allow_cache: bool = False
    ) -> Any:
        """A feature view as it was in one of its versions."""
        for record in self._versions(name, project):
            if record.version_number == version_number:
                view = KINDS[record.feature_view_type].decode(record.feature_view_proto)
                view.current_version_number = version_number
                return view
        raise FeatureViewVersionNotFound(name, f"v{version_number}", project)

    def _versions(self, name: str, project: str) -> list[Any]:
        history = self.proto().feature_view_version_history.records
        return [
            each
            for each in history
            if each.feature_view_name == name and each.project_id == project
        ]

    def list_projects(
        self, allow_cache: bool = False, tags: dict[str, str] | None = None
    ) -> list[Any]:
        """All projects of the registry."""
        return self._list("project", None, allow_cache, tags)

    def get_project(self, name: str, allow_cache: bool = False) -> Any:
        """The project of this name."""
        return self._get("project", name, name, allow_cache)

    def apply_project(self, project: Any, commit: bool = True) -> None:
        """Writes a project."""
        self._native.put_object("project", project.to_proto().SerializeToString())

    def delete_project(self, name: str, commit: bool = True) -> None:
        """Deletes a project with all its objects."""
        self._native.delete_object("project", name)

    def proto(self) -> Any:
        """The whole registry as a `feast.core.Registry` message."""
        from feast.protos.feast.core.Registry_pb2 import Registry as RegistryMessage

        return RegistryMessage.FromString(self._native.registry_bytes())

    def refresh(self, project: str | None = None) -> None:
        """Reads the registry anew."""
        self._native.refresh_registry()

    def commit(self) -> None:
        """Nothing to do: every write is committed at once."""

    def to_dict(self, project: str) -> dict[str, list[Any]]:
        """The objects of a project as JSON values, by kind, in order of names."""
        from google.protobuf.json_format import MessageToJson

        result = {}
        for kind in KINDS.values():
            messages = self._native.list_objects(
                kind.name, None if kind.name == "project" else project, None, False
            )
            values = [
                json.loads(MessageToJson(kind.message_class().FromString(each)))
                for each in messages
            ]
            if kind.name == "project":
                values = [value for value in values if value["spec"]["name"] == project]
            if values:
                result[kind.registry_field] = values
        return result
