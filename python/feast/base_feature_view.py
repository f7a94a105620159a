"""`BaseFeatureView`: what feature, on-demand and label views have in common."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from feast._definition import (
    Definition,
    check_text,
    checked_list,
    checked_texts,
    declared_at,
    did_you_mean,
    kind_of,
)
from feast.feature_view_projection import FeatureViewProjection
from feast.field import Field
from feast.types import from_value_type
from feast.value_type import ValueType

if TYPE_CHECKING:
    from feast.data_source import DataSource
    from feast.entity import Entity

_View = TypeVar("_View", bound="BaseFeatureView")
_DUMMY_ENTITY = "__dummy"
_DUMMY_JOIN_KEY = "__dummy_id"
_FIELD_EXAMPLE = 'Field(name="conv_rate", dtype=Float32)'


class BaseFeatureView(Definition, ABC):
    """Base of all views: a name, features, and the projection by which they are selected.

    `view[["a", "b"]]`, `with_name` and `with_projection` return copies with another projection;
    the view itself never changes.
    """

    _compared: ClassVar[tuple[str, ...]] = (
        "name",
        "_sorted_features",
        "projection",
        "description",
        "tags",
        "owner",
    )

    created_timestamp: datetime | None
    last_updated_timestamp: datetime | None
    version: str = "latest"
    current_version_number: int | None = None
    # The name of this kind of view in messages.
    _kind = "feature view"

    @abstractmethod
    def __init__(
        self,
        *,
        name: str,
        features: list[Field] | None = None,
        description: str = "",
        tags: dict[str, str] | None = None,
        owner: str = "",
        source: DataSource | None = None,
    ) -> None:
        check_text(f"a {self._kind}", "name", name)
        where = f"{self._kind} `{name}`"
        check_text(where, "description", description)
        check_text(where, "owner", owner)
        self._declared_at = declared_at()
        self.name = name
        self.features = checked_list(where, "schema", features, Field, _FIELD_EXAMPLE)
        self.description = description
        self.tags = checked_texts(where, "tags", tags)
        self.owner = owner
        self.source = source
        self.projection = FeatureViewProjection.from_definition(self)
        self.created_timestamp = None
        self.last_updated_timestamp = None

    @property
    def _where(self) -> str:
        return f"{self._kind} `{self.name}`"

    @property
    def _sorted_features(self) -> list[Field]:
        return sorted(self.features)

    # What stands for "no entity" is written or left out, depending on who wrote the registry.

    @property
    def _sorted_entities(self) -> list[str]:
        names = getattr(self, "entities", None) or []
        return sorted(name for name in names if name != _DUMMY_ENTITY)

    @property
    def _sorted_entity_columns(self) -> list[Field]:
        columns = getattr(self, "entity_columns", None) or []
        return sorted(column for column in columns if column.name != _DUMMY_JOIN_KEY)

    # Without limit is zero in the views that a registry gives, as in Feast, whether they were
    # declared with `None` or zero; the message stays what it was.
    _ttl_left_open: bool = False

    @property
    def _look_back(self) -> timedelta:
        return getattr(self, "ttl", None) or timedelta(0)

    def _ttl_message(self) -> Any:
        from feast._wire import to_duration

        ttl = getattr(self, "ttl", None)
        return None if self._ttl_left_open and not ttl else to_duration(ttl)

    @property
    def _normal_version(self) -> str:
        from feast.version_utils import normalize_version_string

        return normalize_version_string(self.version)

    def __hash__(self) -> int:
        return hash(self.name)

    @property
    @abstractmethod
    def proto_class(self) -> type[Any]:
        """The class of this view's message."""

    @abstractmethod
    def to_proto(self) -> Any:
        """The message of this view."""

    @classmethod
    @abstractmethod
    def from_proto(cls, feature_view_proto: Any) -> Any:
        """Reads the message of this kind of view."""

    def __copy__(self: _View) -> _View:
        """A view of its own over the same sources: changing its features leaves this one alone."""
        twin = object.__new__(type(self))
        twin.__dict__.update(self.__dict__)
        twin.features = list(self.features)
        twin.projection = copy.copy(self.projection)
        for name in ("entities", "entity_columns", "materialization_intervals"):
            if name in twin.__dict__ and twin.__dict__[name] is not None:
                twin.__dict__[name] = list(twin.__dict__[name])
        return twin

    def __getitem__(self: _View, item: list[str]) -> _View:
        """The view with only these features, in this order: `view[["a", "b"]]`."""
        if not isinstance(item, list) or not all(isinstance(name, str) for name in item):
            raise TypeError(
                f"{self._where}: features are chosen with a list of names, but the brackets hold "
                f'{kind_of(item)}; write `view[["name"]]`'
            )
        twin = copy.copy(self)
        if not self.features:
            twin.projection.desired_features = item
            return twin
        known = {one.name: one for one in self.features}
        for name in item:
            if name not in known:
                raise ValueError(
                    f"{self._where} has no feature `{name}`{did_you_mean(name, known)}"
                )
        twin.projection.features = [known[name] for name in item]
        return twin

    def with_name(self: _View, name: str) -> _View:
        """The view under another name, in references and in the names of columns."""
        check_text(self._where, "name", name)
        twin = copy.copy(self)
        twin.projection.name_alias = name
        return twin

    def with_projection(self: _View, feature_view_projection: FeatureViewProjection) -> _View:
        """The view with another selection of its features."""
        self._check_projection(feature_view_projection)
        twin = copy.copy(self)
        twin.projection = feature_view_projection
        return twin

    def set_projection(self, feature_view_projection: FeatureViewProjection) -> None:
        """Replaces the projection of this very view."""
        self._check_projection(feature_view_projection)
        self.projection = feature_view_projection

    def _check_projection(self, projection: FeatureViewProjection) -> None:
        if projection.name != self.name:
            raise ValueError(
                f"{self._where}: the projection selects from `{projection.name}`, not from this view"
            )
        for feature in projection.features:
            if feature not in self.features:
                raise ValueError(
                    f"{self._where}: the projection selects `{feature.name}`, which this view does "
                    "not have (or has with another type)"
                )

    def ensure_valid(self) -> None:
        """Refuses names that cannot be used in a reference such as `view:feature`."""
        if not self.name:
            raise ValueError(f"a {self._kind} has no name; add `name=…`")
        for mark, meaning in (("@", "versions, as in `view@v2:feature`"), (":", "`view:feature`")):
            if mark in self.name:
                raise ValueError(
                    f"{self._where}: the name contains `{mark}`, which references use for "
                    f"{meaning}; use letters, digits and `_`"
                )


def entity_names(where: str, entities: Any) -> list[Entity]:
    """The entities of a view, all of class `Entity`, with distinct join keys."""
    from feast.entity import Entity

    items = checked_list(where, "entities", entities, Entity, "driver")
    keys = [one.join_key for one in items]
    for key in keys:
        if keys.count(key) > 1:
            names = ", ".join(f"`{one.name}`" for one in items if one.join_key == key)
            raise ValueError(
                f"{where}: the entities {names} have the same join key `{key}`; give each a join "
                "key of its own, or alias one with `with_join_key_map`"
            )
    return items


def split_schema(
    where: str, schema: list[Field], entities: list[Entity]
) -> tuple[list[Field], list[Field]]:
    """The columns of a view as (join keys, features). Types of join keys must fit the entities."""
    by_key = {one.join_key: one for one in entities}
    seen: set[str] = set()
    keys: list[Field] = []
    features: list[Field] = []
    for field in schema:
        if field.name in seen:
            raise ValueError(
                f"{where}: `schema` declares `{field.name}` more than once; remove one"
            )
        seen.add(field.name)
        entity = by_key.get(field.name)
        if entity is None:
            features.append(field)
            continue
        declared = entity.value_type
        if declared is not ValueType.UNKNOWN and from_value_type(declared) != field.dtype:
            raise ValueError(
                f"{where}: `schema` gives the join key `{field.name}` the type {field.dtype}, but "
                f"entity `{entity.name}` has {from_value_type(declared)}; make them equal"
            )
        keys.append(field)
    return keys, features
