"""Tables, queries and files that Spark reads."""

from __future__ import annotations

from enum import Enum
from typing import Any

from feast._source_base import (
    MessageOptions,
    StoredDataset,
    StoredSource,
    all_options,
    option,
)
from feast.credentials import ConnectionRef
from feast.data_source import SourceType
from feast.errors import DataSourceNoNameException
from feast.table_format import TableFormat, table_format_from_proto


class SparkFileSourceFormat(Enum):
    """Formats of files without a table layer."""

    csv = "csv"
    json = "json"
    parquet = "parquet"
    avro = "avro"


_DATE_FORMAT = "%Y-%m-%d"


class SparkOptions(MessageOptions):
    """A table, a query, or files with their format."""

    _message = "SparkOptions"
    allowed_formats = [one.value for one in SparkFileSourceFormat]

    def __init__(
        self,
        table: str | None,
        query: str | None,
        path: str | None,
        file_format: str | None,
        date_partition_column_format: str | None = _DATE_FORMAT,
        table_format: TableFormat | None = None,
    ) -> None:
        if not (table or query or path):
            raise ValueError("a Spark source needs one of `table`, `query` and `path`")
        if table and (query or path):
            other = "query" if query else "path"
            raise ValueError(
                f"a Spark source has both `table` (`{table}`) and `{other}`; give one of them"
            )
        if path and not (file_format or table_format):
            raise ValueError(
                f"a Spark source reads the path `{path}` but has no `file_format`; use one of "
                + ", ".join(self.allowed_formats)
            )
        if path and file_format and file_format not in self.allowed_formats:
            raise ValueError(
                f"a Spark source has the file format `{file_format}`; use one of "
                + ", ".join(self.allowed_formats)
            )
        self.table = table or ""
        self.query = query or ""
        self.path = path or ""
        self.file_format = file_format or ""
        self.date_partition_column_format = date_partition_column_format or ""
        self.table_format = table_format

    def to_proto(self) -> Any:
        """The message `feast.core.DataSource.SparkOptions`."""
        from feast.protos.feast.core.DataSource_pb2 import DataSource as Message

        values = dict(vars(self))
        values["table_format"] = self.table_format.to_proto() if self.table_format else None
        return Message.SparkOptions(**values)

    @classmethod
    def from_proto(cls, proto: Any) -> SparkOptions:
        """Reads `feast.core.DataSource.SparkOptions`."""
        return cls(
            table=proto.table,
            query=proto.query,
            path=proto.path,
            file_format=proto.file_format,
            date_partition_column_format=proto.date_partition_column_format,
            table_format=(
                table_format_from_proto(proto.table_format)
                if proto.HasField("table_format")
                else None
            ),
        )


class SparkSource(StoredSource):
    """A table, a query or files that Spark reads."""

    _source_type = SourceType.BATCH_SPARK
    _member = "spark_options"
    _options_class = SparkOptions
    _also = ("date_partition_column",)
    _value_types = "spark_to_feast_value_type"

    spark_options = all_options()
    table = option("table")
    query = option("query")
    path = option("path")
    file_format = option("file_format")
    table_format = option("table_format")
    date_partition_column_format = option("date_partition_column_format")

    def __init__(
        self,
        *,
        name: str | None = None,
        table: str | None = None,
        query: str | None = None,
        path: str | None = None,
        file_format: str | None = None,
        table_format: TableFormat | None = None,
        created_timestamp_column: str | None = None,
        field_mapping: dict[str, str] | None = None,
        description: str | None = "",
        tags: dict[str, str] | None = None,
        owner: str | None = "",
        timestamp_field: str | None = None,
        date_partition_column: str | None = None,
        date_partition_column_format: str | None = _DATE_FORMAT,
        connection_ref: ConnectionRef | None = None,
    ) -> None:
        if name is None and table is None:
            raise DataSourceNoNameException()
        self._options = SparkOptions(
            table, query, path, file_format, date_partition_column_format, table_format
        )
        super().__init__(
            name=name or table or "",
            timestamp_field=timestamp_field,
            created_timestamp_column=created_timestamp_column,
            field_mapping=field_mapping,
            description=description,
            tags=tags,
            owner=owner,
            date_partition_column=date_partition_column,
            connection_ref=connection_ref,
        )

    def _to_proto_impl(self) -> Any:
        message = super()._to_proto_impl()
        message.data_source_class_type = self._class_path()
        return message

    def get_table_query_string(self) -> str:
        """The quoted table, or the query in parentheses; files are read by the engine."""
        if self.table:
            return ".".join(f"`{part}`" for part in self.table.split("."))
        if self.query:
            return f"({self.query})"
        return super().get_table_query_string()


class SavedDatasetSparkStorage(StoredDataset):
    """A saved dataset in a table or in files."""

    _proto_attr_name = "spark_storage"
    _options_class = SparkOptions
    _source_class = SparkSource
    _parameters = {name: name for name in ("table", "query", "path", "file_format", "table_format")}
    _source_parameters = _parameters

    spark_options = all_options()

    def __init__(
        self,
        table: str | None = None,
        query: str | None = None,
        path: str | None = None,
        file_format: str | None = None,
        table_format: TableFormat | None = None,
    ) -> None:
        self._options = SparkOptions(table, query, path, file_format, table_format=table_format)

    def to_data_source(self) -> SparkSource:
        """The source that reads the saved rows, named after their place."""
        values = {name: getattr(self._options, name) or None for name in self._parameters}
        return SparkSource(name=values["table"] or values["path"] or "saved_dataset", **values)
