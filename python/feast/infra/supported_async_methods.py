"""Which operations of a store can be awaited."""

from __future__ import annotations

from feast._definition import shown


class SupportedAsyncMethods:
    """Whether reads and writes of an online store can be awaited."""

    def __init__(self, *, read: bool = False, write: bool = False) -> None:
        self.read = read
        self.write = write

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SupportedAsyncMethods) and vars(self) == vars(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return shown(self)


class ProviderAsyncMethods:
    """The same for a provider, which has an online store."""

    def __init__(self, *, online: SupportedAsyncMethods | None = None) -> None:
        self.online = online or SupportedAsyncMethods()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ProviderAsyncMethods) and vars(self) == vars(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return shown(self)
