"""The one way to say that a part of Feast is not here yet."""

from __future__ import annotations

from feast.errors import FeastError


class NotAvailableYet(FeastError, NotImplementedError):
    """A part of Feast's API that this version does not have yet."""

    def __init__(self, what: str, instead: str | None = None) -> None:
        super().__init__(
            f"{what} is not available in this version of feast-rs"
            + (f"; {instead}" if instead else "")
        )
        self.hint = instead
