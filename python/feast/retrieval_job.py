"""The result of asking for historical features: nothing has run yet, every `to_…` runs the query."""

from __future__ import annotations

import functools
import json
import uuid
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from feast import _frames
from feast._unavailable import NotAvailableYet

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl
    import pyarrow as pa

    from feast.dataframe import FeastDataFrame
    from feast.on_demand_feature_view import OnDemandFeatureView
    from feast.saved_dataset import SavedDataset, SavedDatasetStorage, ValidationReference


class RetrievalMetadata:
    """What a query was asked for: its features, the join keys, and the range of the times of the entity rows."""

    def __init__(
        self,
        features: list[str],
        keys: list[str],
        min_event_timestamp: datetime | None = None,
        max_event_timestamp: datetime | None = None,
    ) -> None:
        self.features = features
        self.keys = keys
        self._times = lambda: (min_event_timestamp, max_event_timestamp)

    @classmethod
    def _of(cls, native: Any) -> RetrievalMetadata:
        found = json.loads(native.metadata_json())
        metadata = cls(features=found["features"], keys=found["keys"])
        # Entity rows may have to be read to know their times, so this waits until somebody asks.
        metadata._times = functools.cache(lambda: tuple(map(_time, native.time_range())))
        return metadata

    @property
    def min_event_timestamp(self) -> datetime | None:
        """The least time of the entity rows; of a request for a range of time, its start."""
        return self._times()[0]

    @property
    def max_event_timestamp(self) -> datetime | None:
        """The greatest time of the entity rows; of a request for a range of time, its end."""
        return self._times()[1]

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
        categories: dict[str, Any] | None = None,
    ) -> None:
        self._native = native
        self._full_feature_names = full_feature_names
        self._views = on_demand_feature_views
        self._staging_location = staging_location
        self._categories = categories or {}

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        return self._native.__arrow_c_stream__(requested_schema)

    def to_df(
        self, validation_reference: ValidationReference | None = None, timeout: int | None = None
    ) -> pd.DataFrame:
        """All rows as a pandas DataFrame; categories of the entity rows stay categories."""
        frame = _frames.to_pandas(self.to_arrow(validation_reference, timeout))
        # Join keys have the type that the views declare.
        keys = json.loads(self._native.metadata_json())["keys"] if self._categories else []
        for name, kind in self._categories.items():
            if name in frame and name not in keys:
                frame[name] = frame[name].astype(kind)
        return frame

    def to_arrow(
        self, validation_reference: ValidationReference | None = None, timeout: int | None = None
    ) -> pa.Table:
        """All rows as an Arrow table."""
        if validation_reference is not None:
            raise NotAvailableYet("validating a retrieved dataset")
        with _frames.reading(self._native.rows(timeout, kept=True)) as rows:
            return _frames.to_table(rows)

    def to_polars(self) -> pl.DataFrame:
        """All rows as a Polars frame; neither pandas nor pyarrow is needed."""
        try:
            import polars
        except ImportError as error:
            from feast.errors import FeastExtrasDependencyImportError

            raise FeastExtrasDependencyImportError("polars", str(error)) from None
        with _frames.reading(self._native.rows(kept=True)) as rows:
            return polars.DataFrame(rows)

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
        pyarrow = _frames._pyarrow("reading batch by batch")
        with _frames.reading(self._native.rows()) as rows:
            yield from pyarrow.RecordBatchReader.from_stream(rows)

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
        return str(self._native.plan())

    def explain(self) -> str:
        """Runs the query without keeping its rows; a table with the rows, bytes and time of each step."""
        return str(self._native.explain())

    def leak_report(self) -> list[dict[str, Any]]:
        """How often features would have other values had corrections been used that were written later.

        What was known at the time of each entity row (or at the `as_of` of the request) is compared with what the
        sources say today; only sources with a created timestamp can tell. One entry per feature: `feature_view`,
        `feature`, `has_created_timestamp`, `rows`, `changed` (rows with another value) and `not_yet_known` (those of
        them that had no value yet).
        """
        report = json.loads(self._native.leak_report())
        return [{**feature, "rows": report["rows"]} for feature in report["features"]]

    def persist(
        self,
        storage: SavedDatasetStorage,
        allow_overwrite: bool = False,
        timeout: int | None = None,
    ) -> None:
        """Writes the rows to a place outside the feature store: a Parquet file, or a folder of them."""
        from feast.saved_dataset import SavedDatasetStorage

        if not isinstance(storage, SavedDatasetStorage):
            raise TypeError(
                f"`storage` must be a SavedDatasetStorage, but is of class {type(storage).__name__}; "
                'write `SavedDatasetFileStorage("path.parquet")`'
            )
        message = storage.to_proto()
        if message.WhichOneof("kind") != "file_storage":
            raise NotAvailableYet(
                f"writing a dataset to `{type(storage).__name__}`",
                "use a `SavedDatasetFileStorage`",
            )
        self._native.write(message.file_storage.uri, allow_overwrite)

    def _save(self, dataset: SavedDataset, allow_overwrite: bool) -> None:
        """Writes the rows to the storage of a dataset and records it in the registry."""
        self._native.save(dataset.to_proto().SerializeToString(), allow_overwrite)

    def supports_remote_storage_export(self) -> bool:
        """Whether `to_remote_storage` can be called: always."""
        return True

    def to_remote_storage(self) -> list[str]:
        """Writes the rows as Parquet files into a new folder, and returns the paths of the files.

        The folder is made below the `staging_location` of the offline store; where there is none, below
        `data/exports` of the feature repository.
        """
        place = self._staging_location or "data/exports"
        return list(self._native.write(f"{place.rstrip('/')}/{uuid.uuid4()}", False))

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
        return RetrievalMetadata._of(self._native)


def _time(micros: int | None) -> datetime | None:
    return None if micros is None else _frames.EPOCH + timedelta(microseconds=micros)
