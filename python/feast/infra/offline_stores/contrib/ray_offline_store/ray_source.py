"""Anything that Ray Data can read."""

from __future__ import annotations

from typing import Any

from feast._source_base import (
    JsonOptions,
    StoredSource,
    all_options,
    option,
)
from feast.credentials import ConnectionRef

SUPPORTED_READER_TYPES = (
    "parquet",
    "csv",
    "json",
    "text",
    "images",
    "binary_files",
    "tfrecords",
    "webdataset",
    "huggingface",
    "mongo",
    "sql",
)


class RaySourceOptions(JsonOptions):
    """The reader, what it reads, and its own options."""

    def __init__(self, reader_type: str, path: str, reader_options: dict[str, Any]) -> None:
        self.reader_type = reader_type
        self.path = path or ""
        self.reader_options = reader_options or {}


class RaySource(StoredSource):
    """Rows that a reader of Ray Data delivers."""

    _options_class = RaySourceOptions

    ray_source_options = all_options()
    reader_type = option("reader_type")
    path = option("path")
    reader_options = option("reader_options")

    def __init__(
        self,
        *,
        name: str,
        reader_type: str,
        path: str | None = None,
        reader_options: dict[str, Any] | None = None,
        created_timestamp_column: str | None = None,
        field_mapping: dict[str, str] | None = None,
        description: str | None = "",
        tags: dict[str, str] | None = None,
        owner: str | None = "",
        timestamp_field: str | None = None,
        connection_ref: ConnectionRef | None = None,
    ) -> None:
        if reader_type not in SUPPORTED_READER_TYPES:
            raise ValueError(
                f"data source `{name}`: `{reader_type}` is no reader of Ray Data; known are "
                + ", ".join(SUPPORTED_READER_TYPES)
            )
        self._options = RaySourceOptions(reader_type, path or "", reader_options or {})
        super().__init__(
            name=name,
            timestamp_field=timestamp_field,
            created_timestamp_column=created_timestamp_column,
            field_mapping=field_mapping,
            description=description,
            tags=tags,
            owner=owner,
            connection_ref=connection_ref,
        )
