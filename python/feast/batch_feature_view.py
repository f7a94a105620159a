"""`BatchFeatureView`: a view whose features are computed by a transformation of its source."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any, ClassVar, Union

from feast._definition import checked_list
from feast.aggregation import Aggregation
from feast.data_source import DataSource, SourceType
from feast.entity import Entity
from feast.feature_view import AGGREGATIONS_TAG, FeatureView, batch_source_of, source_of
from feast.field import Field
from feast.transformation.base import Transformation, mode_text, source_text
from feast.transformation.mode import TransformationMode

SUPPORTED_BATCH_SOURCES = {
    "AthenaSource",
    "BigQuerySource",
    "FileSource",
    "RedshiftSource",
    "SnowflakeSource",
    "SparkSource",
    "TrinoSource",
}
_MODES = ("pandas", "python", "sql", "ray", "flink")


class BatchFeatureView(FeatureView):
    """A view computed by a function or by aggregations. Unlike other views it is offline only
    unless `online=True`.
    """

    _compared: ClassVar[tuple[str, ...]] = (
        *FeatureView._compared,
        "feature_transformation",
        "aggregations",
    )
    _kind = "batch feature view"

    def __init__(
        self,
        *,
        name: str,
        mode: Union[TransformationMode, str] = TransformationMode.PYTHON,
        source: Union[DataSource, BatchFeatureView, list[BatchFeatureView], None] = None,
        sink_source: DataSource | None = None,
        entities: list[Entity] | None = None,
        ttl: timedelta | None = None,
        tags: dict[str, str] | None = None,
        online: bool = False,
        offline: bool = False,
        description: str = "",
        owner: str = "",
        org: str = "",
        schema: list[Field] | None = None,
        udf: Callable[[Any], Any] | None = None,
        udf_string: str | None = "",
        feature_transformation: Transformation | None = None,
        batch_engine: dict[str, Any] | None = None,
        aggregations: list[Aggregation] | None = None,
        enable_validation: bool = False,
        version: str = "latest",
    ) -> None:
        where = f"{self._kind} `{name}`"
        _check_source(where, source)
        if source is None and aggregations:
            raise ValueError(f"{where}: it has `aggregations` but no `source` to aggregate")
        if source is None and not udf and not feature_transformation:
            raise ValueError(
                f"{where}: it needs at least one of `source`, `udf` and `feature_transformation`"
            )
        example = 'Aggregation(column="trips", function="sum")'
        self.mode = mode
        self.udf = udf
        self.udf_string = udf_string
        self.batch_engine = batch_engine
        self.aggregations = checked_list(where, "aggregations", aggregations, Aggregation, example)
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

    def get_feature_transformation(self) -> Transformation | None:
        """The transformation made of `udf`, if there is one."""
        return made_of_udf(self._where, self.udf, self.udf_string, self.mode, _MODES)

    def to_proto_spec(self, seen: dict[str, Any]) -> Any:
        """The message `feast.core.FeatureViewSpec`."""
        spec = super().to_proto_spec(seen)
        if self.aggregations:
            spec.tags[AGGREGATIONS_TAG] = json.dumps(
                [
                    [
                        one.name,
                        one.column,
                        one.function,
                        _micros(one.time_window),
                        _micros(one.slide_interval),
                    ]
                    for one in self.aggregations
                ]
            )
        return spec

    @classmethod
    def from_proto(cls, feature_view_proto: Any, skip_udf: bool = False) -> BatchFeatureView:
        """Reads `feast.core.FeatureView`; the transformation comes back without its function."""
        spec = feature_view_proto.spec
        transformation = read_transformation(spec)
        view = cls(
            name=spec.name,
            mode=spec.mode or getattr(transformation, "mode", None) or TransformationMode.PYTHON,
            source=source_of(spec),
            sink_source=batch_source_of(spec) if spec.source_views else None,
            feature_transformation=transformation,
            aggregations=[
                Aggregation(column, function, _span(window), _span(slide), name)
                for name, column, function, window, slide in json.loads(
                    spec.tags.get(AGGREGATIONS_TAG, "[]")
                )
            ],
        )
        view.udf_string = getattr(transformation, "udf_string", "")
        view._read(spec, feature_view_proto.meta)
        return view


def _micros(span: timedelta | None) -> int | None:
    return None if span is None else span // timedelta(microseconds=1)


def _span(micros: int | None) -> timedelta | None:
    return None if micros is None else timedelta(microseconds=micros)


def _check_source(where: str, source: Any) -> None:
    """Refuses streams: their rows do not come in batches."""
    if not isinstance(source, DataSource) or type(source).__name__ in SUPPORTED_BATCH_SOURCES:
        return
    if source.source_type() in (SourceType.CUSTOM_SOURCE, SourceType.BATCH_ICEBERG):
        return
    raise ValueError(
        f"{where}: `{source.name}` is a {type(source).__name__}, but a batch feature view reads one "
        f"of {', '.join(sorted(SUPPORTED_BATCH_SOURCES))}"
    )


def made_of_udf(
    where: str,
    udf: Callable[..., Any] | None,
    udf_string: str | None,
    mode: Any,
    modes: tuple[str, ...],
) -> Transformation | None:
    """The transformation of a mode made of a function, if there is one."""
    if not udf:
        return None
    if mode_text(mode) not in modes:
        raise ValueError(
            f"{where}: mode `{mode_text(mode)}` cannot be used here; use one of {', '.join(modes)}"
        )
    text = udf_string or source_text(udf)
    return Transformation(mode=mode, udf=udf, udf_string=text)


def read_transformation(spec: Any) -> Transformation | None:
    """The transformation in the specification of a view, without its function."""
    message = spec.feature_transformation
    kind = message.WhichOneof("transformation")
    if kind == "substrait_transformation":
        from feast.transformation.substrait_transformation import SubstraitTransformation

        return SubstraitTransformation.from_proto(message.substrait_transformation)
    if kind is None:
        return None
    from feast.transformation.base import restored
    from feast.transformation.factory import (
        TRANSFORMATION_CLASS_FOR_TYPE,
        get_transformation_class_from_type,
    )

    function = message.user_defined_function
    mode = function.mode or spec.mode
    known = mode if mode in TRANSFORMATION_CLASS_FOR_TYPE else "python"
    one = restored(get_transformation_class_from_type(known), function, mode)
    if not function.mode:
        # Stream views keep the mode beside the function; what was not written stays unwritten.
        one.mode = ""
    return one


def batch_feature_view(
    *,
    name: str | None = None,
    mode: Union[TransformationMode, str] = TransformationMode.PYTHON,
    entities: list[Any] | None = None,
    ttl: timedelta | None = None,
    source: DataSource | None = None,
    tags: dict[str, str] | None = None,
    online: bool = True,
    offline: bool = True,
    description: str = "",
    owner: str = "",
    org: str = "",
    schema: list[Field] | None = None,
    enable_validation: bool = False,
    version: str = "latest",
) -> Callable[[Callable[..., Any]], BatchFeatureView]:
    """Decorator that makes a function the transformation of a view, named after it."""

    def decorate(user_function: Callable[..., Any]) -> BatchFeatureView:
        view = BatchFeatureView(
            name=name or user_function.__name__,
            mode=mode,
            entities=entities,
            ttl=ttl,
            source=source,
            tags=tags,
            online=online,
            offline=offline,
            description=description,
            owner=owner,
            org=org,
            schema=schema,
            udf=user_function,
            udf_string=source_text(user_function),
            enable_validation=enable_validation,
            version=version,
        )
        functools.update_wrapper(wrapper=view, wrapped=user_function)  # type: ignore[arg-type]
        return view

    return decorate
