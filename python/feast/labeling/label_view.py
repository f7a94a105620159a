"""`LabelView`: labels of entities, with who gave them and how contradictions are settled."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from feast._definition import check_instance, checked_list
from feast.base_feature_view import (
    _FIELD_EXAMPLE,
    BaseFeatureView,
    entity_names,
    split_schema,
)
from feast.data_source import DataSource, PushSource
from feast.entity import Entity
from feast.feature_view_projection import FeatureViewProjection
from feast.field import Field
from feast.labeling.conflict_policy import ConflictPolicy
from feast.types import String, from_value_type
from feast.value_type import ValueType


class LabelView(BaseFeatureView):
    """Labels of entities.

    The column `labeler_field` says who gave a label; `conflict_policy` says which one counts.
    `reference_feature_view` names the view whose rows are labeled.
    """

    _TAG_PREFIX_PROFILE = "feast.io/labeling-method"
    _TAG_PREFIX_ROLE = "feast.io/field-role:"
    _TAG_PREFIX_VALUES = "feast.io/label-values:"
    _TAG_PREFIX_WIDGET = "feast.io/label-widget:"

    _compared = (
        *BaseFeatureView._compared,
        "_sorted_entities",
        "_look_back",
        "online",
        "_sorted_entity_columns",
        "source",
        "labeler_field",
        "conflict_policy",
        "reference_feature_view",
    )
    _kind = "label view"

    entities: list[str]
    entity_columns: list[Field]

    def __init__(
        self,
        *,
        name: str,
        source: DataSource | None = None,
        schema: list[Field] | None = None,
        entities: list[Entity] | None = None,
        ttl: timedelta | None = timedelta(days=0),
        online: bool = True,
        description: str = "",
        tags: dict[str, str] | None = None,
        owner: str = "",
        labeler_field: str = "labeler",
        conflict_policy: ConflictPolicy = ConflictPolicy.LAST_WRITE_WINS,
        reference_feature_view: str | None = None,
    ) -> None:
        where = f"{self._kind} `{name}`"
        if source is not None:
            check_instance(where, "source", source, DataSource, 'PushSource(name="labels")')
        check_instance(
            where,
            "conflict_policy",
            conflict_policy,
            ConflictPolicy,
            "ConflictPolicy.LAST_WRITE_WINS",
        )
        if ttl is not None:
            check_instance(where, "ttl", ttl, timedelta, "timedelta(days=1)")
        owners = entity_names(where, entities)
        fields = checked_list(where, "schema", schema, Field, _FIELD_EXAMPLE)
        keys, features = split_schema(where, fields, owners)
        declared = {one.name for one in keys}
        for one in owners:
            if one.join_key not in declared:
                known = one.value_type is not ValueType.UNKNOWN
                dtype = from_value_type(one.value_type) if known else String
                keys.append(Field(name=one.join_key, dtype=dtype))
        self.entities = [one.name for one in owners]
        self.entity_columns = keys
        self.ttl = ttl
        self.online = online
        self.labeler_field = labeler_field
        self.conflict_policy = conflict_policy
        self.reference_feature_view = reference_feature_view or ""
        self.source = source
        super().__init__(
            name=name,
            features=features,
            description=description,
            tags=tags,
            owner=owner,
            source=source,
        )
        self.projection.view_type = "labelView"
        self._entity_objects = owners

    def __hash__(self) -> int:
        return hash(self.name)

    @property
    def join_keys(self) -> list[str]:
        """Names of the columns that identify a row."""
        return [one.name for one in self.entity_columns]

    @property
    def schema(self) -> list[Field]:
        """Join keys, then labels."""
        return list(dict.fromkeys([*self.entity_columns, *self.features]))

    @property
    def batch_source(self) -> DataSource | None:
        """The source that keeps the history of the labels."""
        return self.source.batch_source if isinstance(self.source, PushSource) else self.source

    @property
    def stream_source(self) -> DataSource | None:
        """The push source, if labels are pushed."""
        return self.source if isinstance(self.source, PushSource) else None

    @property
    def labeling_method(self) -> str:
        """How labels are entered, from the tags (`table` unless given)."""
        return self.tags.get(self._TAG_PREFIX_PROFILE, "table")

    @property
    def annotation_config(self) -> dict[str, Any]:
        """What the tags say about a form for labels: roles, possible values and widgets."""

        def tagged(prefix: str) -> dict[str, str]:
            return {
                key.removeprefix(prefix): value
                for key, value in self.tags.items()
                if key.startswith(prefix)
            }

        values = tagged(self._TAG_PREFIX_VALUES)
        return {
            "profile": self.labeling_method,
            "field_roles": tagged(self._TAG_PREFIX_ROLE),
            "label_values": {
                name: [one.strip() for one in text.split(",")] for name, text in values.items()
            },
            "label_widgets": tagged(self._TAG_PREFIX_WIDGET),
        }

    @property
    def proto_class(self) -> type[Any]:
        """`feast.core.LabelView`."""
        from feast.protos.feast.core.LabelView_pb2 import LabelView as Message

        return Message

    def ensure_valid(self) -> None:
        """Refuses a view with an unusable name, or without entities."""
        super().ensure_valid()
        if not self.entities:
            raise ValueError(f"{self._where} has no entities; add `entities`, what is labeled")

    def to_proto(self) -> Any:
        """The message `feast.core.LabelView`."""
        from feast._wire import write_times
        from feast.proto_utils import serialize_data_source
        from feast.protos.feast.core import LabelView_pb2 as messages

        spec = messages.LabelViewSpec(
            name=self.name,
            entities=self.entities,
            entity_columns=[one.to_proto() for one in self.entity_columns],
            features=[one.to_proto() for one in self.features],
            description=self.description,
            tags=self.tags,
            owner=self.owner,
            ttl=self._ttl_message(),
            online=self.online,
            source=serialize_data_source(self.source),
            labeler_field=self.labeler_field,
            conflict_policy=self.conflict_policy.to_proto(),
            reference_feature_view=self.reference_feature_view,
        )
        return messages.LabelView(spec=spec, meta=write_times(messages.LabelViewMeta(), self))

    @classmethod
    def from_proto(cls, label_view_proto: Any) -> LabelView:
        """Reads `feast.core.LabelView`."""
        from feast._wire import from_duration, read_times

        spec = label_view_proto.spec
        view = cls(
            name=spec.name,
            source=DataSource.from_proto(spec.source) if spec.HasField("source") else None,
            ttl=from_duration(spec, "ttl") or timedelta(0),
            online=spec.online,
            description=spec.description,
            tags=dict(spec.tags),
            owner=spec.owner,
            labeler_field=spec.labeler_field or "labeler",
            conflict_policy=ConflictPolicy.from_proto(spec.conflict_policy),
            reference_feature_view=spec.reference_feature_view or None,
        )
        view._ttl_left_open = not spec.HasField("ttl")
        view.entities = list(spec.entities)
        view.features = [Field.from_proto(one) for one in spec.features]
        view.entity_columns = [Field.from_proto(one) for one in spec.entity_columns]
        view.projection = FeatureViewProjection.from_definition(view)
        view.projection.view_type = "labelView"
        read_times(label_view_proto.meta, view)
        return view
