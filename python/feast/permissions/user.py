"""Who is calling."""

from __future__ import annotations

from feast._definition import shown


class User:
    """A caller with roles, groups and namespaces."""

    def __init__(
        self,
        username: str,
        roles: list[str] | None = None,
        groups: list[str] | None = None,
        namespaces: list[str] | None = None,
    ) -> None:
        self._username = username
        self._roles = list(roles or [])
        self._groups = list(groups or [])
        self._namespaces = list(namespaces or [])

    @property
    def username(self) -> str:
        """Name of the caller."""
        return self._username

    @property
    def roles(self) -> list[str]:
        """Roles of the caller."""
        return self._roles

    @property
    def groups(self) -> list[str]:
        """Groups the caller belongs to."""
        return self._groups

    @property
    def namespaces(self) -> list[str]:
        """Namespaces the caller comes from."""
        return self._namespaces

    def has_matching_role(self, requested_roles: list[str]) -> bool:
        """Whether the caller has one of these roles."""
        return not set(self._roles).isdisjoint(requested_roles)

    def has_matching_group(self, requested_groups: list[str]) -> bool:
        """Whether the caller is in one of these groups."""
        return not set(self._groups).isdisjoint(requested_groups)

    def has_matching_namespace(self, requested_namespaces: list[str]) -> bool:
        """Whether the caller comes from one of these namespaces."""
        return not set(self._namespaces).isdisjoint(requested_namespaces)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, User) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash(self._username)

    def __repr__(self) -> str:
        return shown(self)

    def __str__(self) -> str:
        return (
            f"{self._username} (roles: {self._roles}, groups: {self._groups}, "
            f"namespaces: {self._namespaces})"
        )
