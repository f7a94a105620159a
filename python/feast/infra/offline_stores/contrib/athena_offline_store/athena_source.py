"""Tables and queries of Athena."""

from __future__ import annotations

from typing import Any

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


class AthenaOptions(MessageOptions):
    """A table with its catalog (`data_source`) and database, or a query."""

    _message = "AthenaOptions"

    def __init__(
        self, table: str | None, query: str | None, database: str | None, data_source: str | None
    ) -> None:
        self.table = table or ""
        self.query = query or ""
        self.database = database or ""
        self.data_source = data_source or ""


class AthenaSource(StoredSource):
    """A table (in database `default` unless given) or query of Athena."""

    _source_type = SourceType.BATCH_ATHENA
    _member = "athena_options"
    _options_class = AthenaOptions
    _also = ("date_partition_column",)
    _value_types = "athena_to_feast_value_type"

    athena_options = all_options()
    table = option("table")
    database = option("database")
    query = option("query")
    data_source = option("data_source")

    def __init__(
        self,
        *,
        timestamp_field: str | None = "",
        table: str | None = None,
        database: str | None = None,
        data_source: str | None = None,
        created_timestamp_column: str | None = None,
        field_mapping: dict[str, str] | None = None,
        date_partition_column: str | None = None,
        query: str | None = None,
        name: str | None = None,
        description: str | None = "",
        tags: dict[str, str] | None = None,
        owner: str | None = "",
        connection_ref: ConnectionRef | None = None,
    ) -> None:
        database = "default" if table and not database else database
        self._options = AthenaOptions(table, query, database, data_source)
        super().__init__(
            name=table_name("AthenaSource", name, table, query),
            timestamp_field=timestamp_field,
            created_timestamp_column=created_timestamp_column,
            field_mapping=field_mapping,
            date_partition_column=date_partition_column,
            description=description,
            tags=tags,
            owner=owner,
            connection_ref=connection_ref,
        )

    def get_table_query_string(self, config: Any = None) -> str:
        """The quoted table with catalog and database, or the query in parentheses."""
        if not self.table:
            return f"({self.query})"
        place = config.offline_store if config else self
        return f'"{place.data_source}"."{place.database}"."{self.table}"'


class SavedDatasetAthenaStorage(StoredDataset):
    """A saved dataset in a table."""

    _proto_attr_name = "athena_storage"
    _options_class = AthenaOptions
    _source_class = AthenaSource
    _parameters = {
        "table_ref": "table",
        "query": "query",
        "database": "database",
        "data_source": "data_source",
    }
    _source_parameters = {"table": "table", "database": "database", "data_source": "data_source"}

    athena_options = all_options()

    def __init__(
        self,
        table_ref: str,
        query: str | None = None,
        database: str | None = None,
        data_source: str | None = None,
    ) -> None:
        self._options = AthenaOptions(table_ref, query, database, data_source)


class AthenaLoggingDestination(StoredLog):
    """Logs in a table."""

    _proto_kind = "athena_destination"
    _source_class = AthenaSource
    _members = {"table_name": "table_name"}
    _source_parameters = {"table": "table_name"}

    def __init__(self, *, table_name: str) -> None:
        self.table_name = table_name
