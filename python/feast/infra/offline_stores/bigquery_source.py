"""Tables and queries of BigQuery."""

from __future__ import annotations

from feast._source_base import (
    MessageOptions,
    StoredDataset,
    StoredLog,
    StoredSource,
    all_options,
    option,
    table_name,
)
from feast.credentials import ConnectionRef
from feast.data_source import SourceType


class BigQueryOptions(MessageOptions):
    """A table (`project.dataset.table`) or a query."""

    _message = "BigQueryOptions"

    def __init__(self, table: str | None, query: str | None) -> None:
        self.table = table or ""
        self.query = query or ""


class BigQuerySource(StoredSource):
    """A table or query of BigQuery. `timestamp_field_type` says how the event time is stored."""

    _source_type = SourceType.BATCH_BIGQUERY
    _member = "bigquery_options"
    _options_class = BigQueryOptions
    _also = ("date_partition_column", "timestamp_field_type")
    _value_types = "bq_to_feast_value_type"

    bigquery_options = all_options()
    table = option("table")
    query = option("query")

    def __init__(
        self,
        *,
        name: str | None = None,
        timestamp_field: str | None = None,
        table: str | None = None,
        created_timestamp_column: str | None = "",
        field_mapping: dict[str, str] | None = None,
        date_partition_column: str | None = None,
        timestamp_field_type: str | None = None,
        query: str | None = None,
        description: str | None = "",
        tags: dict[str, str] | None = None,
        owner: str | None = "",
        connection_ref: ConnectionRef | None = None,
    ) -> None:
        self._options = BigQueryOptions(table, query)
        super().__init__(
            name=table_name("BigQuerySource", name, table, query),
            timestamp_field=timestamp_field,
            created_timestamp_column=created_timestamp_column,
            field_mapping=field_mapping,
            date_partition_column=date_partition_column,
            timestamp_field_type=timestamp_field_type,
            description=description,
            tags=tags,
            owner=owner,
            connection_ref=connection_ref,
        )

    def get_table_query_string(self) -> str:
        """The query in parentheses, or the quoted table."""
        return f"({self.query})" if self.query else f"`{self.table}`"


class SavedDatasetBigQueryStorage(StoredDataset):
    """A saved dataset in a table."""

    _proto_attr_name = "bigquery_storage"
    _options_class = BigQueryOptions
    _source_class = BigQuerySource
    _parameters = {"table": "table"}
    _source_parameters = {"table": "table"}

    bigquery_options = all_options()

    def __init__(self, table: str) -> None:
        self._options = BigQueryOptions(table, None)


class BigQueryLoggingDestination(StoredLog):
    """Logs in a table."""

    _proto_kind = "bigquery_destination"
    _source_class = BigQuerySource
    _members = {"table": "table_ref"}
    _source_parameters = {"table": "table"}

    def __init__(self, *, table_ref: str) -> None:
        self.table = table_ref

    @classmethod
    def from_proto(cls, config_proto: object) -> BigQueryLoggingDestination:
        """Reads `feast.core.LoggingConfig`."""
        return cls(table_ref=config_proto.bigquery_destination.table_ref)  # type: ignore[attr-defined]
