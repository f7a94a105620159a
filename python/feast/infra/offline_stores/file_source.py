"""Files: Parquet and Delta tables, one file, a folder or a pattern of them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from feast._definition import check_instance, check_text
from feast._source_base import (
    MessageOptions,
    StoredDataset,
    StoredLog,
    StoredSource,
    all_options,
    option,
)
from feast.credentials import ConnectionRef
from feast.data_format import FileFormat, ParquetFormat
from feast.data_source import DataSource, SourceType


class FileOptions(MessageOptions):
    """Path, format and the server to use in place of Amazon's for `s3://` paths."""

    _message = "FileOptions"

    def __init__(
        self, uri: str, file_format: FileFormat | None, s3_endpoint_override: str | None
    ) -> None:
        self.uri = uri
        self.file_format = file_format
        self.s3_endpoint_override = s3_endpoint_override or ""

    def to_proto(self) -> Any:
        """The message `feast.core.DataSource.FileOptions`."""
        from feast.protos.feast.core.DataSource_pb2 import DataSource as Message

        return Message.FileOptions(
            uri=self.uri,
            file_format=self.file_format.to_proto() if self.file_format else None,
            s3_endpoint_override=self.s3_endpoint_override,
        )

    @classmethod
    def from_proto(cls, proto: Any) -> FileOptions:
        """Reads `feast.core.DataSource.FileOptions`."""
        return cls(
            uri=proto.uri,
            file_format=FileFormat.from_proto(proto.file_format),
            s3_endpoint_override=proto.s3_endpoint_override,
        )


class FileSource(StoredSource):
    """Files at a path: relative to the repository, absolute, or in an object store.

    The path may be a file, a folder (with `key=value` folders inside as columns) or a pattern with
    `*`, on a local disk or in a bucket (`s3://`, `gs://`, with credentials from the environment, as
    the clouds' own tools take them). The name defaults to the path. Files are Parquet (`.parquet`,
    `.parq`, `.pq`), CSV with a header line (`.csv`) or JSON lines (`.json`, `.jsonl`, `.ndjson`), the
    latter two also with `.gz`. Times in JSON are text in ISO 8601 or numbers since 1970, whose size
    tells the unit (seconds below 10^11).
    """

    _source_type = SourceType.BATCH_FILE
    _member = "file_options"
    _options_class = FileOptions
    _parameters = {"path": "uri"}

    file_options = all_options()
    path = option("uri")
    file_format = option("file_format")
    s3_endpoint_override = option("s3_endpoint_override")

    def __init__(
        self,
        *,
        path: str,
        name: str | None = "",
        event_timestamp_column: str | None = "",
        file_format: FileFormat | None = None,
        created_timestamp_column: str | None = "",
        field_mapping: dict[str, str] | None = None,
        s3_endpoint_override: str | None = None,
        description: str | None = "",
        tags: dict[str, str] | None = None,
        owner: str | None = "",
        timestamp_field: str | None = "",
        connection_ref: ConnectionRef | None = None,
    ) -> None:
        # Paths are texts in the registry; a pathlib.Path is taken for convenience.
        path = str(path) if isinstance(path, Path) else path
        where = f"data source `{name or path}`"
        check_text(where, "path", path)
        if file_format is not None:
            check_instance(where, "file_format", file_format, FileFormat, "ParquetFormat()")
        self._options = FileOptions(path, file_format, s3_endpoint_override)
        super().__init__(
            name=name or path,
            timestamp_field=timestamp_field or event_timestamp_column,
            created_timestamp_column=created_timestamp_column,
            field_mapping=field_mapping,
            description=description,
            tags=tags,
            owner=owner,
            connection_ref=connection_ref,
        )

    @staticmethod
    def get_uri_for_file_path(repo_path: str | Path | None, uri: str) -> str:
        """Where a path points: relative ones are meant from the repository."""
        parts = urlparse(uri)
        if parts.scheme and parts.netloc:
            return uri
        if repo_path is not None and not Path(uri).is_absolute():
            return str(Path(repo_path) / uri)
        return str(Path(uri))

    @staticmethod
    def create_filesystem_and_path(
        path: str, s3_endpoint_override: str, resolved_credentials: dict[str, str] | None = None
    ) -> tuple[Any, str]:
        """Arrow's file system for a path, and the path within it (needs pyarrow for `s3://`)."""
        if not path.startswith("s3://"):
            return None, path
        from pyarrow.fs import S3FileSystem

        keys = {
            "AWS_ACCESS_KEY_ID": "access_key",
            "AWS_SECRET_ACCESS_KEY": "secret_key",
            "AWS_SESSION_TOKEN": "session_token",
            "AWS_DEFAULT_REGION": "region",
        }
        found = resolved_credentials or {}
        settings = {argument: found[key] for key, argument in keys.items() if found.get(key)}
        if s3_endpoint_override:
            settings["endpoint_override"] = s3_endpoint_override
        return S3FileSystem(**settings), path.removeprefix("s3://")

    def validate(self, config: Any) -> None:
        """Raises if nothing is at the path."""
        from feast.errors import DataSourceNotFoundException

        place = self.get_uri_for_file_path(getattr(config, "repo_path", None), self.path)
        local = "://" not in place and not any(mark in place for mark in "*?[")
        if local and not Path(place).exists():
            raise DataSourceNotFoundException(place)

    def get_table_column_names_and_types(self, config: Any) -> Iterable[tuple[str, str]]:
        """Name and Arrow type of each column (needs pyarrow)."""
        from pyarrow import dataset

        place = self.get_uri_for_file_path(getattr(config, "repo_path", None), self.path)
        filesystem, path = self.create_filesystem_and_path(place, self.s3_endpoint_override)
        schema = dataset.dataset(path, filesystem=filesystem, partitioning="hive").schema
        return zip(schema.names, map(str, schema.types))


class SavedDatasetFileStorage(StoredDataset):
    """A saved dataset in a file or folder."""

    _proto_attr_name = "file_storage"
    _options_class = FileOptions
    _source_class = FileSource
    _parameters = {
        "path": "uri",
        "file_format": "file_format",
        "s3_endpoint_override": "s3_endpoint_override",
    }
    _source_parameters = _parameters

    file_options = all_options()

    def __init__(
        self,
        path: str,
        file_format: FileFormat = ParquetFormat(),  # noqa: B008 - has no state
        s3_endpoint_override: str | None = None,
    ) -> None:
        self._options = FileOptions(str(path), file_format, s3_endpoint_override)

    @classmethod
    def from_data_source(cls, data_source: DataSource) -> SavedDatasetFileStorage:  # type: ignore[override]
        """The storage at the path of a `FileSource`; its format defaults to Parquet."""
        storage = super().from_data_source(data_source)
        storage._options.file_format = storage._options.file_format or ParquetFormat()
        return storage


class FileLoggingDestination(StoredLog):
    """Logs as Parquet files in a folder."""

    _proto_kind = "file_destination"
    _source_class = FileSource
    _members = {
        "path": "path",
        "s3_endpoint_override": "s3_endpoint_override",
        "partition_by": "partition_by",
    }
    _source_parameters = {"path": "path", "s3_endpoint_override": "s3_endpoint_override"}

    def __init__(
        self,
        *,
        path: str,
        s3_endpoint_override: str = "",
        partition_by: list[str] | None = None,
    ) -> None:
        self.path = str(path)
        self.s3_endpoint_override = s3_endpoint_override
        self.partition_by = partition_by

    def to_data_source(self) -> FileSource:
        """The source that reads the log."""
        return FileSource(
            path=self.path,
            file_format=ParquetFormat(),
            s3_endpoint_override=self.s3_endpoint_override,
        )
