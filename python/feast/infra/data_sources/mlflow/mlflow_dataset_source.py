"""Datasets tracked by MLflow, with the batch source that keeps their history."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from feast._source_base import JsonOptions, StoredSource, option
from feast.data_source import (
    DataSource,
    batch_source_of,
    checked_batch_source,
    with_batch_source,
)
from feast.errors import DataSourceNoNameException

_FORMATS = ("parquet", "csv")


class MlflowDatasetOptions(JsonOptions):
    """A dataset by name, or an artifact of a run."""

    def __init__(
        self,
        dataset_name: str | None,
        dataset_id: str | None,
        run_id: str | None,
        artifact_path: str | None,
        artifact_format: str | None,
        tracking_uri: str | None,
    ) -> None:
        self.dataset_name = dataset_name
        self.dataset_id = dataset_id
        self.run_id = run_id
        self.artifact_path = artifact_path
        self.artifact_format = artifact_format or "parquet"
        self.tracking_uri = tracking_uri


class MlflowDatasetSource(StoredSource):
    """A dataset tracked by MLflow: by name or identifier, or as an artifact of a run."""

    _options_class = MlflowDatasetOptions
    _compared = (*StoredSource._compared, "batch_source")

    dataset_name = option("dataset_name")
    dataset_id = option("dataset_id")
    run_id = option("run_id")
    artifact_path = option("artifact_path")
    artifact_format = option("artifact_format")
    tracking_uri = option("tracking_uri")

    def __init__(
        self,
        *,
        name: str | None = None,
        dataset_name: str | None = None,
        dataset_id: str | None = None,
        run_id: str | None = None,
        artifact_path: str | None = None,
        artifact_format: str = "parquet",
        batch_source: DataSource,
        tracking_uri: str | None = None,
        timestamp_field: str | None = "",
        created_timestamp_column: str | None = "",
        field_mapping: dict[str, str] | None = None,
        description: str | None = "",
        tags: dict[str, str] | None = None,
        owner: str | None = "",
    ) -> None:
        if name is None:
            raise DataSourceNoNameException()
        where = f"data source `{name}`"
        self._options = MlflowDatasetOptions(
            dataset_name, dataset_id, run_id, artifact_path, artifact_format, tracking_uri
        )
        if self.is_genai_mode == self.is_artifact_mode:
            found = "both are" if self.is_genai_mode else "neither is"
            raise ValueError(
                f"{where}: give a dataset (`dataset_name` or `dataset_id`) or an artifact (`run_id` "
                f"and `artifact_path`), but {found} given"
            )
        if self.is_artifact_mode and artifact_format not in _FORMATS:
            raise ValueError(
                f"{where}: `artifact_format` is `{artifact_format}`; use one of {', '.join(_FORMATS)}"
            )
        batch = checked_batch_source(where, batch_source)
        if batch is None:
            raise ValueError(f"{where}: `batch_source` is missing; name the source of its history")
        self.batch_source = batch
        super().__init__(
            name=name,
            timestamp_field=timestamp_field or batch.timestamp_field,
            created_timestamp_column=created_timestamp_column or batch.created_timestamp_column,
            field_mapping=field_mapping,
            description=description,
            tags=tags,
            owner=owner,
        )

    @property
    def is_genai_mode(self) -> bool:
        """Whether it is a dataset by name or identifier."""
        return bool(self.dataset_name or self.dataset_id)

    @property
    def is_artifact_mode(self) -> bool:
        """Whether it is an artifact of a run."""
        return bool(self.run_id and self.artifact_path)

    def _to_proto_impl(self) -> Any:
        return with_batch_source(super()._to_proto_impl(), self.batch_source)

    @classmethod
    def from_proto(cls, data_source: Any) -> MlflowDatasetSource:
        """Reads `feast.core.DataSource`."""
        from feast.data_source import shared_arguments

        options = MlflowDatasetOptions.from_proto(data_source.custom_options)
        return cls(
            **shared_arguments(data_source),
            **vars(options),
            batch_source=batch_source_of(data_source),  # type: ignore[arg-type]
        )

    def get_table_column_names_and_types(self, config: Any) -> Iterable[tuple[str, str]]:
        """Name and type of each column of the batch source."""
        return self.batch_source.get_table_column_names_and_types(config)

    def get_table_query_string(self) -> str:
        """What follows FROM in a query on the batch source."""
        return self.batch_source.get_table_query_string()
