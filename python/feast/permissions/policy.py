"""Policies: the condition under which a permission holds for a caller."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from feast._definition import checked_list, shown
from feast.permissions.user import User


class Policy(ABC):
    """A condition on the caller."""

    # The member of the message; also says which class reads it.
    _member: ClassVar[str] = ""

    @abstractmethod
    def validate_user(self, user: User) -> tuple[bool, str]:
        """Whether the condition holds, and what is missing if not."""

    @abstractmethod
    def to_proto(self) -> Any:
        """The message `feast.core.Policy`."""

    @staticmethod
    def from_proto(policy_proto: Any) -> Any:
        """Reads `feast.core.Policy`, whatever its kind; an empty one allows everybody."""
        member = policy_proto.WhichOneof("policy_type")
        for kind in _KINDS:
            if kind._member == member:
                values = getattr(policy_proto, member)
                return kind(**{name: list(getattr(values, name)) for name in kind._names})
        return AllowAll

    def __repr__(self) -> str:
        return shown(self)


class _ListPolicy(Policy):
    """A policy made of lists of names, any of which is enough."""

    _names: ClassVar[tuple[str, ...]]

    def _keep(self, **lists: Any) -> None:
        for name, values in lists.items():
            setattr(self, name, checked_list(type(self).__name__, name, values, str, '"admin"'))

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and all(
            sorted(getattr(self, name)) == sorted(getattr(other, name)) for name in self._names
        )

    def __hash__(self) -> int:
        return hash((self._member, *(tuple(sorted(getattr(self, name))) for name in self._names)))

    def to_proto(self) -> Any:
        """The message `feast.core.Policy`."""
        from feast.protos.feast.core.Policy_pb2 import Policy as Message

        message = Message()
        chosen = getattr(message, self._member)
        chosen.SetInParent()
        for name in self._names:
            getattr(chosen, name).extend(getattr(self, name))
        return message

    def validate_user(self, user: User) -> tuple[bool, str]:
        """Whether the caller has one of the names, and what is missing if not."""
        for name in self._names:
            if not set(getattr(self, name)).isdisjoint(getattr(user, name)):
                return True, ""
        wanted = " or ".join(f"one of the {name} {getattr(self, name)}" for name in self._names)
        return False, f"requires {wanted}"


class RoleBasedPolicy(_ListPolicy):
    """Holds for callers with one of the roles."""

    _member = "role_based_policy"
    _names = ("roles",)
    roles: list[str]

    def __init__(self, roles: list[str]) -> None:
        self._keep(roles=roles)

    def get_roles(self) -> list[str]:
        """The roles."""
        return self.roles


class GroupBasedPolicy(_ListPolicy):
    """Holds for members of one of the groups."""

    _member = "group_based_policy"
    _names = ("groups",)
    groups: list[str]

    def __init__(self, groups: list[str]) -> None:
        self._keep(groups=groups)

    def get_groups(self) -> list[str]:
        """The groups."""
        return self.groups


class NamespaceBasedPolicy(_ListPolicy):
    """Holds for callers from one of the namespaces."""

    _member = "namespace_based_policy"
    _names = ("namespaces",)
    namespaces: list[str]

    def __init__(self, namespaces: list[str]) -> None:
        self._keep(namespaces=namespaces)

    def get_namespaces(self) -> list[str]:
        """The namespaces."""
        return self.namespaces


class CombinedGroupNamespacePolicy(_ListPolicy):
    """Holds for either: a member of one of the groups, or a caller from one of the namespaces."""

    _member = "combined_group_namespace_policy"
    _names = ("groups", "namespaces")
    groups: list[str]
    namespaces: list[str]

    def __init__(self, groups: list[str], namespaces: list[str]) -> None:
        self._keep(groups=groups, namespaces=namespaces)

    def get_groups(self) -> list[str]:
        """The groups."""
        return self.groups

    def get_namespaces(self) -> list[str]:
        """The namespaces."""
        return self.namespaces


class _AllowAll(Policy):
    """Holds for everybody."""

    def validate_user(self, user: User) -> tuple[bool, str]:
        """Always."""
        return True, ""

    def to_proto(self) -> Any:
        """The empty message."""
        from feast.protos.feast.core.Policy_pb2 import Policy as Message

        return Message()

    def __repr__(self) -> str:
        return "AllowAll"


AllowAll = _AllowAll()

_KINDS = (RoleBasedPolicy, GroupBasedPolicy, NamespaceBasedPolicy, CombinedGroupNamespacePolicy)
