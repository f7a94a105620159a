"""`FeatureView`: features from one source, for some entities, with a time to live."""

from __future__ import annotations

import copy
import enum
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Union

from feast._definition import check_instance, checked_list, checked_texts, kind_of
from feast.base_feature_view import (
    _FIELD_EXAMPLE,
    BaseFeatureView,
    entity_names,
    split_schema,
)
from feast.data_source import DataSource, KafkaSource, KinesisSource, PushSource, RequestSource
from feast.entity import Entity
from feast.feature_view_projection import FeatureViewProjection
from feast.field import Field
from feast.types import String
from feast.value_type import ValueType

if TYPE_CHECKING:
    from feast.transformation.mode import TransformationMode

# The message of batch views has no place for aggregations: they travel as a tag.
AGGREGATIONS_TAG = "feast-rs.aggregations"

# A view without entities has one row for all: it is stored under this entity and key.
DUMMY_ENTITY_ID = "__dummy_id"
DUMMY_ENTITY_NAME = "__dummy"
DUMMY_ENTITY_VAL = ""
DUMMY_ENTITY = Entity(
    name=DUMMY_ENTITY_NAME, join_keys=[DUMMY_ENTITY_ID], value_type=ValueType.UNKNOWN
)
DUMMY_ENTITY_FIELD = Field(name=DUMMY_ENTITY_ID, dtype=String)


class FeatureViewState(enum.IntEnum):
    """How far a view is on its way to being served."""

    STATE_UNSPECIFIED = 0
    CREATED = 1
    GENERATED = 2
    MATERIALIZING = 3
    AVAILABLE_ONLINE = 4

    def can_transition_to(self, target: FeatureViewState) -> bool:
        """Whether the next state may be `target`. A failed materialization goes back one step."""
        state = FeatureViewState
        allowed = {
            state.STATE_UNSPECIFIED: (state.CREATED,),
            state.CREATED: (state.GENERATED,),
            state.GENERATED: (state.MATERIALIZING,),
            state.MATERIALIZING: (state.AVAILABLE_ONLINE, state.GENERATED),
            state.AVAILABLE_ONLINE: (state.MATERIALIZING,),
        }
        return target in allowed[self]

    @classmethod
    def from_proto(cls, proto_val: int) -> FeatureViewState:
        """The state of a number; unknown numbers are unspecified."""
        try:
            return cls(proto_val)
        except ValueError:
            return cls.STATE_UNSPECIFIED

    def to_proto(self) -> int:
        """The number of the state."""
        return self.value


class FeatureView(BaseFeatureView):
    """Features from one source.

    The columns of `schema` are features, except those named like the join key of an entity. An
    empty schema means every column of the source. `ttl` says how old a value may be, seen from the
    time it is asked for (zero: any age). A view over other views needs `sink_source`, where its
    rows are kept.
    """

    _compared: ClassVar[tuple[str, ...]] = (
        *BaseFeatureView._compared,
        "_sorted_entities",
        "_look_back",
        "online",
        "offline",
        "batch_source",
        "stream_source",
        "_sorted_entity_columns",
        "source_views",
        "enable_validation",
        "_normal_version",
        "org",
        "enabled",
    )

    entities: list[str]
    ttl: timedelta | None
    batch_source: DataSource | None
    stream_source: DataSource | None
    source_views: list[FeatureView]
    entity_columns: list[Field]
    materialization_intervals: list[tuple[datetime, datetime]]

    def __init__(
        self,
        *,
        name: str,
        source: Union[DataSource, FeatureView, list[FeatureView], None] = None,
        sink_source: DataSource | None = None,
        schema: list[Field] | None = None,
        entities: list[Entity] | None = None,
        ttl: timedelta | None = timedelta(days=0),
        online: bool = True,
        offline: bool = False,
        description: str = "",
        tags: dict[str, str] | None = None,
        owner: str = "",
        org: str = "",
        mode: Union[TransformationMode, str, None] = None,
        enable_validation: bool = False,
        version: str = "latest",
        enabled: bool = True,
    ) -> None:
        where = f"{self._kind} `{name}`"
        self._take_source(where, source, sink_source)
        owners = entity_names(where, entities)
        fields = checked_list(where, "schema", schema, Field, _FIELD_EXAMPLE)
        keys, features = split_schema(where, fields, owners)
        self._check_fields(where, fields, features)
        if ttl is not None:
            check_instance(where, "ttl", ttl, timedelta, "timedelta(days=1)")
            if ttl < timedelta(0):
                raise ValueError(f"{where}: `ttl` is {ttl}, but must not be negative")
        self.version = version
        self.entities = [one.name for one in owners] or [DUMMY_ENTITY_NAME]
        self.entity_columns = keys
        self.ttl = ttl
        self.mode = mode
        self.online = online
        self.offline = offline
        self.org = org
        self.enable_validation = enable_validation
        self.enabled = enabled
        self.materialization_intervals = []
        self.state = FeatureViewState.STATE_UNSPECIFIED
        super().__init__(
            name=name,
            features=features,
            description=description,
            tags=tags,
            owner=owner,
            source=self.batch_source,
        )
        # Types of join keys that the schema leaves out: repository loading completes them.
        self._entity_objects = owners
        if version != "latest":
            self._normal_version  # noqa: B018  (refuses a malformed version here and now)

    def _take_source(self, where: str, source: Any, sink_source: DataSource | None) -> None:
        """Sorts out stream source, batch source and the views this one is computed from."""
        self.data_source = None
        self.batch_source = None
        self.stream_source = None
        self.source_views = []
        if sink_source is not None:
            check_instance(where, "sink_source", sink_source, DataSource, 'FileSource(path="…")')
        views = source if isinstance(source, list) else [source]
        if source is None:
            return
        if isinstance(source, RequestSource):
            raise ValueError(
                f"{where}: `source` is the request source `{source.name}`, which only on-demand "
                "feature views can read; use a source with a history"
            )
        if isinstance(source, DataSource):
            self.data_source = source
            self.batch_source = source
            if isinstance(source, (PushSource, KafkaSource, KinesisSource)):
                if source.batch_source is None:
                    raise ValueError(
                        f"{where}: its source `{source.name}` is a {type(source).__name__} without "
                        "`batch_source`; name the source that keeps its history"
                    )
                self.stream_source = source
                self.batch_source = source.batch_source
            return
        if not views or not all(isinstance(one, FeatureView) for one in views):
            raise TypeError(
                f"{where}: `source` must be a data source, a feature view or a list of feature "
                f"views, but is {kind_of(source)}"
            )
        if sink_source is None:
            raise ValueError(
                f"{where}: it is computed from other views, so it needs `sink_source`, the source "
                "that keeps its rows"
            )
        self.source_views = list(views)
        self.batch_source = sink_source

    def _check_fields(self, where: str, fields: list[Field], features: list[Field]) -> None:
        vectors = [one.name for one in features if one.vector_index]
        if len(vectors) > 1:
            raise ValueError(
                f"{where}: the features {vectors} all have `vector_index`; at most one feature of a "
                "view can be searched by its vector"
            )
        renamed = self.batch_source.field_mapping if self.batch_source else {}
        for field in fields:
            if field.name in renamed:
                raise ValueError(
                    f"{where}: `schema` has `{field.name}`, but its source renames that column to "
                    f"`{renamed[field.name]}`; use the new name, or drop it from `field_mapping`"
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
    def most_recent_end_time(self) -> datetime | None:
        """Until when the view is materialized, if ever."""
        return max((end for _, end in self.materialization_intervals), default=None)

    @property
    def proto_class(self) -> type[Any]:
        """`feast.core.FeatureView`."""
        from feast.protos.feast.core.FeatureView_pb2 import FeatureView as Message

        return Message

    def ensure_valid(self) -> None:
        """Refuses a view with an unusable name, or without entities."""
        super().ensure_valid()
        if not self.entities:
            raise ValueError(f"{self._where} has no entities")

    def with_join_key_map(self, join_key_map: dict[str, str]) -> FeatureView:
        """The view with other names for its join keys: `{"driver_id": "pickup_driver_id"}`."""
        twin = copy.copy(self)
        twin.projection.join_key_map = checked_texts(self._where, "join_key_map", join_key_map)
        return twin

    def update_materialization_intervals(
        self, existing_materialization_intervals: list[tuple[datetime, datetime]]
    ) -> None:
        """Takes over the intervals of the registered view, unless this one has its own."""
        if not self.materialization_intervals:
            self.materialization_intervals = list(existing_materialization_intervals)

    @property
    def sink_source(self) -> DataSource | None:
        """Where the rows of a view over other views are kept."""
        return self.batch_source if self.source_views else None

    # --- messages

    def get_ttl_duration(self) -> Any:
        """The time to live as a message, if there is one."""
        return self._ttl_message()

    def to_proto(self) -> Any:
        """The message `feast.core.FeatureView`."""
        return self._message({})

    def _message(self, seen: dict[str, Any]) -> Any:
        """The message; `seen` finds circles among views computed from each other."""
        if self.name in seen:
            if seen[self.name] is None:
                raise ValueError(f"{self._where} is computed from itself, through its `source`")
            return seen[self.name]
        seen[self.name] = None
        message = self.proto_class(spec=self.to_proto_spec(seen), meta=self.to_proto_meta())
        seen[self.name] = message
        return message

    def to_proto_spec(self, seen: dict[str, Any]) -> Any:
        """The message `feast.core.FeatureViewSpec`."""
        from feast.proto_utils import mode_to_string, serialize_data_source, transformation_to_proto
        from feast.protos.feast.core.FeatureView_pb2 import FeatureViewSpec

        return FeatureViewSpec(
            name=self.name,
            entities=self.entities,
            entity_columns=[one.to_proto() for one in self.entity_columns],
            features=[one.to_proto() for one in self.features],
            description=self.description,
            tags=self.tags or None,
            owner=self.owner,
            org=self.org,
            ttl=self.get_ttl_duration(),
            online=self.online,
            offline=self.offline,
            batch_source=serialize_data_source(self.batch_source),
            stream_source=serialize_data_source(self.stream_source),
            source_views=[one._message(seen).spec for one in self.source_views] or None,
            feature_transformation=transformation_to_proto(
                getattr(self, "feature_transformation", None)
            ),
            mode=mode_to_string(self.mode),
            enable_validation=self.enable_validation,
            version=self.version,
            disabled=not self.enabled,
        )

    def to_proto_meta(self) -> Any:
        """The message `feast.core.FeatureViewMeta`."""
        from feast._wire import write_times
        from feast.protos.feast.core.FeatureView_pb2 import FeatureViewMeta

        meta = write_times(FeatureViewMeta(), self)
        for start, end in self.materialization_intervals:
            interval = meta.materialization_intervals.add()
            interval.start_time.FromDatetime(start)
            interval.end_time.FromDatetime(end)
        if self.current_version_number is not None:
            meta.current_version_number = self.current_version_number
        meta.state = self.state.value
        return meta

    @classmethod
    def from_proto(cls, feature_view_proto: Any, skip_udf: bool = False) -> FeatureView:
        """Reads `feast.core.FeatureView`; one with a transformation is a `BatchFeatureView`.

        Functions are never loaded from a registry: a transformation comes back as name and source
        text. `skip_udf` is accepted because callers pass it.
        """
        spec = feature_view_proto.spec
        if cls is FeatureView and (
            spec.HasField("feature_transformation") or AGGREGATIONS_TAG in spec.tags
        ):
            from feast.batch_feature_view import BatchFeatureView

            return BatchFeatureView.from_proto(feature_view_proto, skip_udf)
        view = cls(
            name=spec.name,
            source=source_of(spec),
            sink_source=batch_source_of(spec) if spec.source_views else None,
            mode=spec.mode or None,
        )
        view._read(spec, feature_view_proto.meta)
        return view

    def _read(self, spec: Any, meta: Any) -> None:
        """Sets everything that views of all kinds keep in the same members of their messages."""
        from feast._wire import from_duration, read_times, read_version, to_datetime

        self.entities = list(spec.entities)
        self.features = [Field.from_proto(one) for one in spec.features]
        self.entity_columns = [Field.from_proto(one) for one in spec.entity_columns]
        self.description = spec.description
        # The engine keeps some things of its own as tags.
        self.tags = {
            name: text for name, text in spec.tags.items() if not name.startswith("feast-rs.")
        }
        self.owner = spec.owner
        self.org = spec.org
        self.ttl = from_duration(spec, "ttl") or timedelta(0)
        self._ttl_left_open = not spec.HasField("ttl")
        self.online = spec.online
        self.offline = getattr(spec, "offline", False)
        if spec.HasField("stream_source"):
            self.stream_source = DataSource.from_proto(spec.stream_source)
        self.enable_validation = spec.enable_validation
        self.enabled = not spec.disabled
        self.state = FeatureViewState.from_proto(meta.state)
        self.materialization_intervals = [
            (to_datetime(one.start_time), to_datetime(one.end_time))
            for one in meta.materialization_intervals
        ]
        read_version(self, meta, spec.version)
        read_times(meta, self)
        self.projection = FeatureViewProjection.from_definition(self)


def batch_source_of(spec: Any) -> DataSource | None:
    """The batch source in the specification of a view."""
    return DataSource.from_proto(spec.batch_source) if spec.HasField("batch_source") else None


def source_of(spec: Any) -> Any:
    """What the `source` argument of a stored view was: views, or its batch source."""
    from feast.protos.feast.core.FeatureView_pb2 import FeatureView as Message

    if spec.source_views:
        return [FeatureView.from_proto(Message(spec=one)) for one in spec.source_views]
    return batch_source_of(spec)
