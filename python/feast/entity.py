"""`Entity`: what features describe (a driver, an airport), and the column that identifies it."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from feast._definition import (
    Definition,
    check_instance,
    check_text,
    checked_list,
    checked_texts,
    declared_at,
)
from feast.value_type import ValueType


class Entity(Definition):
    """What features describe.

    The join key is the column of that identity in sources, entity frames and requests; it is the
    name of the entity unless `join_keys` (a list of one) says otherwise. Without a `value_type`,
    the type of the key comes from the schemas of the views or from their sources.
    """

    _compared = ("name", "value_type", "join_key", "description", "tags", "owner")

    created_timestamp: datetime | None
    last_updated_timestamp: datetime | None

    def __init__(
        self,
        *,
        name: str,
        join_keys: list[str] | None = None,
        value_type: ValueType | None = None,
        description: str = "",
        tags: dict[str, str] | None = None,
        owner: str = "",
    ) -> None:
        check_text("an entity", "name", name)
        where = f"entity `{name}`"
        keys = checked_list(where, "join_keys", join_keys, str, f'"{name}_id"')
        if len(keys) > 1:
            raise ValueError(
                f"{where}: an entity has one join key, but `join_keys` lists {len(keys)}: {keys}; "
                "declare an entity for each key and list them all in the feature view"
            )
        if value_type is not None:
            check_instance(where, "value_type", value_type, ValueType, "ValueType.INT64")
        check_text(where, "description", description)
        check_text(where, "owner", owner)
        self._declared_at = declared_at()
        self.name = name
        self.value_type = value_type or ValueType.UNKNOWN
        self.join_key = keys[0] if keys else name
        self.description = description
        self.tags = checked_texts(where, "tags", tags)
        self.owner = owner
        self.created_timestamp = None
        self.last_updated_timestamp = None

    def __hash__(self) -> int:
        return hash((self.name, self.join_key))

    def is_valid(self) -> None:
        """Refuses an entity without a name."""
        if not self.name:
            raise ValueError('an entity has no name; write for instance `Entity(name="driver")`')

    def to_proto(self) -> Any:
        """The message `feast.core.Entity`."""
        from feast._wire import write_times
        from feast.protos.feast.core.Entity_pb2 import Entity as Message
        from feast.protos.feast.core.Entity_pb2 import EntityMeta, EntitySpecV2

        spec = EntitySpecV2(
            name=self.name,
            value_type=self.value_type.value,
            join_key=self.join_key,
            description=self.description,
            tags=self.tags,
            owner=self.owner,
        )
        return Message(spec=spec, meta=write_times(EntityMeta(), self))

    @classmethod
    def from_proto(cls, entity_proto: Any) -> Entity:
        """Reads `feast.core.Entity`."""
        from feast._wire import read_times

        spec = entity_proto.spec
        entity = cls(
            name=spec.name,
            join_keys=[spec.join_key] if spec.join_key else None,
            value_type=ValueType(spec.value_type),
            description=spec.description,
            tags=dict(spec.tags),
            owner=spec.owner,
        )
        read_times(entity_proto.meta, entity)
        return entity
