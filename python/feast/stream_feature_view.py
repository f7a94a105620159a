"""`StreamFeatureView`: features from a stream, with an optional transformation on the way."""

from __future__ import annotations

import functools
from collections.abc import Callable
from datetime import timedelta
from typing import Any, ClassVar, Union

from feast._definition import checked_list
from feast.aggregation import Aggregation
from feast.batch_feature_view import made_of_udf, read_transformation
from feast.data_source import DataSource, SourceType
from feast.entity import Entity
from feast.feature_view import FeatureView
from feast.field import Field
from feast.transformation.base import Transformation, function_name, mode_text, pickled, source_text
from feast.transformation.mode import TransformationMode

SUPPORTED_STREAM_SOURCES = {"KafkaSource", "PushSource"}
_MODES = ("pandas", "python", "spark_sql", "spark", "flink")
_DEFAULT_HOP = timedelta(minutes=5)


class StreamFeatureView(FeatureView):
    """Features from a Kafka or push source.

    `aggregations` run over windows of `timestamp_field`; with `enable_tiling` they are computed
    from tiles of `tiling_hop_size`, which must be shorter than every window.
    """

    _compared: ClassVar[tuple[str, ...]] = (
        *FeatureView._compared,
        "feature_transformation",
        "_mode_text",
        "timestamp_field",
        "aggregations",
        "enable_tiling",
        "tiling_hop_size",
    )
    _kind = "stream feature view"

    def __init__(
        self,
        *,
        name: str,
        source: Union[DataSource, StreamFeatureView, list[StreamFeatureView]],
        sink_source: DataSource | None = None,
        entities: list[Entity] | None = None,
        ttl: timedelta = timedelta(days=0),
        tags: dict[str, str] | None = None,
        online: bool = True,
        offline: bool = False,
        description: str = "",
        owner: str = "",
        org: str = "",
        schema: list[Field] | None = None,
        aggregations: list[Aggregation] | None = None,
        mode: Union[str, TransformationMode] = TransformationMode.PYTHON,
        timestamp_field: str | None = "",
        udf: Callable[..., Any] | None = None,
        udf_string: str | None = "",
        feature_transformation: Transformation | None = None,
        stream_engine: dict[str, Any] | None = None,
        enable_tiling: bool = False,
        tiling_hop_size: timedelta | None = None,
        enable_validation: bool = False,
        version: str = "latest",
    ) -> None:
        where = f"{self._kind} `{name}`"
        _check_source(where, source)
        example = 'Aggregation(column="trips", function="sum")'
        self.mode = mode
        self.udf = udf
        self.udf_string = udf_string
        self.aggregations = checked_list(where, "aggregations", aggregations, Aggregation, example)
        self.timestamp_field = timestamp_field or ""
        if self.aggregations and not self.timestamp_field:
            raise ValueError(
                f"{where}: it has `aggregations` but no `timestamp_field`, the column whose windows "
                "they run over"
            )
        self.stream_engine = stream_engine
        self.enable_tiling = enable_tiling
        self.tiling_hop_size = tiling_hop_size
        self._check_tiles(where)
        super().__init__(
            name=name,
            source=source,  # type: ignore[arg-type]
            sink_source=sink_source,
            schema=schema,
            entities=entities,
            ttl=ttl,
            online=online,
            offline=offline,
            description=description,
            tags=tags,
            owner=owner,
            org=org,
            mode=mode,
            enable_validation=enable_validation,
            version=version,
        )
        self.feature_transformation = feature_transformation or self.get_feature_transformation()

    def _check_tiles(self, where: str) -> None:
        windows = [one.time_window for one in self.aggregations if one.time_window is not None]
        hop = self.tiling_hop_size or _DEFAULT_HOP
        if self.enable_tiling and windows and hop >= min(windows):
            raise ValueError(
                f"{where}: tiles of {hop} are not shorter than the shortest window ({min(windows)}); "
                "set a smaller `tiling_hop_size`"
            )

    @property
    def _mode_text(self) -> str:
        return mode_text(self.mode or "")

    @property
    def proto_class(self) -> type[Any]:
        """`feast.core.StreamFeatureView`."""
        from feast.protos.feast.core.StreamFeatureView_pb2 import StreamFeatureView as Message

        return Message

    def get_feature_transformation(self) -> Transformation | None:
        """The transformation made of `udf`, if there is one."""
        return made_of_udf(self._where, self.udf, self.udf_string, self.mode, _MODES)

    def to_proto(self) -> Any:
        """The message `feast.core.StreamFeatureView`.

        The old member for the function is only written together with its pickle: readers of that
        member cannot do with the source text alone.
        """
        from feast._wire import to_duration
        from feast.proto_utils import mode_to_string, serialize_data_source
        from feast.protos.feast.core.OnDemandFeatureView_pb2 import UserDefinedFunction
        from feast.protos.feast.core.StreamFeatureView_pb2 import StreamFeatureViewSpec

        transformation = self.feature_transformation
        spec = StreamFeatureViewSpec(
            name=self.name,
            entities=self.entities,
            entity_columns=[one.to_proto() for one in self.entity_columns],
            # The contract lists the join keys among the features of a stream view.
            features=[one.to_proto() for one in self.schema],
            description=self.description,
            tags=self.tags,
            owner=self.owner,
            org=self.org,
            ttl=self.get_ttl_duration(),
            online=self.online,
            batch_source=serialize_data_source(self.batch_source),
            stream_source=serialize_data_source(self.stream_source),
            timestamp_field=self.timestamp_field,
            aggregations=[one.to_proto() for one in self.aggregations],
            mode=mode_to_string(self.mode),
            enable_tiling=self.enable_tiling,
            tiling_hop_size=to_duration(self.tiling_hop_size),
            enable_validation=self.enable_validation,
            version=self.version,
            disabled=not self.enabled,
        )
        if transformation is not None:
            body = pickled(transformation)
            function = UserDefinedFunction(
                name=function_name(transformation),
                body=body,
                body_text=transformation.udf_string or "",
            )
            if body:
                spec.user_defined_function.CopyFrom(function)
            kept = spec.feature_transformation.user_defined_function
            kept.name, kept.body, kept.body_text = function.name, body, function.body_text
        return self.proto_class(spec=spec, meta=self.to_proto_meta())

    @classmethod
    def from_proto(cls, sfv_proto: Any, skip_udf: bool = False) -> StreamFeatureView:
        """Reads `feast.core.StreamFeatureView`; the function comes back as source text."""
        from feast._wire import from_duration

        spec = sfv_proto.spec
        has_stream = spec.HasField("stream_source")
        source = spec.stream_source if has_stream else spec.batch_source
        view = cls(
            name=spec.name,
            source=DataSource.from_proto(source),
            mode=spec.mode or TransformationMode.PYTHON,
            aggregations=[Aggregation.from_proto(one) for one in spec.aggregations],
            timestamp_field=spec.timestamp_field,
            feature_transformation=_read_function(spec),
            enable_tiling=spec.enable_tiling,
            tiling_hop_size=from_duration(spec, "tiling_hop_size") or None,
        )
        view.udf_string = getattr(view.feature_transformation, "udf_string", "")
        view._read(spec, sfv_proto.meta)
        if spec.HasField("batch_source"):
            view.batch_source = DataSource.from_proto(spec.batch_source)
        keys = {one.name for one in view.entity_columns}
        view.features = [one for one in view.features if one.name not in keys]
        view.projection.features = view.features
        return view


def _read_function(spec: Any) -> Transformation | None:
    """The transformation of a stored view, also where only the old member holds it."""
    if spec.feature_transformation.WhichOneof("transformation"):
        return read_transformation(spec)
    if not spec.HasField("user_defined_function"):
        return None
    from feast.protos.feast.core.StreamFeatureView_pb2 import StreamFeatureViewSpec

    old = spec.user_defined_function
    stand_in = StreamFeatureViewSpec(mode=spec.mode)
    function = stand_in.feature_transformation.user_defined_function
    function.name, function.body, function.body_text = old.name, old.body, old.body_text
    return read_transformation(stand_in)


def _check_source(where: str, source: Any) -> None:
    """Refuses sources that are not streams."""
    if not isinstance(source, DataSource) or type(source).__name__ in SUPPORTED_STREAM_SOURCES:
        return
    if source.source_type() == SourceType.CUSTOM_SOURCE:
        return
    raise ValueError(
        f"{where}: `{source.name}` is a {type(source).__name__}, but a stream feature view reads a "
        f"{' or '.join(sorted(SUPPORTED_STREAM_SOURCES))}"
    )


def stream_feature_view(
    *,
    entities: Union[list[Entity], list[str], None] = None,
    ttl: timedelta | None = None,
    tags: dict[str, str] | None = None,
    online: bool | None = True,
    description: str | None = "",
    owner: str | None = "",
    org: str | None = "",
    schema: list[Field] | None = None,
    source: DataSource | None = None,
    aggregations: list[Aggregation] | None = None,
    mode: str | None = "spark",
    timestamp_field: str | None = "",
    enable_validation: bool = False,
    version: str = "latest",
) -> Callable[[Callable[..., Any]], StreamFeatureView]:
    """Decorator that makes a function the transformation of a stream view, named after it."""

    def decorate(user_function: Callable[..., Any]) -> StreamFeatureView:
        view = StreamFeatureView(
            name=user_function.__name__,
            entities=entities,  # type: ignore[arg-type]
            ttl=ttl if ttl is not None else timedelta(0),
            source=source,  # type: ignore[arg-type]
            schema=schema,
            udf=user_function,
            udf_string=source_text(user_function),
            description=description or "",
            tags=tags,
            online=bool(online),
            owner=owner or "",
            org=org or "",
            aggregations=aggregations,
            mode=mode or "spark",
            timestamp_field=timestamp_field,
            enable_validation=enable_validation,
            version=version,
        )
        functools.update_wrapper(wrapper=view, wrapped=user_function)  # type: ignore[arg-type]
        return view

    return decorate
