"""How old the newest values of feature views are."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any


@dataclass(frozen=True)
class Newest:
    """The newest value of a feature view somewhere, and who says so."""

    time: datetime | None
    """Its event time; ``None`` where there is no value, or nobody can say."""

    age_seconds: float | None
    """How old it was when it was looked up; less than zero for times to come."""

    told_by: str
    """Who says so.

    ``store``: the greatest event time in the online store's table. ``materialization``: the end of the newest
    materialization in the registry; pushes are not counted. ``statistics``: the footers of Parquet files. ``rows``:
    the rows of other files, which were read. ``statement``: a database, which was asked. ``nobody``: it is not known.
    """

    problem: str | None = None
    """Why nobody can say, where something is wrong."""

    @classmethod
    def from_dict(cls, given: dict[str, Any]) -> Newest:
        """The opposite of what ``feast freshness --output json`` prints."""
        time = given["newest"] and datetime.fromisoformat(given["newest"])
        return cls(time, given["age_seconds"], given["told_by"], given.get("problem"))


@dataclass(frozen=True)
class FeatureViewFreshness:
    """The newest values of one feature view."""

    feature_view: str
    online: Newest | None
    """In the online store; ``None`` for views that are not served from there."""

    offline: Newest | None
    """In the batch source; ``None`` for views without one."""

    @classmethod
    def from_dict(cls, given: dict[str, Any]) -> FeatureViewFreshness:
        """The opposite of what ``feast freshness --output json`` prints."""
        sides = (given[side] and Newest.from_dict(given[side]) for side in ("online", "offline"))
        return cls(given["feature_view"], *sides)
