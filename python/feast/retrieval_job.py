"""The result of asking for historical features: nothing has run yet, every `to_…` runs the query."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Any

from feast import _frames
from feast._unavailable import NotAvailableYet

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl
    import pyarrow as pa

    from feast.dataframe import FeastDataFrame
    from feast.on_demand_feature_view import OnDemandFeatureView
    from feast.saved_dataset import SavedDatasetStorage, ValidationReference


class RetrievalMetadata:
    """What a query was asked for: its features, the columns of the entity rows, and the range of their times."""

    def __init__(
        self,
        features: list[str],
        keys: list[str],
        min_event_timestamp: datetime | None = None,
        max_event_timestamp: datetime | None = None,
    ) -> None:
        self.features = features
        self.keys = keys
        self.min_event_timestamp = min_event_timestamp
        self.max_event_timestamp = max_event_timestamp

    def __repr__(self) -> str:
        return (
            f"RetrievalMetadata(features={self.features!r}, keys={self.keys!r}, "
            f"min_event_timestamp={self.min_event_timestamp!r}, max_event_timestamp={self.max_event_timestamp!r})"
        )


class RetrievalJob:
    """A query over historical features.

    The rows come as pandas, Arrow, Polars, tensors or batch by batch; any library that reads Arrow streams takes the
    job itself (`polars.DataFrame(job)`, `pyarrow.table(job)`). Each use runs the query again.
    """

    def __init__(
        self,
        native: Any,
        *,
        full_feature_names: bool = False,
        on_demand_feature_views: Callable[[], list[OnDemandFeatureView]] | None = None,
        staging_location: str | None = None,
    ) -> None:
        self._native = native
        self._full_feature_names = full_feature_names
        self._views = on_demand_feature_views
        self._staging_location = staging_location

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        return self._native.__arrow_c_stream__(requested_schema)

    def to_df(
        self, validation_reference: ValidationReference | None = None, timeout: int | None = None
    ) -> pd.DataFrame:
        """All rows as a pandas DataFrame."""
        return _frames.to_pandas(self.to_arrow(validation_reference, timeout))

    def to_arrow(
        self, validation_reference: ValidationReference | None = None, timeout: int | None = None
    ) -> pa.Table:
        """All rows as an Arrow table."""
        if validation_reference is not None:
            raise NotAvailableYet("validating a retrieved dataset")
        return _frames.to_table(self, timeout)

    def to_polars(self) -> pl.DataFrame:
        """All rows as a Polars frame; neither pandas nor pyarrow is needed."""
        try:
            import polars
        except ImportError as error:
            from feast.errors import FeastExtrasDependencyImportError

            raise FeastExtrasDependencyImportError("polars", str(error)) from None
        return polars.DataFrame(self)

    def to_feast_df(
        self, validation_reference: ValidationReference | None = None, timeout: int | None = None
    ) -> FeastDataFrame:
        """All rows in Feast's wrapper around an Arrow table."""
        from feast.dataframe import DataFrameEngine, FeastDataFrame

        return FeastDataFrame(
            self.to_arrow(validation_reference, timeout), engine=DataFrameEngine.ARROW
        )

    def to_arrow_batches(self) -> pa.RecordBatchReader:
        """The rows batch by batch, in bounded memory."""
        return _frames._pyarrow("reading batch by batch").RecordBatchReader.from_stream(self)

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        return iter(self.to_arrow_batches())

    def to_tensor(
        self, kind: str = "torch", default_value: Any = float("nan"), timeout: int | None = None
    ) -> dict[str, Any]:
        """Columns of numbers as tensors, missing values replaced; other columns as lists."""
        return _frames.to_tensors(self.to_arrow(timeout=timeout).to_pydict(), kind, default_value)

    def to_ray_dataset(self) -> Any:
        """All rows as a Ray dataset."""
        try:
            import ray.data
        except ImportError as error:
            from feast.errors import FeastExtrasDependencyImportError

            raise FeastExtrasDependencyImportError("ray", str(error)) from None
        return ray.data.from_arrow(self.to_arrow())

    def to_sql(self) -> str:
        """The query as the engine runs it."""
        return str(self._native.explain())

    def persist(
        self,
        storage: SavedDatasetStorage,
        allow_overwrite: bool = False,
        timeout: int | None = None,
    ) -> None:
        """Writes the rows to a place outside the feature store: a Parquet file, or a folder of them."""
        message = storage.to_proto()
        if message.WhichOneof("kind") != "file_storage":
            raise NotAvailableYet(
                f"writing a dataset to `{type(storage).__name__}`",
                "use a `SavedDatasetFileStorage`",
            )
        self._native.write(
            message.file_storage.uri, json.dumps({"allow_overwrite": allow_overwrite})
        )

    def supports_remote_storage_export(self) -> bool:
        """Whether `to_remote_storage` has a place to write to."""
        return self._staging_location is not None

    def to_remote_storage(self) -> list[str]:
        """Writes the rows as Parquet files below the offline store's `staging_location`; returns their paths."""
        if self._staging_location is None:
            raise NotAvailableYet(
                "exporting to remote storage without a place for it",
                "set `staging_location` in the `offline_store` section of feature_store.yaml",
            )
        path = f"{self._staging_location.rstrip('/')}/{uuid.uuid4()}/"
        return list(self._native.write(path, json.dumps({"allow_overwrite": False})))

    @property
    def full_feature_names(self) -> bool:
        """Whether the columns of features are named `<view>__<feature>`."""
        return self._full_feature_names

    @property
    def on_demand_feature_views(self) -> list[OnDemandFeatureView]:
        """The on demand feature views that take part."""
        return self._views() if self._views is not None else []

    @property
    def metadata(self) -> RetrievalMetadata | None:
        """What the query was asked for; None when it only reads back what was stored."""
        if not hasattr(self._native, "metadata_json"):
            return None
        found = json.loads(self._native.metadata_json())
        return RetrievalMetadata(
            features=found.get("features", []),
            keys=found.get("keys", []),
            min_event_timestamp=_time(found.get("min_event_timestamp")),
            max_event_timestamp=_time(found.get("max_event_timestamp")),
        )


def _time(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
