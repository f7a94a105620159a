"""From history to the online store."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from feast import _frames
from feast._store.opened import Opened
from feast.freshness import FeatureViewFreshness


class Materialization(Opened):
    """Bringing the online store up to date with history, and telling how old its values are."""

    def materialize(
        self,
        start_date: datetime,
        end_date: datetime,
        feature_views: list[str] | None = None,
        disable_event_timestamp: bool = False,
        full_feature_names: bool = False,
        version: str | None = None,
        force: bool = False,
        run_async: bool = False,
        *,
        shard: str | None = None,
    ) -> None:
        """Copies the latest values between two times, both included, into the online store.

        Where the online store is a feature server, that server does it, from its own history. With `run_async` the
        call returns when the server has taken the order; with `force`, too, it takes the order although a view
        is said to be being loaded. For other online stores both change nothing: the call returns when all is done.

        `shard`, such as `"1/4"`, copies those of a part of the entity keys; when all parts are there, the span is
        recorded as materialized.
        """
        self._check_force(force, run_async)
        start, end = (
            _frames.microseconds(start_date, "start_date"),
            _frames.microseconds(end_date, "end_date"),
        )
        if start > end:
            raise ValueError(
                f"`start_date` ({start_date}) is after `end_date` ({end_date}); swap them"
            )
        options = {
            "feature_views": _view_names(feature_views),
            "disable_event_timestamp": disable_event_timestamp,
            "full_feature_names": full_feature_names,
            "version": version,
            "force": force,
            "run_async": run_async,
            "shard": shard,
        }
        self._native.materialize(start, end, json.dumps(options), None)

    def materialize_incremental(
        self,
        end_date: datetime,
        feature_views: list[str] | None = None,
        full_feature_names: bool = False,
        version: str | None = None,
        force: bool = False,
        run_async: bool = False,
        *,
        shard: str | None = None,
    ) -> None:
        """Copies what is new since the last materialization of each view into the online store.

        `force`, `run_async` and `shard` are as in `materialize`.
        """
        self._check_force(force, run_async)
        options = {
            "feature_views": _view_names(feature_views),
            "full_feature_names": full_feature_names,
            "version": version,
            "force": force,
            "run_async": run_async,
            "shard": shard,
        }
        self._native.materialize(
            None, _frames.microseconds(end_date, "end_date"), json.dumps(options), None
        )

    def _check_force(self, force: bool, run_async: bool) -> None:
        if force and not run_async and getattr(self.config.online_store, "type", None) == "remote":
            raise ValueError(
                "`force` goes with `run_async=True`: a feature server that is waited for takes no order by force"
            )

    def freshness(self, quick: bool = False) -> list[FeatureViewFreshness]:
        """How old the newest value of each feature view is, online and offline, and who says so.

        With ``quick`` no store reads rows for it: the registry tells until when views were materialized, and files
        tell what their footers say.
        """
        return [
            FeatureViewFreshness.from_dict(view)
            for view in json.loads(self._native.freshness_json(quick))
        ]


def _view_names(feature_views: Any) -> list[str] | None:
    if feature_views is None:
        return None
    names = list(feature_views) if isinstance(feature_views, (list, tuple, set)) else [None]
    if not all(isinstance(name, str) for name in names):
        raise TypeError(
            f"`feature_views` must be a list of names, but is {feature_views!r:.80}; "
            'write for instance `["driver_stats"]`'
        )
    return names
