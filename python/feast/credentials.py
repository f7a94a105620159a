"""Where the credentials of a data source are kept: a reference, never the secret itself.

A reference travels in the tags of its source, and is resolved by a provider registered under its
name (`env` here; others register themselves).
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from typing import Any

TAG_PREFIX = "feast.connection-ref."
_DEFAULT_AUTH = "secret"


class ConnectionRef:
    """Names a secret: which provider keeps it, under which name, and how it is used."""

    __slots__ = ("auth_type", "connection_type", "name", "namespace", "params", "provider")
    provider: str
    name: str
    namespace: str
    connection_type: str
    auth_type: str
    params: dict[str, str]

    _ORDER = ("provider", "name", "namespace", "connection_type", "auth_type", "params")

    def __init__(
        self,
        provider: str,
        name: str,
        namespace: str = "",
        connection_type: str = "",
        auth_type: str = _DEFAULT_AUTH,
        params: dict[str, str] | None = None,
    ) -> None:
        for attribute, value in (
            ("provider", provider),
            ("name", name),
            ("namespace", namespace),
            ("connection_type", connection_type),
            ("auth_type", auth_type),
            ("params", dict(params or {})),
        ):
            object.__setattr__(self, attribute, value)

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(
            f"a ConnectionRef cannot be changed; make a new one with another `{name}`"
        )

    def __reduce__(self) -> Any:
        return (ConnectionRef, tuple(getattr(self, one) for one in self._ORDER))

    def _parts(self) -> tuple[Any, ...]:
        return tuple(getattr(self, one) for one in self.__slots__)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ConnectionRef) and self._parts() == other._parts()

    def __hash__(self) -> int:
        return hash((self.provider, self.name, self.namespace))

    def __repr__(self) -> str:
        return f"ConnectionRef(provider={self.provider!r}, name={self.name!r}, namespace={self.namespace!r})"

    def to_tags(self) -> dict[str, str]:
        """The tags that carry this reference."""
        texts = {
            "provider": self.provider,
            "name": self.name,
            "namespace": self.namespace,
            "connection-type": self.connection_type,
            "auth-type": "" if self.auth_type == _DEFAULT_AUTH else self.auth_type,
        }
        tags = {TAG_PREFIX + key: value for key, value in texts.items() if value}
        tags.update({f"{TAG_PREFIX}param.{key}": value for key, value in self.params.items()})
        return tags

    @classmethod
    def from_tags(cls, tags: dict[str, str]) -> ConnectionRef | None:
        """The reference in some tags, or nothing if they carry none."""
        own = {
            key.removeprefix(TAG_PREFIX): value
            for key, value in tags.items()
            if key.startswith(TAG_PREFIX)
        }
        if not own.get("provider") or not own.get("name"):
            return None
        return cls(
            provider=own["provider"],
            name=own["name"],
            namespace=own.get("namespace", ""),
            connection_type=own.get("connection-type", ""),
            auth_type=own.get("auth-type", _DEFAULT_AUTH),
            params={
                key.removeprefix("param."): value
                for key, value in own.items()
                if key.startswith("param.")
            },
        )


class CredentialResolutionError(Exception):
    """A reference could not be turned into credentials."""


class CredentialProvider(ABC):
    """Turns references into credentials."""

    @abstractmethod
    def provider_type(self) -> str:
        """The name by which references mean this provider."""

    @abstractmethod
    def resolve(self, ref: ConnectionRef) -> dict[str, str]:
        """The credentials, by name."""


class EnvironmentProvider(CredentialProvider):
    """Credentials are the environment variables whose names start with the reference's name."""

    def provider_type(self) -> str:
        """`env`."""
        return "env"

    def resolve(self, ref: ConnectionRef) -> dict[str, str]:
        """All variables with that prefix. A bare `*` is refused: it would mean every secret."""
        if ref.name in ("", "*"):
            raise CredentialResolutionError(
                "a connection reference to the environment needs a prefix of variable names, "
                f"but its name is `{ref.name}`"
            )
        return {key: value for key, value in os.environ.items() if key.startswith(ref.name)}


_PROVIDERS: dict[str, CredentialProvider] = {}


def register_credential_provider(provider: CredentialProvider) -> None:
    """Makes a provider known under its type."""
    _PROVIDERS[provider.provider_type()] = provider


def get_credential_provider(provider_type: str) -> CredentialProvider:
    """The provider of a type."""
    if provider_type not in _PROVIDERS:
        names = ", ".join(f"`{one}`" for one in sorted(_PROVIDERS))
        raise CredentialResolutionError(
            f"no credential provider is called `{provider_type}`; there are {names}; register "
            "yours with `register_credential_provider`"
        )
    return _PROVIDERS[provider_type]


def resolve_credentials(ref: ConnectionRef) -> dict[str, str]:
    """The credentials a reference means."""
    return get_credential_provider(ref.provider).resolve(ref)


def get_connection_config_override(data_source: Any) -> dict[str, str] | None:
    """Parameters and credentials of a source's own connection, if it has one."""
    ref = getattr(data_source, "connection_ref", None)
    if ref is None:
        return None
    return {**ref.params, **resolve_credentials(ref)}


register_credential_provider(EnvironmentProvider())
