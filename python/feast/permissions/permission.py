"""`Permission`: which callers may do what with which objects."""

from __future__ import annotations

import re
from datetime import datetime
from typing import TYPE_CHECKING, Any, Union

from feast._definition import (
    Definition,
    check_instance,
    check_text,
    checked_list,
    checked_texts,
    declared_at,
    kind_of,
)
from feast.permissions.action import ALL_ACTIONS, AuthzedAction
from feast.permissions.policy import AllowAll, Policy

if TYPE_CHECKING:
    from feast.feast_object import FeastObject

# The names of object types in the message, with their classes.
_PERMISSION_TYPES = {
    "FEATURE_VIEW": "feast.feature_view.FeatureView",
    "ON_DEMAND_FEATURE_VIEW": "feast.on_demand_feature_view.OnDemandFeatureView",
    "BATCH_FEATURE_VIEW": "feast.batch_feature_view.BatchFeatureView",
    "STREAM_FEATURE_VIEW": "feast.stream_feature_view.StreamFeatureView",
    "ENTITY": "feast.entity.Entity",
    "FEATURE_SERVICE": "feast.feature_service.FeatureService",
    "DATA_SOURCE": "feast.data_source.DataSource",
    "VALIDATION_REFERENCE": "feast.saved_dataset.ValidationReference",
    "SAVED_DATASET": "feast.saved_dataset.SavedDataset",
    "PERMISSION": "feast.permissions.permission.Permission",
    "PROJECT": "feast.project.Project",
    "LABEL_VIEW": "feast.labeling.label_view.LabelView",
}


class Permission(Definition):
    """Allows `actions` on objects of `types` to callers who meet `policy`.

    Objects are narrowed by `name_patterns` (regular expressions for the whole name; any is enough)
    and `required_tags` (all are needed). Without types, it is about objects of every type.
    """

    _compared = (
        "name",
        "_type_names",
        "name_patterns",
        "actions",
        "policy",
        "tags",
        "required_tags",
    )

    created_timestamp: datetime | None
    last_updated_timestamp: datetime | None

    def __init__(
        self,
        name: str,
        types: Union[list[FeastObject], FeastObject, None] = [],  # noqa: B006
        name_patterns: Union[str, list[str], None] = [],  # noqa: B006
        actions: Union[list[AuthzedAction], AuthzedAction] = ALL_ACTIONS,
        policy: Policy = AllowAll,
        tags: dict[str, str] | None = None,
        required_tags: dict[str, str] | None = None,
    ) -> None:
        check_text("a permission", "name", name)
        where = f"permission `{name}`"
        if not actions:
            raise ValueError(f"{where}: `actions` is empty; list what is allowed, such as `[READ]`")
        if not policy:
            raise ValueError(f"{where}: `policy` is missing; leave it out to allow everybody")
        check_instance(where, "policy", policy, Policy, 'RoleBasedPolicy(roles=["reader"])')
        self._declared_at = declared_at()
        self._name = name
        self._types = _checked_types(where, types)
        self._name_patterns = _patterns(where, name_patterns)
        example = "AuthzedAction.DESCRIBE"
        as_list = [actions] if isinstance(actions, AuthzedAction) else _flat(actions)
        self._actions = checked_list(where, "actions", as_list, AuthzedAction, example)
        self._policy = policy
        self._tags = _stripped(checked_texts(where, "tags", tags))
        self._required_tags = _stripped(checked_texts(where, "required_tags", required_tags))
        self.created_timestamp = None
        self.last_updated_timestamp = None

    def __hash__(self) -> int:
        return hash(self.name)

    def __repr__(self) -> str:
        return (
            f"Permission(name={self.name!r}, types={sorted(self._type_names)}, "
            f"actions={[one.name for one in self.actions]}, policy={self.policy!r})"
        )

    @property
    def name(self) -> str:  # type: ignore[override]
        """Name of the permission."""
        return self._name

    @property
    def types(self) -> list[Any]:
        """Classes of the objects it is about."""
        return self._types

    @property
    def _type_names(self) -> set[str]:
        return {one.__name__ for one in self._types}

    @property
    def name_patterns(self) -> list[str]:
        """Regular expressions for names; none means every name."""
        return self._name_patterns

    @property
    def actions(self) -> list[AuthzedAction]:
        """What is allowed."""
        return self._actions

    @property
    def policy(self) -> Policy:
        """Who is allowed."""
        return self._policy

    @property
    def tags(self) -> dict[str, str]:
        """Tags of the permission itself."""
        return self._tags

    @property
    def required_tags(self) -> dict[str, str]:
        """Tags that objects must have."""
        return self._required_tags

    def match_resource(self, resource: Any) -> bool:
        """Whether it is about this object."""
        from feast.permissions.matcher import resource_match_config

        return resource_match_config(
            resource=resource,
            expected_types=self.types,
            name_patterns=self.name_patterns,
            required_tags=self.required_tags,
        )

    def match_actions(self, requested_actions: list[AuthzedAction]) -> bool:
        """Whether it allows all of these actions."""
        from feast.permissions.matcher import actions_match_config

        return actions_match_config(
            allowed_actions=self.actions, requested_actions=requested_actions
        )

    def to_proto(self) -> Any:
        """The message `feast.core.Permission`."""
        from feast._wire import write_times
        from feast.protos.feast.core.Permission_pb2 import Permission as Message
        from feast.protos.feast.core.Permission_pb2 import PermissionMeta, PermissionSpec

        spec = PermissionSpec(
            name=self.name,
            types=[PermissionSpec.Type.Value(_type_text(one)) for one in self.types],
            name_patterns=self.name_patterns,
            actions=[PermissionSpec.AuthzedAction.Value(one.name) for one in self.actions],
            policy=self.policy.to_proto(),
            tags=self.tags,
            required_tags=self.required_tags,
        )
        return Message(spec=spec, meta=write_times(PermissionMeta(), self))

    @staticmethod
    def from_proto(permission_proto: Any) -> Permission:
        """Reads `feast.core.Permission`."""
        from feast._wire import read_times
        from feast.protos.feast.core.Permission_pb2 import PermissionSpec

        spec = permission_proto.spec
        names = [PermissionSpec.Type.Name(one) for one in spec.types]
        permission = Permission(
            name=spec.name,
            types=[get_type_class_from_permission_type(_PERMISSION_TYPES[one]) for one in names],
            name_patterns=list(spec.name_patterns),
            actions=[AuthzedAction[PermissionSpec.AuthzedAction.Name(one)] for one in spec.actions],
            policy=Policy.from_proto(spec.policy),
            tags=dict(spec.tags),
            required_tags=dict(spec.required_tags),
        )
        read_times(permission_proto.meta, permission)
        return permission


def get_type_class_from_permission_type(permission_type: str) -> Any:
    """The class at an import path."""
    from feast.data_source import class_at

    return class_at(permission_type, "a permission")


def _type_text(kind: type) -> str:
    """The name of a class in the message: `FeatureView` is `FEATURE_VIEW`."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", kind.__name__).upper()


def _checked_types(where: str, types: Any) -> list[Any]:
    from feast.feast_object import ALL_RESOURCE_TYPES

    given = list(types) if isinstance(types, (list, tuple)) else [types] if types else []
    for one in given:
        if one not in ALL_RESOURCE_TYPES:
            known = ", ".join(kind.__name__ for kind in ALL_RESOURCE_TYPES)
            raise ValueError(f"{where}: `types` holds {kind_of(one)}; possible are {known}")
    return given or list(ALL_RESOURCE_TYPES)


def _patterns(where: str, patterns: Any) -> list[str]:
    given = [patterns] if isinstance(patterns, str) else patterns
    texts = [one.strip() for one in checked_list(where, "name_patterns", given, str, '"driver_.*"')]
    for one in texts:
        try:
            re.compile(one)
        except re.error as error:
            raise ValueError(
                f"{where}: the name pattern `{one}` is no regular expression ({error})"
            ) from error
    return texts


def _flat(actions: Any) -> list[Any]:
    """Actions with the groups among them (`READ`, `CRUD`) spread out."""
    flat: list[Any] = []
    for one in actions:
        flat.extend(one if isinstance(one, (list, tuple)) else [one])
    return flat


def _stripped(tags: dict[str, str]) -> dict[str, str]:
    return {key.strip(): value.strip() for key, value in tags.items()}
