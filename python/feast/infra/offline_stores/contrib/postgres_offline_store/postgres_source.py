"""Tables and queries of PostgreSQL."""

from __future__ import annotations

from feast._source_base import (
    JsonOptions,
    StoredDataset,
    StoredSource,
    all_options,
    table_name,
)
from feast.credentials import ConnectionRef


class PostgreSQLOptions(JsonOptions):
    """A table or a query; the name repeats that of the source."""

    def __init__(self, name: str | None, query: str | None, table: str | None) -> None:
        self.name = name or ""
        self.query = query or ""
        self.table = table or ""


class PostgreSQLSource(StoredSource):
    """A table or query of PostgreSQL."""

    _options_class = PostgreSQLOptions
    _value_types = "pg_type_to_feast_value_type"

    def __init__(
        self,
        name: str | None = None,
        query: str | None = None,
        table: str | None = None,
        timestamp_field: str | None = "",
        created_timestamp_column: str | None = "",
        field_mapping: dict[str, str] | None = None,
        description: str | None = "",
        tags: dict[str, str] | None = None,
        owner: str | None = "",
        connection_ref: ConnectionRef | None = None,
    ) -> None:
        self._options = PostgreSQLOptions(name, query, table)
        super().__init__(
            name=table_name("PostgreSQLSource", name, table, query),
            timestamp_field=timestamp_field,
            created_timestamp_column=created_timestamp_column,
            field_mapping=field_mapping,
            description=description,
            tags=tags,
            owner=owner,
            connection_ref=connection_ref,
        )

    def get_table_query_string(self) -> str:
        """The table, or the query in parentheses."""
        return self._options.table or f"({self._options.query})"

    def get_table_query_string_with_alias(self, alias: str = "subquery") -> str:
        """The same, with the name that PostgreSQL wants behind a query."""
        text = self.get_table_query_string()
        return text if self._options.table else f"{text} AS {alias}"


class SavedDatasetPostgreSQLStorage(StoredDataset):
    """A saved dataset in a table."""

    _proto_attr_name = "custom_storage"
    _options_class = PostgreSQLOptions
    _source_class = PostgreSQLSource
    _parameters = {"table_ref": "table"}
    _source_parameters = {"table": "table"}

    postgres_options = all_options()

    def __init__(self, table_ref: str) -> None:
        self._options = PostgreSQLOptions(None, None, table_ref)
