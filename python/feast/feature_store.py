"""The feature store: what users call, handed to the engine."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Mapping, Sequence
from contextvars import ContextVar, Token
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from feast import _frames
from feast._objects import KINDS, VIEW_KINDS, kind_of, registry_message, with_nested_sources
from feast._settings import FeastConfigError
from feast._unavailable import NotAvailableYet
from feast.data_source import PushMode
from feast.errors import FeatureViewNotFoundException, InvalidFeaturesParameterType
from feast.freshness import FeatureViewFreshness
from feast.online_response import OnlineResponse
from feast.repo_config import RepoConfig, _effective, _read_yaml
from feast.retrieval_job import RetrievalJob

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

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
    from feast.saved_dataset import SavedDataset, SavedDatasetStorage, ValidationReference
    from feast.stream_feature_view import StreamFeatureView

__all__ = ["FeatureStore"]

_YAML_PATH_VARIABLE = "FEAST_FS_YAML_FILE_PATH"
_DUMMY_ENTITY = "__dummy"


class FeatureStore:
    """A feature store: definitions in a registry, history in an offline store, latest values in an online store.

    It is found by the folder of its `feature_store.yaml` (`repo_path`, by default the working directory), by the path
    of such a file (`fs_yaml_file`), or is described by a `RepoConfig`.
    """

    def __init__(
        self,
        repo_path: str | None = None,
        config: RepoConfig | None = None,
        fs_yaml_file: Path | None = None,
        embedding_provider: Any = None,
    ) -> None:
        if config is not None and fs_yaml_file is not None:
            raise ValueError(
                "a feature store takes `config` or `fs_yaml_file`, not both; leave one out"
            )
        if config is not None and not isinstance(config, RepoConfig):
            raise TypeError(
                f"`config` must be a RepoConfig, but is of class {type(config).__name__}; "
                "write `RepoConfig(project=..., registry=...)`"
            )
        for name, value in (("repo_path", repo_path), ("fs_yaml_file", fs_yaml_file)):
            if value is not None and not isinstance(value, (str, os.PathLike)):
                raise TypeError(f"`{name}` must be a path, but is {value!r:.80}; write it as text")
        path: Path | None = None
        if repo_path is None and config is not None:
            repo_path = config.repo_path
        self.repo_path = Path(repo_path) if repo_path else Path(os.getcwd())
        if config is not None:
            text = config.to_yaml()
        else:
            path = Path(
                fs_yaml_file
                or os.environ.get(_YAML_PATH_VARIABLE)
                or self.repo_path / "feature_store.yaml"
            )
            text = _read_yaml(path)
        self._open(text, path, interpolate=config is None)
        for warning in self._native.warnings:
            warnings.warn(warning, stacklevel=2)
        self._config = config
        self._embedding_provider = embedding_provider

    def _open(self, text: str, path: Path | None, interpolate: bool) -> None:
        from feast._feast import Store

        try:
            self._native = Store(text, str(self.repo_path), interpolate)
        except FeastConfigError as error:
            raise FeastConfigError(error._error_message, path) from None
        self._yaml, self._interpolate = text, interpolate
        self._config: RepoConfig | None = None
        self._embedding_provider = None
        self._current_project: ContextVar[str | None] = ContextVar("current_project", default=None)

    def __getstate__(self) -> dict[str, Any]:
        return {
            "repo_path": self.repo_path,
            "yaml": self._yaml,
            "interpolate": self._interpolate,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.repo_path = state["repo_path"]
        self._open(state["yaml"], None, state["interpolate"])

    def __repr__(self) -> str:
        return f"FeatureStore(project={self.project!r}, repo_path={str(self.repo_path)!r})"

    # What it is made of.

    @property
    def config(self) -> RepoConfig:
        """The configuration in effect."""
        if self._config is None:
            self._config = _effective(self._native, self.repo_path)
        return self._config

    @property
    def project(self) -> str:
        """The project that names refer to."""
        return self._current_project.get() or self._native.project

    @property
    def registry(self) -> Registry:
        """The registry, for those who want to name the project in each call."""
        from feast.infra.registry.registry import Registry

        return Registry._of(self._native)

    @property
    def provider(self) -> Any:
        """Feast's provider, which does not exist here: stores are used directly."""
        raise NotAvailableYet("a provider object", "use the methods of the feature store")

    @property
    def embedding_provider(self) -> Any:
        """The model that turns a query into a vector."""
        if self._embedding_provider is None:
            raise NotAvailableYet(
                "a built-in embedding provider", "pass `embedding_provider=` to the feature store"
            )
        return self._embedding_provider

    @property
    def mlflow(self) -> Any:
        """The MLflow integration; None because it is off."""
        return None

    @property
    def openlineage_emitter(self) -> Any:
        """The OpenLineage integration; None because it is off."""
        return None

    def set_current_project(self, project: str | None) -> Token[str | None]:
        """Makes names refer to another project of the registry, in this context."""
        return self._current_project.set(project)

    def reset_current_project(self, token: Token[str | None]) -> None:
        """Undoes `set_current_project`."""
        self._current_project.reset(token)

    async def initialize(self) -> None:
        """Nothing to do: connections open when they are first used."""

    async def close(self) -> None:
        """Closes all connections."""
        import asyncio

        await asyncio.to_thread(self._native.close)

    # Definitions.

    def apply(
        self,
        objects: Any,
        objects_to_delete: list[Any] | None = None,
        partial: bool = True,
        skip_feature_view_validation: bool = False,
        no_promote: bool = False,
    ) -> None:
        """Writes objects to the registry and makes the tables they need.

        Nothing else is deleted, except `objects_to_delete` when `partial` is False.
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

    def plan(
        self,
        desired_repo_contents: RepoContents,
        skip_feature_view_validation: bool = False,
        progress_ctx: Any = None,
    ) -> tuple[RegistryDiff, InfraDiff, Any]:
        """What applying the contents of a repository would change; nothing is changed."""
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
            "skip_feature_view_validation": skip_feature_view_validation,
            "locations": _locations(objects),
        }
        answer = self._native.plan(
            registry_message(objects).SerializeToString(), json.dumps(options)
        )
        desired = {(_kind(each), each.name): each for each in objects}
        return RegistryDiff._from_native(answer, desired), InfraDiff._from_native(answer), None

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

    def _put(self, obj: Any) -> None:
        self._native.put_object(_kind(obj), obj.to_proto().SerializeToString())

    def _any_view(self, name: str) -> tuple[str, Any]:
        """The feature view of a name, whatever its kind."""
        for kind in VIEW_KINDS:
            for message in self._native.list_objects(
                kind, self.project, None, kind == VIEW_KINDS[0]
            ):
                if KINDS[kind].message_class().FromString(message).spec.name == name:
                    return kind, KINDS[kind].decode(message)
        raise FeatureViewNotFoundException(name, self.project)

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

    def list_saved_datasets(
        self,
        allow_cache: bool = False,
        tags: dict[str, str] | None = None,
        namespace: str | None = None,
        collection: str | None = None,
    ) -> list[SavedDataset]:
        """The saved datasets, of one namespace and collection if these are given."""
        return [
            each
            for each in self._list("saved_dataset", allow_cache, tags)
            if namespace in (None, each.namespace) and collection in (None, each.collection)
        ]

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

    def get_validation_reference(self, name: str, allow_cache: bool = False) -> ValidationReference:
        """The validation reference of this name, with its dataset."""
        reference = self._get("validation_reference", name, allow_cache)
        reference._dataset = self.get_saved_dataset(reference.dataset_name)
        return reference

    def delete_feature_view(self, name: str) -> None:
        """Deletes a feature view of any kind, and its table in the online store."""
        kind, _ = self._any_view(name)
        self._native.delete_object(kind, name)

    def delete_feature_service(self, name: str) -> None:
        """Deletes a feature service."""
        self._native.delete_object("feature_service", name)

    def delete_project(self, name: str, commit: bool = True) -> None:
        """Deletes a project with all its objects from the registry."""
        project = self.get_project(name)
        if project.tags.get("feast.dev/protected-project") == "true":
            raise ValueError(
                f"project `{name}` is protected by its tag `feast.dev/protected-project`; remove the tag to delete it"
            )
        self._native.delete_object("project", name)

    def enable_feature_view(self, name: str) -> None:
        """Lets a feature view be materialized and served again."""
        self._set_enabled(name, True)

    def disable_feature_view(self, name: str) -> None:
        """Keeps a feature view from being materialized and served."""
        self._set_enabled(name, False)

    def _set_enabled(self, name: str, enabled: bool) -> None:
        _, view = self._any_view(name)
        view.enabled = enabled
        self._put(view)

    def set_feature_view_state(self, name: str, state: FeatureViewState) -> None:
        """Sets where a feature view stands in its life; only some steps are allowed."""
        _, view = self._any_view(name)
        if not view.state.can_transition_to(state):
            allowed = [each.name for each in type(state) if view.state.can_transition_to(each)]
            raise ValueError(
                f"feature view `{name}` is in state {view.state.name} and cannot become {state.name}; "
                f"it can become {', '.join(allowed) or 'nothing else'}"
            )
        view.state = state
        self._put(view)

    # From history to training data.

    def get_historical_features(
        self,
        entity_df: Any = None,
        features: list[str] | FeatureService = [],  # noqa: B006 - Feast's signature; never changed
        full_feature_names: bool = False,
        start_date: datetime | None = None,
        end_date: datetime | None = None,
        filter_by_created_timestamp: bool = False,
        as_of: datetime | None = None,
    ) -> RetrievalJob:
        """Feature values as they were known at the time of each entity row.

        `entity_df` is a frame (pandas, Arrow, Polars), an SQL query, or the path of a Parquet file. Without it, the
        rows of the features themselves between `start_date` and `end_date` are returned.

        With `filter_by_created_timestamp`, a value counts from the time on at which it was written; with `as_of`, only
        what had happened and been written by then counts.
        """
        if entity_df is not None and (start_date is not None or end_date is not None):
            raise ValueError(
                "`entity_df` cannot be combined with `start_date` or `end_date`; leave out one or the other"
            )
        if isinstance(entity_df, str) and _is_path(entity_df):
            entity_df = Path(entity_df)
        if isinstance(entity_df, os.PathLike):
            entity_df = self._entity_file(Path(entity_df))
        elif entity_df is not None and not isinstance(entity_df, str):
            entity_df = _frames.to_stream(entity_df, "entity_df")
        selection = _selection(features)
        options = {
            "full_feature_names": bool(full_feature_names),
            "start": None if start_date is None else _frames.microseconds(start_date, "start_date"),
            "end": None if end_date is None else _frames.microseconds(end_date, "end_date"),
            "filter_by_created_timestamp": filter_by_created_timestamp,
            "as_of": None if as_of is None else _frames.microseconds(as_of, "as_of"),
        }
        native = self._native.get_historical_features(entity_df, selection, json.dumps(options))
        return RetrievalJob(
            native,
            full_feature_names=full_feature_names,
            on_demand_feature_views=lambda: self._on_demand_views_of(features),
            staging_location=getattr(self.config.offline_store, "staging_location", None),
        )

    def _entity_file(self, path: Path) -> Path:
        """A relative path starts at the repository, as those of sources do, or else at the working directory."""
        if not path.is_absolute() and not (self.repo_path / path).exists() and path.exists():
            return path.absolute()
        return path

    def _on_demand_views_of(
        self, features: list[str] | FeatureService
    ) -> list[OnDemandFeatureView]:
        if isinstance(features, (list, tuple)):
            names = {reference.partition(":")[0].partition("@")[0] for reference in features}
        else:
            names = {projection.name for projection in features.feature_view_projections}
        return [
            view
            for view in self.list_on_demand_feature_views(allow_cache=True)
            if view.name in names
        ]

    def create_saved_dataset(
        self,
        from_: RetrievalJob,
        name: str,
        storage: SavedDatasetStorage,
        tags: dict[str, str] | None = None,
        feature_service: FeatureService | None = None,
        allow_overwrite: bool = False,
    ) -> SavedDataset:
        """Runs a query, writes its rows to a storage, and remembers them in the registry under a name."""
        from feast.saved_dataset import SavedDataset

        if not isinstance(from_, RetrievalJob):
            raise TypeError(
                f"saved dataset `{name}`: `from_` must be a retrieval job, but is of class {type(from_).__name__}; "
                "pass what `get_historical_features` returns"
            )
        metadata = from_.metadata
        if metadata is None:
            raise ValueError(
                f"saved dataset `{name}`: the job only reads back stored rows; "
                "pass one that comes from `get_historical_features`"
            )
        dataset = SavedDataset(
            name=name,
            features=metadata.features,
            join_keys=metadata.keys,
            full_feature_names=from_.full_feature_names,
            storage=storage,
            tags=tags,
            feature_service_name=feature_service.name if feature_service else None,
        )
        from_._save(dataset, allow_overwrite)
        return self.get_saved_dataset(name)

    def get_saved_dataset(self, name: str) -> SavedDataset:
        """The saved dataset of this name, with a job that reads its rows."""
        dataset = self._get("saved_dataset", name, False)
        return dataset.with_retrieval_job(self._stored_rows(dataset))

    def _stored_rows(self, dataset: SavedDataset) -> RetrievalJob:
        storage = dataset.storage.to_proto().SerializeToString()
        return RetrievalJob(
            _Stored(self._native, storage), full_feature_names=dataset.full_feature_names
        )

    def create_dataset_from_retrieval(
        self,
        name: str,
        entity_df: pd.DataFrame,
        features: list[str] | FeatureService,
        storage: SavedDatasetStorage,
        tags: dict[str, str] | None = None,
        allow_overwrite: bool = False,
    ) -> SavedDataset:
        """`get_historical_features` and `create_saved_dataset` in one."""
        job = self.get_historical_features(entity_df=entity_df, features=features)
        return self.create_saved_dataset(
            job, name, storage, tags=tags, allow_overwrite=allow_overwrite
        )

    def retrieve_dataset_data(self, name: str, limit: int = 10) -> pd.DataFrame:
        """The first rows of a saved dataset."""
        stored = self._stored_rows(self._get("saved_dataset", name, False))
        reader = stored.to_arrow_batches()
        batches, n_rows = [], 0
        for batch in reader:
            batches.append(batch.slice(0, limit - n_rows))
            n_rows += len(batches[-1])
            if n_rows >= limit:
                break
        return _frames.to_pandas(
            _frames._pyarrow("a table").Table.from_batches(batches, schema=reader.schema)
        )

    # From history to the online store.

    def materialize(
        self,
        start_date: datetime,
        end_date: datetime,
        feature_views: list[str] | None = None,
        disable_event_timestamp: bool = False,
        full_feature_names: bool = False,
        version: str | None = None,
        force: bool = False,
        run_async: bool = False,
        *,
        shard: str | None = None,
    ) -> None:
        """Copies the latest values between two times, both included, into the online store.

        `shard`, such as `"1/4"`, copies those of a part of the entity keys; when all parts are there, the span is
        recorded as materialized.
        """
        start, end = (
            _frames.microseconds(start_date, "start_date"),
            _frames.microseconds(end_date, "end_date"),
        )
        if start > end:
            raise ValueError(
                f"`start_date` ({start_date}) is after `end_date` ({end_date}); swap them"
            )
        options = {
            "feature_views": _view_names(feature_views),
            "disable_event_timestamp": disable_event_timestamp,
            "full_feature_names": full_feature_names,
            "version": version,
            "force": force,
            "shard": shard,
        }
        self._native.materialize(start, end, json.dumps(options), None)

    def materialize_incremental(
        self,
        end_date: datetime,
        feature_views: list[str] | None = None,
        full_feature_names: bool = False,
        version: str | None = None,
        force: bool = False,
        run_async: bool = False,
        *,
        shard: str | None = None,
    ) -> None:
        """Copies what is new since the last materialization of each view into the online store.

        `shard` is as in `materialize`.
        """
        options = {
            "feature_views": _view_names(feature_views),
            "full_feature_names": full_feature_names,
            "version": version,
            "force": force,
            "shard": shard,
        }
        self._native.materialize(
            None, _frames.microseconds(end_date, "end_date"), json.dumps(options), None
        )

    def freshness(self, quick: bool = False) -> list[FeatureViewFreshness]:
        """How old the newest value of each feature view is, online and offline, and who says so.

        With ``quick`` no store reads rows for it: the registry tells until when views were materialized, and files
        tell what their footers say.
        """
        return [FeatureViewFreshness.from_dict(view) for view in json.loads(self._native.freshness_json(quick))]

    def push(
        self,
        push_source_name: str,
        df: pd.DataFrame,
        allow_registry_cache: bool = True,
        to: PushMode = PushMode.ONLINE,
        transform_on_write: bool = True,
    ) -> None:
        """Writes rows to every feature view over a push source."""
        self._native.push(
            push_source_name, _frames.to_stream(df, "df"), _push_target(to), transform_on_write
        )

    async def push_async(
        self,
        push_source_name: str,
        df: pd.DataFrame,
        allow_registry_cache: bool = True,
        to: PushMode = PushMode.ONLINE,
        **kwargs: Any,
    ) -> None:
        """`push` without blocking the event loop."""
        await self._native.push_async(
            push_source_name, _frames.to_stream(df, "df"), _push_target(to), True
        )

    def write_to_online_store(
        self,
        feature_view_name: str,
        df: pd.DataFrame | None = None,
        inputs: dict[str, list[Any]] | pd.DataFrame | None = None,
        allow_registry_cache: bool = True,
        transform_on_write: bool = True,
    ) -> None:
        """Writes rows of one feature view to the online store. Rows come as a frame, or as lists in `inputs`."""
        self._native.write_to_online_store(
            feature_view_name, _rows_to_write(feature_view_name, df, inputs), transform_on_write
        )

    async def write_to_online_store_async(
        self,
        feature_view_name: str,
        df: pd.DataFrame | None = None,
        inputs: dict[str, list[Any]] | pd.DataFrame | None = None,
        allow_registry_cache: bool = True,
    ) -> None:
        """`write_to_online_store` without blocking the event loop."""
        await self._native.write_to_online_store_async(
            feature_view_name, _rows_to_write(feature_view_name, df, inputs), True
        )

    def write_to_offline_store(
        self,
        feature_view_name: str,
        df: pd.DataFrame,
        allow_registry_cache: bool = True,
        reorder_columns: bool = True,
    ) -> None:
        """Appends rows to the batch source of a feature view."""
        self._native.write_to_offline_store(
            feature_view_name, _frames.to_stream(df, "df"), reorder_columns
        )

    # Serving.

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
            self._native.get_online_features(
                _selection(features), _entity_columns(entity_rows), options
            )
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
            await self._native.get_online_features_async(
                _selection(features), _entity_columns(entity_rows), options
            )
        )

    def serve(
        self,
        host: str,
        port: int,
        type_: str = "http",
        no_access_log: bool = True,
        workers: int = 1,
        worker_connections: int = 1000,
        max_requests: int = 1000,
        max_requests_jitter: int = 50,
        metrics: bool = False,
        keep_alive_timeout: int = 30,
        tls_key_path: str = "",
        tls_cert_path: str = "",
        registry_ttl_sec: int = 60,
    ) -> None:
        """Serves online features over HTTP until interrupted. One process uses all cores: `workers` change nothing."""
        options = {
            "host": host,
            "port": port,
            "type": type_,
            "no_access_log": no_access_log,
            "workers": workers,
            "metrics": metrics,
            "keep_alive_timeout": keep_alive_timeout,
            "tls_key_path": tls_key_path,
            "tls_cert_path": tls_cert_path,
            "registry_ttl_sec": registry_ttl_sec,
        }
        self._native.serve(json.dumps(options))

    def get_feature_server_endpoint(self) -> str | None:
        """The address of a feature server that the store itself has started; there is none."""
        return None

    # What is still to come.

    def retrieve_online_documents(
        self,
        query: str | list[float],
        top_k: int,
        features: list[str],
        distance_metric: str | None = "L2",
    ) -> OnlineResponse:
        """Similarity search: not available yet."""
        raise NotAvailableYet("searching for similar vectors")

    def retrieve_online_documents_v2(
        self,
        features: list[str],
        top_k: int,
        query: list[float] | None = None,
        query_string: str | None = None,
        distance_metric: str | None = "L2",
        query_image_bytes: bytes | None = None,
        query_image_model: str | None = "resnet34",
        combine_with_text: bool = False,
        text_weight: float = 0.5,
        image_weight: float = 0.5,
        combine_strategy: str = "weighted_sum",
        include_feature_view_version_metadata: bool = False,
        filters: Any = None,
    ) -> OnlineResponse:
        """Similarity and text search: not available yet."""
        raise NotAvailableYet("searching for similar vectors")

    async def openai_search(
        self,
        vector_store_id: str,
        query: str | list[str],
        *,
        vs_id: str | None = None,
        max_num_results: int = 10,
        filters: Any = None,
        ranking_options: dict[str, Any] | None = None,
        rewrite_query: bool | None = None,
        features_to_retrieve: list[str] | None = None,
    ) -> dict[str, Any]:
        """Search in the shape of OpenAI's vector stores: not available yet."""
        raise NotAvailableYet("searching for similar vectors")

    def precompute_feature_service(
        self, feature_service_name: str | None = None, batch_size: int = 1000
    ) -> int:
        """Precomputed feature vectors: not available yet."""
        raise NotAvailableYet(
            "precomputing feature services", "read them with `get_online_features`"
        )

    async def update_online_store(
        self,
        feature_view_name: str,
        df: pd.DataFrame,
        update_expressions: dict[str, str],
        allow_registry_cache: bool = True,
    ) -> None:
        """Update expressions of DynamoDB: not available yet."""
        raise NotAvailableYet(
            "updating lists in place", "write the whole list with `write_to_online_store`"
        )

    def serve_ui(
        self,
        host: str,
        port: int,
        root_path: str = "",
        tls_key_path: str = "",
        tls_cert_path: str = "",
        cors_origins: list[str] | None = None,
    ) -> None:
        """The web interface: not available yet."""
        raise NotAvailableYet("the web interface")

    def serve_registry(
        self,
        port: int,
        tls_key_path: str = "",
        tls_cert_path: str = "",
        rest_api: bool = False,
        host: str = "::",
    ) -> None:
        """Serves the registry to other machines until Ctrl-C: over gRPC on all addresses, or over REST on `host`."""
        self._native.serve_registry(host, port, tls_key_path, tls_cert_path, rest_api)

    def serve_offline(
        self, host: str, port: int, tls_key_path: str = "", tls_cert_path: str = ""
    ) -> None:
        """The offline store server: not available yet."""
        raise NotAvailableYet("the offline store server")

    def serve_transformations(self, port: int, host: str = "::") -> None:
        """Runs the functions of on-demand feature views for other servers, over gRPC, until Ctrl-C.

        It listens on all interfaces, as Feast's does; ``host="127.0.0.1"`` keeps it to this machine.
        """
        self._native.serve_transformations(host, port)

    def write_logged_features(self, logs: pa.Table | Path, source: FeatureService) -> None:
        """Adds rows to the log that the feature service names: a table, or Parquet files at a path.

        Readers of the log see all of a call or nothing of it.
        """
        if isinstance(logs, (str, Path)):
            import pyarrow.dataset

            logs = pyarrow.dataset.dataset(logs, format="parquet").to_table()
        self._native.write_logged_features(
            _frames.to_stream(logs, "logs"), source.to_proto().SerializeToString()
        )

    def validate_logged_features(
        self,
        source: FeatureService,
        start: datetime,
        end: datetime,
        reference: ValidationReference,
        throw_exception: bool = True,
        cache_profile: bool = True,
    ) -> Any:
        """Validation of logged features: not available yet."""
        raise NotAvailableYet("validating logged features")


class _Stored:
    """Stored rows, read anew by each use."""

    def __init__(self, native: Any, storage: bytes) -> None:
        self._native = native
        self._storage = storage

    def rows(self, timeout: float | None = None) -> Any:
        return self._native.read_storage(self._storage, timeout)

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        return self.rows().__arrow_c_stream__(requested_schema)

    def explain(self) -> str:
        raise NotAvailableYet("SQL of stored rows")

    def write(self, path: str, allow_overwrite: bool) -> list[str]:
        raise NotAvailableYet(
            "copying a saved dataset", "save the job of `get_historical_features` again"
        )


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


def _selection(features: Any) -> list[str] | bytes:
    """Feature references, or the message of a feature service."""
    if isinstance(features, (list, tuple)):
        if not all(isinstance(each, str) for each in features):
            raise InvalidFeaturesParameterType(features)
        return list(features)
    kind = kind_of(features)
    if kind is None or kind.name != "feature_service":
        raise InvalidFeaturesParameterType(features)
    return bytes(features.to_proto().SerializeToString())


def _view_names(feature_views: Any) -> list[str] | None:
    if feature_views is None:
        return None
    names = list(feature_views) if isinstance(feature_views, (list, tuple, set)) else [None]
    if not all(isinstance(name, str) for name in names):
        raise TypeError(
            f"`feature_views` must be a list of names, but is {feature_views!r:.80}; "
            'write for instance `["driver_stats"]`'
        )
    return names


def _is_path(text: str) -> bool:
    """Whether text that stands for entity rows names a file, and is not a query."""
    first = text.split(maxsplit=1)[:1]
    is_query = len(text.split()) > 1 and first[0].lower() in ("select", "with", "(select", "values")
    return not is_query and text.lower().endswith((".parquet", ".csv"))


def _rows_to_write(feature_view: str, df: Any, inputs: Any) -> Any:
    if (df is None) == (inputs is None):
        found = "neither is" if df is None else "both are"
        raise ValueError(
            f"writing to feature view `{feature_view}` takes `df` or `inputs`, but {found} given; pass one of them"
        )
    return _frames.to_stream(inputs, "inputs") if df is None else _frames.to_stream(df, "df")


def _push_target(to: Any) -> str:
    if not isinstance(to, PushMode):
        valid = ", ".join(f"`PushMode.{mode.name}`" for mode in PushMode)
        raise ValueError(f"`to` must be one of {valid}, but is {to!r:.80}")
    return to.name.lower()


def _online_options(full_feature_names: bool, include_feature_view_version_metadata: bool) -> str:
    if not full_feature_names and not include_feature_view_version_metadata:
        return "{}"
    return json.dumps(
        {
            "full_feature_names": bool(full_feature_names),
            "include_feature_view_version_metadata": include_feature_view_version_metadata,
        }
    )


def _entity_columns(entity_rows: Any) -> dict[str, list[Any]]:
    """Entity rows as one list of plain values per column."""
    if isinstance(entity_rows, Mapping):
        return {
            _column_name(name): _plain_list(name, values) for name, values in entity_rows.items()
        }
    if not isinstance(entity_rows, (list, tuple)):
        raise TypeError(
            "`entity_rows` must be a list of mappings, one per row, or a mapping from join keys to lists, "
            f"but is of class {type(entity_rows).__name__}"
        )
    if not entity_rows:
        raise ValueError(
            '`entity_rows` is empty; pass at least one row, such as `[{"driver_id": 1001}]`'
        )
    columns: dict[str, list[Any]] = {}
    for number, row in enumerate(entity_rows):
        if not isinstance(row, Mapping):
            raise TypeError(
                f"row {number + 1} of `entity_rows` must be a mapping, but is of class {type(row).__name__}; "
                'write rows such as `{"driver_id": 1001}`'
            )
        if number == 0:
            columns = {_column_name(name): [] for name in row}
        if row.keys() != columns.keys():
            raise ValueError(
                f"All entity_rows must have the same keys: row 1 has {_names(columns)}, row {number + 1} has "
                f"{_names(row)}; give each row a value in every column"
            )
        for name, value in row.items():
            columns[name].append(_plain_value(value))
    return columns


def _names(row: Mapping[Any, Any]) -> str:
    return ", ".join(f"`{name}`" for name in row) or "none"


def _column_name(name: Any) -> str:
    if not isinstance(name, str):
        raise TypeError(
            f"the columns of `entity_rows` must be named by texts, but one is {name!r:.80} ({type(name).__name__}); "
            "write the name of the join key"
        )
    return name


def _plain_list(name: str, values: Any) -> list[Any]:
    if getattr(getattr(values, "dtype", None), "kind", None) == "M" and type(values).__name__ == "ndarray":
        values = values.astype("datetime64[us]")  # finer ones would become integers
    if hasattr(values, "tolist"):  # numpy, pandas
        return list(values.tolist())
    if hasattr(values, "to_pylist"):  # Arrow
        return list(values.to_pylist())
    if type(values).__name__ == "RepeatedValue":
        values = values.val
    # Lists of protobuf have `__getitem__` only.
    is_iterable = hasattr(values, "__iter__") or hasattr(values, "__getitem__")
    if isinstance(values, (str, bytes)) or not is_iterable:
        raise TypeError(
            f"column `{name}` of `entity_rows` must be a list, but is {values!r:.80} ({type(values).__name__}); "
            f'write `{{"{name}": [...]}}`, or a list of rows'
        )
    return [_plain_value(value) for value in values]


def _plain_value(value: Any) -> Any:
    """A value of a protobuf message as what it holds; the engine knows all other values."""
    if type(value).__name__ == "Value" and hasattr(value, "WhichOneof"):
        member = value.WhichOneof("val")
        return None if member is None else getattr(value, member)
    return value
