"""`FeatureViewProjection`: the part of a view that a feature service or request selects."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from feast._definition import did_you_mean, shown
from feast.data_source import DataSource
from feast.field import Field
from feast.types import Invalid

if TYPE_CHECKING:
    from feast.base_feature_view import BaseFeatureView


class FeatureViewProjection:
    """Chosen features of a view, the alias they go by, and renamed join keys.

    `desired_features` holds names chosen before the features of the view are known (its schema is
    still to be inferred); `features` is empty until then. `join_key_map` maps the join keys of the
    view to the columns of the entity frame or request.
    """

    def __init__(
        self,
        name: str,
        name_alias: str | None,
        desired_features: list[str],
        features: list[Field],
        join_key_map: dict[str, str] | None = None,
        timestamp_field: str | None = None,
        date_partition_column: str | None = None,
        created_timestamp_column: str | None = None,
        batch_source: DataSource | None = None,
        version_tag: int | None = None,
        view_type: str = "featureView",
    ) -> None:
        self.name = name
        self.name_alias = name_alias
        self.desired_features = desired_features
        self.features = features
        self.join_key_map = {} if join_key_map is None else join_key_map
        self.timestamp_field = timestamp_field
        self.date_partition_column = date_partition_column
        self.created_timestamp_column = created_timestamp_column
        self.batch_source = batch_source
        self.version_tag = version_tag
        self.view_type = view_type

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FeatureViewProjection) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash((self.name, self.name_alias))

    def __lt__(self, other: FeatureViewProjection) -> bool:
        return (self.name, self.name_alias or "") < (other.name, other.name_alias or "")

    def __repr__(self) -> str:
        return shown(self)

    def name_to_use(self) -> str:
        """The name before the colon of a reference: the alias if there is one, and the version."""
        name = self.name_alias or self.name
        return name if self.version_tag is None else f"{name}@v{self.version_tag}"

    def get_feature(self, feature_name: str) -> Field:
        """The chosen feature of that name."""
        for one in self.features:
            if one.name == feature_name:
                return one
        near = did_you_mean(feature_name, [one.name for one in self.features])
        raise KeyError(f"`{self.name_to_use()}` has no feature `{feature_name}`{near}")

    def to_proto(self) -> Any:
        """The message `feast.core.FeatureViewProjection`.

        Features that are only desired are written by name; the registry completes them.
        """
        from feast.protos.feast.core.Feature_pb2 import FeatureSpecV2
        from feast.protos.feast.core.FeatureViewProjection_pb2 import (
            FeatureViewProjection as Message,
        )

        if self.features:
            columns = [one.to_proto() for one in self.features]
        else:
            columns = [FeatureSpecV2(name=name) for name in self.desired_features]
        message = Message(
            feature_view_name=self.name,
            feature_view_name_alias=self.name_alias or "",
            feature_columns=columns,
            join_key_map=self.join_key_map,
            timestamp_field=self.timestamp_field or "",
            date_partition_column=self.date_partition_column or "",
            created_timestamp_column=self.created_timestamp_column or "",
            batch_source=self.batch_source.to_proto() if self.batch_source else None,
            view_type=self.view_type or "",
        )
        if self.version_tag is not None:
            message.version_tag = self.version_tag
        return message

    @staticmethod
    def from_proto(proto: Any) -> FeatureViewProjection:
        """Reads `feast.core.FeatureViewProjection`."""
        fields = [Field.from_proto(one) for one in proto.feature_columns]
        only_names = bool(fields) and all(one.dtype == Invalid for one in fields)
        # Old registries hold an empty source here instead of none.
        has_source = proto.HasField("batch_source") and proto.batch_source.ByteSize() > 0
        return FeatureViewProjection(
            name=proto.feature_view_name,
            name_alias=proto.feature_view_name_alias or None,
            desired_features=[one.name for one in fields] if only_names else [],
            features=[] if only_names else fields,
            join_key_map=dict(proto.join_key_map),
            timestamp_field=proto.timestamp_field or None,
            date_partition_column=proto.date_partition_column or None,
            created_timestamp_column=proto.created_timestamp_column or None,
            batch_source=DataSource.from_proto(proto.batch_source) if has_source else None,
            version_tag=proto.version_tag if proto.HasField("version_tag") else None,
            view_type=proto.view_type or "featureView",
        )

    @staticmethod
    def from_definition(base_feature_view: BaseFeatureView) -> FeatureViewProjection:
        """All features of a view, under its own name."""
        source = getattr(base_feature_view, "batch_source", None)
        projection = FeatureViewProjection(
            name=base_feature_view.name,
            name_alias=None,
            desired_features=[],
            features=base_feature_view.features,
            batch_source=source,
        )
        if source is not None:
            projection.created_timestamp_column = source.created_timestamp_column or None
            projection.date_partition_column = source.date_partition_column or None
            # The contract repeats the created column here. Nobody reads it, but a registry with
            # anything else would look changed to other readers.
            projection.timestamp_field = projection.created_timestamp_column
        return projection

    @staticmethod
    def from_feature_view_definition(feature_view: BaseFeatureView) -> FeatureViewProjection:
        """The same as `from_definition`."""
        return FeatureViewProjection.from_definition(feature_view)
