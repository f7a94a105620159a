"""Tables and queries of Trino."""

from __future__ import annotations

from feast._source_base import (
    MessageOptions,
    StoredDataset,
    StoredSource,
    all_options,
    option,
    table_name,
)
from feast.credentials import ConnectionRef
from feast.data_source import SourceType


class TrinoOptions(MessageOptions):
    """A table (`catalog.schema.table`) or a query."""

    _message = "TrinoOptions"

    def __init__(self, table: str | None, query: str | None) -> None:
        self.table = table or ""
        self.query = query or ""


class TrinoSource(StoredSource):
    """A table or query of Trino."""

    _source_type = SourceType.BATCH_TRINO
    _member = "trino_options"
    _options_class = TrinoOptions
    _value_types = "trino_to_feast_value_type"

    trino_options = all_options()
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
        query: str | None = None,
        description: str | None = "",
        tags: dict[str, str] | None = None,
        owner: str | None = "",
        connection_ref: ConnectionRef | None = None,
    ) -> None:
        self._options = TrinoOptions(table, query)
        super().__init__(
            name=table_name("TrinoSource", name, table, query),
            timestamp_field=timestamp_field,
            created_timestamp_column=created_timestamp_column,
            field_mapping=field_mapping,
            description=description,
            tags=tags,
            owner=owner,
            connection_ref=connection_ref,
        )

    def get_table_query_string(self) -> str:
        """The table, or the query."""
        return self.table or self.query


class SavedDatasetTrinoStorage(StoredDataset):
    """A saved dataset in a table."""

    _proto_attr_name = "trino_storage"
    _options_class = TrinoOptions
    _source_class = TrinoSource
    _parameters = {"table": "table", "query": "query"}
    _source_parameters = {"table": "table"}

    trino_options = all_options()

    def __init__(self, table: str | None = None, query: str | None = None) -> None:
        self._options = TrinoOptions(table, query)
