"""`FeatureService`: a named selection of features, usually the inputs of one model."""

from __future__ import annotations

import copy
from datetime import datetime
from typing import TYPE_CHECKING, Any, Union

from feast._definition import (
    Definition,
    check_instance,
    check_text,
    checked_list,
    checked_texts,
    declared_at,
    did_you_mean,
    kind_of,
)
from feast.base_feature_view import BaseFeatureView
from feast.errors import FeatureViewMissingDuringFeatureServiceInference
from feast.feature_logging import LoggingConfig
from feast.feature_view_projection import FeatureViewProjection
from feast.version_utils import parse_version

if TYPE_CHECKING:
    from feast.feature_view import FeatureView
    from feast.labeling.label_view import LabelView
    from feast.on_demand_feature_view import OnDemandFeatureView

    Selected = Union[FeatureView, OnDemandFeatureView, LabelView, str]


class FeatureService(Definition):
    """A selection of features under one name.

    `features` lists views, parts of views (`view[["a", "b"]]`) and references by name (`view`,
    `view:feature`, `view@v2:feature`). References are looked up when the service is applied.
    """

    _compared = (
        "name",
        "_sorted_projections",
        "description",
        "tags",
        "owner",
        "logging_config",
        "precompute_online",
    )

    feature_view_projections: list[FeatureViewProjection]
    created_timestamp: datetime | None = None
    last_updated_timestamp: datetime | None = None
    logging_config: LoggingConfig | None = None
    precompute_online: bool = False

    def __init__(
        self,
        *,
        name: str,
        features: list[Selected],
        tags: dict[str, str] | None = None,
        description: str = "",
        owner: str = "",
        logging_config: LoggingConfig | None = None,
        precompute_online: bool = False,
    ) -> None:
        check_text("a feature service", "name", name)
        where = f"feature service `{name}`"
        if logging_config is not None:
            example = "LoggingConfig(destination=…)"
            check_instance(where, "logging_config", logging_config, LoggingConfig, example)
        self._declared_at = declared_at()
        self.name = name
        self._features = checked_list(where, "features", features, object, "driver_stats")
        self._pending_feature_refs: list[str] = []
        self.feature_view_projections = []
        self.description = description
        self.tags = checked_texts(where, "tags", tags)
        self.owner = owner
        self.created_timestamp = None
        self.last_updated_timestamp = None
        self.logging_config = logging_config
        self.precompute_online = precompute_online
        for one in self._features:
            if isinstance(one, str):
                self._pending_feature_refs.append(one)
            elif isinstance(one, BaseFeatureView):
                self.feature_view_projections.append(_projection_of(one))
            else:
                raise ValueError(
                    f"{where}: `features` holds {kind_of(one)}; possible are feature views, parts "
                    'of them such as `view[["a"]]`, and references such as "view:a"'
                )

    def __hash__(self) -> int:
        return hash(self.name)

    @property
    def _sorted_projections(self) -> list[FeatureViewProjection]:
        return sorted(self.feature_view_projections)

    def resolve_pending_refs(
        self,
        project: str,
        registry: Any,
        fvs_to_update: dict[str, Any] | None = None,
    ) -> None:
        """Turns references into projections.

        Views are taken from `fvs_to_update` (by name), then from the registry.
        """
        known = fvs_to_update or {}
        for ref in self._pending_feature_refs:
            name, number, feature = parse_reference(ref)
            if number is not None and registry is not None:
                view: Any = registry.get_feature_view_by_version(name, project, number)
            elif name in known:
                view = known[name]
            elif registry is not None:
                view = registry.get_any_feature_view(name, project)
            else:
                raise ValueError(
                    f"feature service `{self.name}` refers to `{ref}`, but no feature view is named "
                    f"`{name}`{did_you_mean(name, known)}"
                )
            projection = copy.copy(view.projection)
            projection.version_tag = number
            if feature is not None:
                if not projection.features:
                    projection.desired_features = [feature]
                else:
                    projection.features = [_feature_of(self.name, view, feature)]
            self.feature_view_projections.append(projection)
        self._pending_feature_refs = []

    def infer_features(self, fvs_to_update: dict[str, Any]) -> None:
        """Completes projections of views whose features were not known yet."""
        for projection in self.feature_view_projections:
            if projection.features and not projection.desired_features:
                continue
            if projection.name not in fvs_to_update:
                raise FeatureViewMissingDuringFeatureServiceInference(projection.name, self.name)
            view = fvs_to_update[projection.name]
            if projection.desired_features:
                wanted = projection.desired_features
                projection.features = [_feature_of(self.name, view, one) for one in wanted]
            else:
                projection.features = view.features

    def prepare_for_apply(
        self, registry: Any, project: str, allow_cache: bool = False
    ) -> FeatureService:
        """Resolves everything that is known by name only, with views of the registry."""
        self.resolve_pending_refs(project, registry)
        names = [
            one.name
            for one in self.feature_view_projections
            if one.desired_features or not one.features
        ]
        views = {
            name: registry.get_any_feature_view(name, project, allow_cache=allow_cache)
            for name in names
        }
        self.infer_features(views)
        return self

    def validate(self) -> None:
        """Refuses to precompute what is only computed on demand."""
        if not self.precompute_online:
            return
        for one in self._features:
            if getattr(one, "write_to_online_store", True) is False:
                raise ValueError(
                    f"feature service `{self.name}` has `precompute_online`, but the on-demand "
                    f"feature view `{one.name}` is computed at request time; set its "
                    "`write_to_online_store`, or leave `precompute_online` out"
                )

    def to_proto(self) -> Any:
        """The message `feast.core.FeatureService`; refused while references are unresolved."""
        from feast._wire import write_times
        from feast.protos.feast.core import FeatureService_pb2 as messages

        if self._pending_feature_refs:
            raise ValueError(
                f"feature service `{self.name}` still has the unresolved references "
                f"{self._pending_feature_refs}; apply it, or call `resolve_pending_refs` first"
            )
        spec = messages.FeatureServiceSpec(
            name=self.name,
            features=[one.to_proto() for one in self.feature_view_projections],
            tags=self.tags,
            description=self.description,
            owner=self.owner,
            logging_config=self.logging_config.to_proto() if self.logging_config else None,
            precompute_online=self.precompute_online,
        )
        meta = write_times(messages.FeatureServiceMeta(), self)
        return messages.FeatureService(spec=spec, meta=meta)

    @classmethod
    def from_proto(cls, feature_service_proto: Any) -> FeatureService:
        """Reads `feast.core.FeatureService`."""
        from feast._wire import read_times

        spec = feature_service_proto.spec
        service = cls(
            name=spec.name,
            features=[],
            tags=dict(spec.tags),
            description=spec.description,
            owner=spec.owner,
            logging_config=LoggingConfig.from_proto(spec.logging_config),
            precompute_online=spec.precompute_online,
        )
        service.feature_view_projections = [
            FeatureViewProjection.from_proto(one) for one in spec.features
        ]
        read_times(feature_service_proto.meta, service)
        return service

    @classmethod
    def build_apply_request(
        cls,
        *,
        name: str,
        project: str,
        feature_view_refs: list[tuple[str, list[str] | None]],
        description: str = "",
        tags: dict[str, str] | None = None,
        owner: str = "",
        commit: bool = True,
    ) -> Any:
        """The message that asks a registry server to apply a service, given by names only."""
        from feast.protos.feast.registry.RegistryServer_pb2 import ApplyFeatureServiceRequest

        request = ApplyFeatureServiceRequest(project=project, commit=commit)
        spec = request.feature_service.spec
        spec.name, spec.description, spec.owner = name, description, owner
        spec.tags.update(tags or {})
        for view, names in feature_view_refs:
            projection = spec.features.add(feature_view_name=view)
            for one in names or []:
                projection.feature_columns.add(name=one)
        return request


def parse_reference(ref: str) -> tuple[str, int | None, str | None]:
    """A reference as (view, version, feature): `view`, `view:feature` or `view@v2:feature`."""
    before, colon, feature = ref.partition(":")
    name, at, version = before.partition("@")
    if not name or (colon and not feature) or (at and not version):
        raise ValueError(
            f"`{ref}` is no feature reference; write `view`, `view:feature` or `view@v2:feature`"
        )
    latest, number = parse_version(version)
    return name, None if latest else number, feature or None


def _projection_of(view: BaseFeatureView) -> FeatureViewProjection:
    """The projection of a view, with its version where it is pinned to one."""
    projection = copy.copy(view.projection)
    latest, number = parse_version(view.version)
    if projection.version_tag is None and not latest:
        projection.version_tag = number
    return projection


def _feature_of(service: str, view: Any, name: str) -> Any:
    for one in view.features:
        if one.name == name:
            return one
    known = [one.name for one in view.features]
    raise ValueError(
        f"feature service `{service}` selects `{view.name}:{name}`, but the view has no such feature"
        + did_you_mean(name, known)
    )
