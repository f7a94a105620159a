"""Rows that come from outside: pushed, written, or logged by a server."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from feast import _frames
from feast._store.opened import Opened
from feast._unavailable import NotAvailableYet
from feast.data_source import PushMode

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    from feast.feature_service import FeatureService


class Writing(Opened):
    """Writing rows to the online store, the offline store, or both."""

    def push(
        self,
        push_source_name: str,
        df: pd.DataFrame,
        allow_registry_cache: bool = True,
        to: PushMode = PushMode.ONLINE,
        transform_on_write: bool = True,
    ) -> None:
        """Writes rows to every feature view over a push source."""
        self._native.push(
            push_source_name, _frames.to_stream(df, "df"), _push_target(to), transform_on_write
        )

    async def push_async(
        self,
        push_source_name: str,
        df: pd.DataFrame,
        allow_registry_cache: bool = True,
        to: PushMode = PushMode.ONLINE,
        **kwargs: Any,
    ) -> None:
        """`push` without blocking the event loop."""
        await self._native.push_async(
            push_source_name, _frames.to_stream(df, "df"), _push_target(to), True
        )

    def write_to_online_store(
        self,
        feature_view_name: str,
        df: pd.DataFrame | None = None,
        inputs: dict[str, list[Any]] | pd.DataFrame | None = None,
        allow_registry_cache: bool = True,
        transform_on_write: bool = True,
    ) -> None:
        """Writes rows of one feature view to the online store. Rows come as a frame, or as lists in `inputs`."""
        self._native.write_to_online_store(
            feature_view_name, _rows_to_write(feature_view_name, df, inputs), transform_on_write
        )

    async def write_to_online_store_async(
        self,
        feature_view_name: str,
        df: pd.DataFrame | None = None,
        inputs: dict[str, list[Any]] | pd.DataFrame | None = None,
        allow_registry_cache: bool = True,
    ) -> None:
        """`write_to_online_store` without blocking the event loop."""
        await self._native.write_to_online_store_async(
            feature_view_name, _rows_to_write(feature_view_name, df, inputs), True
        )

    def write_to_offline_store(
        self,
        feature_view_name: str,
        df: pd.DataFrame,
        allow_registry_cache: bool = True,
        reorder_columns: bool = True,
    ) -> None:
        """Appends rows to the batch source of a feature view."""
        self._native.write_to_offline_store(
            feature_view_name, _frames.to_stream(df, "df"), reorder_columns
        )

    async def update_online_store(
        self,
        feature_view_name: str,
        df: pd.DataFrame,
        update_expressions: dict[str, str],
        allow_registry_cache: bool = True,
    ) -> None:
        """Update expressions of DynamoDB: not available yet."""
        raise NotAvailableYet(
            "updating lists in place", "write the whole list with `write_to_online_store`"
        )

    def write_logged_features(self, logs: pa.Table | Path, source: FeatureService) -> None:
        """Adds rows to the log that the feature service names: a table, or Parquet files at a path.

        Readers of the log see all of a call or nothing of it.
        """
        if isinstance(logs, (str, Path)):
            import pyarrow.dataset

            logs = pyarrow.dataset.dataset(logs, format="parquet").to_table()
        self._native.write_logged_features(
            _frames.to_stream(logs, "logs"), source.to_proto().SerializeToString()
        )


def _rows_to_write(feature_view: str, df: Any, inputs: Any) -> Any:
    if (df is None) == (inputs is None):
        found = "neither is" if df is None else "both are"
        raise ValueError(
            f"writing to feature view `{feature_view}` takes `df` or `inputs`, but {found} given; pass one of them"
        )
    return _frames.to_stream(inputs, "inputs") if df is None else _frames.to_stream(df, "df")


def _push_target(to: Any) -> str:
    if not isinstance(to, PushMode):
        valid = ", ".join(f"`PushMode.{mode.name}`" for mode in PushMode)
        raise ValueError(f"`to` must be one of {valid}, but is {to!r:.80}")
    return to.name.lower()
