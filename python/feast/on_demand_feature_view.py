"""`OnDemandFeatureView`: features computed from other features and from the request itself."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, ClassVar, Union

from feast._definition import checked_list, did_you_mean, kind_of
from feast.aggregation import Aggregation
from feast.base_feature_view import (
    _FIELD_EXAMPLE,
    BaseFeatureView,
    entity_names,
    split_schema,
)
from feast.batch_feature_view import read_transformation
from feast.data_source import DataSource, RequestSource
from feast.entity import Entity
from feast.feature_view import DUMMY_ENTITY_NAME, FeatureView, FeatureViewState
from feast.feature_view_projection import FeatureViewProjection
from feast.field import Field
from feast.transformation.base import Transformation, source_text
from feast.value_type import ValueType

OnDemandSourceType = Union[FeatureView, FeatureViewProjection, RequestSource]

_MODES = ("pandas", "python", "substrait")


class OnDemandFeatureView(BaseFeatureView):
    """Features computed when they are asked for.

    `sources` are feature views (or parts of them) and request sources; `input_schema` declares
    request values without a source of their own. In mode `python` with `singleton=True` the
    function gets one row at a time. With `write_to_online_store` the results are materialized and
    read like those of other views, which needs entities.
    """

    _TRACK_METRICS_TAG = "feast:track_metrics"
    _INPUT_SCHEMA_SOURCE_PREFIX = "__input_schema__"

    _compared: ClassVar[tuple[str, ...]] = (
        *BaseFeatureView._compared,
        "source_feature_view_projections",
        "source_request_sources",
        "mode",
        "feature_transformation",
        "write_to_online_store",
        "_sorted_entities",
        "_sorted_entity_columns",
        "singleton",
        "track_metrics",
        "aggregations",
        "_normal_version",
        "org",
        "enabled",
    )
    _kind = "on-demand feature view"

    entities: list[str]
    entity_columns: list[Field]
    source_feature_view_projections: dict[str, FeatureViewProjection]
    source_request_sources: dict[str, RequestSource]
    feature_transformation: Transformation | None

    def __init__(
        self,
        *,
        name: str,
        entities: list[Entity] | None = None,
        schema: list[Field] | None = None,
        sources: list[OnDemandSourceType] | None = None,
        input_schema: list[Field] | None = None,
        udf: Callable[..., Any] | None = None,
        udf_string: str | None = "",
        feature_transformation: Transformation | None = None,
        mode: str = "pandas",
        description: str = "",
        tags: dict[str, str] | None = None,
        owner: str = "",
        org: str = "",
        write_to_online_store: bool = False,
        singleton: bool = False,
        track_metrics: bool = False,
        aggregations: list[Aggregation] | None = None,
        version: str = "latest",
        enabled: bool = True,
    ) -> None:
        where = f"{self._kind} `{name}`"
        owners = entity_names(where, entities)
        fields = checked_list(where, "schema", schema, Field, _FIELD_EXAMPLE)
        keys, features = split_schema(where, fields, owners)
        example = 'Aggregation(column="trips", function="sum")'
        self.version = version
        self.mode = str(getattr(mode, "value", mode)).lower()
        if singleton and self.mode != "python":
            raise ValueError(
                f'{where}: `singleton` gives the function one row at a time, which mode "{self.mode}" '
                'cannot; use mode="python" or leave `singleton` out'
            )
        self.entities = [one.name for one in owners] or [DUMMY_ENTITY_NAME]
        self.entity_columns = keys
        self.input_schema = input_schema
        self._take_sources(where, name, sources, input_schema)
        self.udf = udf
        self.udf_string = udf_string
        self.write_to_online_store = write_to_online_store
        self.singleton = singleton
        self.track_metrics = track_metrics
        self.aggregations = checked_list(where, "aggregations", aggregations, Aggregation, example)
        self._check_aggregations(where)
        super().__init__(
            name=name, features=features, description=description, tags=tags, owner=owner
        )
        self.org = org
        self.enabled = enabled
        self.state = FeatureViewState.STATE_UNSPECIFIED
        self._entity_objects = owners
        if feature_transformation is None and udf is not None:
            feature_transformation = self.get_feature_transformation()
        self.feature_transformation = feature_transformation

    def _take_sources(
        self, where: str, name: str, sources: Any, input_schema: list[Field] | None
    ) -> None:
        hidden = self._INPUT_SCHEMA_SOURCE_PREFIX
        given = checked_list(where, "sources", sources, object, "driver_stats")
        self.sources = [
            one
            for one in given
            if not (isinstance(one, RequestSource) and one.name.startswith(hidden))
        ]
        self.source_feature_view_projections = {}
        self.source_request_sources = {}
        self._input_schema_sentinel = None
        if input_schema is not None:
            self._input_schema_sentinel = RequestSource(name=hidden + name, schema=input_schema)
            self.source_request_sources[hidden + name] = self._input_schema_sentinel
        elif not self.sources:
            raise ValueError(
                f"{where}: it has nothing to compute from; list feature views or request sources in "
                "`sources`, or declare `input_schema`"
            )
        for one in self.sources:
            if isinstance(one, RequestSource):
                self.source_request_sources[one.name] = one
            elif isinstance(one, FeatureViewProjection):
                self.source_feature_view_projections[one.name] = one
            elif isinstance(one, FeatureView):
                self.source_feature_view_projections[one.name] = one.projection
            else:
                raise ValueError(
                    f"{where}: `sources` holds {kind_of(one)}; possible are feature views, their "
                    "projections and request sources"
                )

    def _check_aggregations(self, where: str) -> None:
        if self.input_schema is None:
            return
        known = [one.name for one in self.input_schema]
        for one in self.aggregations:
            if one.column and one.column not in known:
                raise ValueError(
                    f"{where}: an aggregation reads `{one.column}`, which `input_schema` does not "
                    f"have{did_you_mean(one.column, known)}"
                )

    def __hash__(self) -> int:
        return hash(self.name)

    @property
    def join_keys(self) -> list[str]:
        """Names of the columns that identify a row."""
        return [one.name for one in self.entity_columns]

    @property
    def schema(self) -> list[Field]:
        """Join keys, then features."""
        return list(dict.fromkeys([*self.entity_columns, *self.features]))

    @property
    def proto_class(self) -> type[Any]:
        """`feast.core.OnDemandFeatureView`."""
        from feast.protos.feast.core.OnDemandFeatureView_pb2 import OnDemandFeatureView as Message

        return Message

    def get_feature_transformation(self) -> Transformation:
        """The transformation made of `udf`."""
        if self.udf is None:
            raise ValueError(f"{self._where}: it has no function; pass `udf`, or use the decorator")
        if self.mode not in _MODES:
            raise ValueError(
                f"{self._where}: mode `{self.mode}` cannot run on demand; use one of "
                + ", ".join(_MODES)
            )
        if self.mode == "substrait":
            from feast.transformation.substrait_transformation import SubstraitTransformation

            return SubstraitTransformation.from_ibis(self.udf, self.sources)
        text = self.udf_string or source_text(self.udf)
        return Transformation(mode=self.mode, udf=self.udf, udf_string=text)

    def ensure_valid(self) -> None:
        """Refuses a view that cannot be computed."""
        super().ensure_valid()
        if self.write_to_online_store and self.entities in ([], [DUMMY_ENTITY_NAME]):
            raise ValueError(
                f"{self._where}: `write_to_online_store` needs at least one entity to store rows "
                "under; add `entities`"
            )
        for name in self.source_feature_view_projections:
            if name in self.source_request_sources:
                raise ValueError(
                    f"{self._where}: a feature view and a request source are both named `{name}`; "
                    "rename the request source"
                )
        if not self.aggregations and self.feature_transformation is None:
            raise ValueError(
                f"{self._where}: it has neither a function nor aggregations; use the decorator "
                "`on_demand_feature_view`, or pass `udf`"
            )

    def get_request_data_schema(self) -> dict[str, ValueType]:
        """Name and stored type of each value the caller must send."""
        return {
            field.name: field.dtype.to_value_type()
            for source in self.source_request_sources.values()
            for field in source.schema
        }

    # --- running the function

    def transform_arrow(self, pa_table: Any, full_feature_names: bool = False) -> Any:
        """The features for an Arrow table of inputs, under short or full names."""
        for projection in self.source_feature_view_projections.values():
            for feature in projection.features:
                full = f"{projection.name}__{feature.name}"
                for have, want in ((full, feature.name), (feature.name, full)):
                    if have in pa_table.column_names and want not in pa_table.column_names:
                        pa_table = pa_table.append_column(want, pa_table[have])
        result = self._transformation().transform_arrow(pa_table, self.features)
        prefix = f"{self.projection.name_to_use()}__"
        columns, names = [], []
        for feature in self.features:
            found = feature.name if feature.name in result.column_names else prefix + feature.name
            if found not in result.column_names:
                raise ValueError(
                    f"{self._where}: the function returned no column `{feature.name}`"
                    + did_you_mean(feature.name, result.column_names)
                )
            columns.append(result[found])
            names.append(prefix + feature.name if full_feature_names else feature.name)
        import pyarrow

        return pyarrow.table(columns, names=names)

    def transform_ibis(self, ibis_table: Any, full_feature_names: bool = False) -> Any:
        """The features for an Ibis table of inputs; only for mode `substrait`."""
        from feast.transformation.substrait_transformation import SubstraitTransformation

        transformation = self._transformation()
        if not isinstance(transformation, SubstraitTransformation):
            raise TypeError(f"{self._where}: mode `{self.mode}` does not run on Ibis tables")
        added = {}
        for projection in self.source_feature_view_projections.values():
            for feature in projection.features:
                full = f"{projection.name}__{feature.name}"
                for have, want in ((full, feature.name), (feature.name, full)):
                    if have in ibis_table.columns and want not in ibis_table.columns:
                        added[want] = ibis_table[have]
        result = transformation.transform_ibis(ibis_table.mutate(**added) if added else ibis_table)
        result = result.drop(*[name for name in added if name in result.columns])
        prefix = f"{self.projection.name_to_use()}__" if full_feature_names else ""
        names = {prefix + one.name: one.name for one in self.features if prefix}
        return result.rename(names) if names else result

    def transform_dict(self, feature_dict: dict[str, Any]) -> dict[str, Any]:
        """Inputs and features for a dictionary of columns."""
        inputs = dict(feature_dict)
        for projection in self.source_feature_view_projections.values():
            for feature in projection.features:
                full = f"{projection.name}__{feature.name}"
                if full in feature_dict:
                    inputs[feature.name] = feature_dict[full]
                elif feature.name in feature_dict:
                    inputs[full] = feature_dict[feature.name]
        transformation = self._transformation()
        if self.singleton and self.mode == "python":
            outputs = transformation.transform_singleton(inputs)
        else:
            outputs = transformation.transform(inputs)
        added = set(inputs) - set(feature_dict)
        return {name: value for name, value in outputs.items() if name not in added}

    def _transformation(self) -> Transformation:
        if self.feature_transformation is None:
            raise ValueError(f"{self._where}: it has no function to run")
        return self.feature_transformation

    def infer_features(self) -> None:
        """Runs the function on a sample row; completes or checks the declared features."""
        from feast.errors import RegistryInferenceFailure, SpecifiedFeaturesNotPresentError
        from feast.types import Array, Set

        if self.feature_transformation is not None:
            inferred = self._transformation().infer_features(
                random_input=self._sample_row(), singleton=self.singleton
            )
            names = {one.name for one in inferred}
            types = {(one.name, one.dtype) for one in inferred}
            missing = [
                one
                for one in self.features
                if (one.name not in names)
                or (not isinstance(one.dtype, (Array, Set)) and (one.name, one.dtype) not in types)
            ]
            if missing:
                raise SpecifiedFeaturesNotPresentError(missing, inferred, self.name)
            if not self.features:
                self.features = inferred
                self.projection.features = inferred
        if not self.features:
            raise RegistryInferenceFailure(self._where, "its function returned nothing")

    def _sample_row(self) -> dict[str, Any]:
        """A made-up value for each input, in a column of one unless rows come singly."""
        from feast.type_map import sample_value

        row = {}
        for projection in self.source_feature_view_projections.values():
            for feature in projection.features:
                value = sample_value(feature.dtype.to_value_type())
                row[feature.name] = row[f"{projection.name}__{feature.name}"] = value
        for source in self.source_request_sources.values():
            row.update({one.name: sample_value(one.dtype.to_value_type()) for one in source.schema})
        return row if self.singleton else {name: [value] for name, value in row.items()}

    # --- messages

    def to_proto(self) -> Any:
        """The message `feast.core.OnDemandFeatureView`."""
        from feast._wire import write_times
        from feast.proto_utils import transformation_to_proto
        from feast.protos.feast.core import OnDemandFeatureView_pb2 as messages

        meta = write_times(messages.OnDemandFeatureViewMeta(), self)
        if self.current_version_number is not None:
            meta.current_version_number = self.current_version_number
        meta.state = self.state.value
        sources = {
            name: messages.OnDemandSource(feature_view_projection=one.to_proto())
            for name, one in self.source_feature_view_projections.items()
        }
        for name, one in self.source_request_sources.items():
            sources[name] = messages.OnDemandSource(request_data_source=one.to_proto())
        tags = {key: value for key, value in self.tags.items() if key != self._TRACK_METRICS_TAG}
        if self.track_metrics:
            tags[self._TRACK_METRICS_TAG] = "true"
        spec = messages.OnDemandFeatureViewSpec(
            name=self.name,
            entities=self.entities,
            entity_columns=[one.to_proto() for one in self.entity_columns],
            features=[one.to_proto() for one in self.features],
            sources=sources,
            feature_transformation=transformation_to_proto(self.feature_transformation),
            mode=self.mode,
            description=self.description,
            tags=tags,
            owner=self.owner,
            org=self.org,
            write_to_online_store=self.write_to_online_store,
            singleton=self.singleton,
            aggregations=[one.to_proto() for one in self.aggregations],
            version=self.version,
            disabled=not self.enabled,
        )
        return messages.OnDemandFeatureView(spec=spec, meta=meta)

    @classmethod
    def from_proto(
        cls, on_demand_feature_view_proto: Any, skip_udf: bool = False
    ) -> OnDemandFeatureView:
        """Reads `feast.core.OnDemandFeatureView`; the function comes back as source text."""
        from feast._wire import read_times, read_version

        spec, meta = on_demand_feature_view_proto.spec, on_demand_feature_view_proto.meta
        sources = [_read_source(spec.name, one) for _, one in sorted(spec.sources.items())]
        hidden = [
            one
            for one in sources
            if isinstance(one, RequestSource)
            and one.name.startswith(cls._INPUT_SCHEMA_SOURCE_PREFIX)
        ]
        tags = dict(spec.tags)
        track_metrics = tags.pop(cls._TRACK_METRICS_TAG, "").lower() == "true"
        transformation = _read_function(spec)
        view = cls(
            name=spec.name,
            sources=sources,
            input_schema=hidden[0].schema if hidden else None,
            feature_transformation=transformation,
            udf_string=getattr(transformation, "udf_string", ""),
            mode=spec.mode or "pandas",
            description=spec.description,
            tags=tags,
            owner=spec.owner,
            org=spec.org,
            write_to_online_store=spec.write_to_online_store,
            singleton=spec.singleton,
            track_metrics=track_metrics,
            aggregations=[Aggregation.from_proto(one) for one in spec.aggregations],
            enabled=not spec.disabled,
        )
        if hidden:
            # The stored source rather than a new one: it knows its times.
            view._input_schema_sentinel = hidden[0]
            view.source_request_sources[hidden[0].name] = hidden[0]
        view.entities = list(spec.entities)
        view.entity_columns = [Field.from_proto(one) for one in spec.entity_columns]
        view.features = [Field.from_proto(one) for one in spec.features]
        view.state = FeatureViewState.from_proto(meta.state)
        view.projection = FeatureViewProjection.from_definition(view)
        read_version(view, meta, spec.version)
        read_times(meta, view)
        return view

    @staticmethod
    def get_requested_odfvs(
        feature_refs: list[str], project: str, registry: Any
    ) -> list[OnDemandFeatureView]:
        """The on-demand views that some references name."""
        names = {ref.split(":")[0].split("@")[0] for ref in feature_refs}
        views = registry.list_on_demand_feature_views(project, allow_cache=True)
        return [one for one in views if one.name in names]


def _read_source(view: str, message: Any) -> Any:
    kind = message.WhichOneof("source")
    if kind == "feature_view":
        return FeatureView.from_proto(message.feature_view).projection
    if kind == "feature_view_projection":
        return FeatureViewProjection.from_proto(message.feature_view_projection)
    if kind == "request_data_source":
        return DataSource.from_proto(message.request_data_source)
    raise ValueError(f"on-demand feature view `{view}`: a source in the registry says no kind")


def _read_function(spec: Any) -> Transformation | None:
    """The transformation of a stored view, also where only the old member holds it."""
    if spec.feature_transformation.WhichOneof("transformation"):
        return read_transformation(spec)
    if not spec.HasField("user_defined_function"):
        return None
    from feast.protos.feast.core.OnDemandFeatureView_pb2 import OnDemandFeatureViewSpec

    old = spec.user_defined_function
    stand_in = OnDemandFeatureViewSpec(mode=spec.mode or "pandas")
    function = stand_in.feature_transformation.user_defined_function
    function.name, function.body, function.body_text = old.name, old.body, old.body_text
    function.mode = stand_in.mode
    return read_transformation(stand_in)


def on_demand_feature_view(
    *,
    name: str | None = None,
    entities: list[Entity] | None = None,
    schema: list[Field],
    sources: list[OnDemandSourceType] | None = None,
    input_schema: list[Field] | None = None,
    aggregations: list[Aggregation] | None = None,
    mode: str = "pandas",
    description: str = "",
    tags: dict[str, str] | None = None,
    owner: str = "",
    org: str = "",
    write_to_online_store: bool = False,
    singleton: bool = False,
    track_metrics: bool = False,
    explode: bool = False,
    version: str = "latest",
) -> Callable[[Callable[..., Any]], OnDemandFeatureView]:
    """Decorator that makes a function the transformation of an on-demand view, named after it."""

    def decorate(user_function: Callable[..., Any]) -> OnDemandFeatureView:
        view = OnDemandFeatureView(
            name=name if name is not None else user_function.__name__,
            entities=entities,
            schema=schema,
            sources=sources,
            input_schema=input_schema,
            aggregations=aggregations,
            mode=mode,
            description=description,
            tags=tags,
            owner=owner,
            org=org,
            write_to_online_store=write_to_online_store,
            singleton=singleton,
            track_metrics=track_metrics,
            udf=user_function,
            udf_string=source_text(user_function),
            version=version,
        )
        functools.update_wrapper(wrapper=view, wrapped=user_function)  # type: ignore[arg-type]
        return view

    return decorate
