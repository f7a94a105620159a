"""Tables and queries of Redshift."""

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


class RedshiftOptions(MessageOptions):
    """A table with schema and database, or a query."""

    _message = "RedshiftOptions"

    def __init__(
        self, table: str | None, schema: str | None, query: str | None, database: str | None
    ) -> None:
        self.table = table or ""
        self.schema = schema or ""
        self.query = query or ""
        self.database = database or ""

    @property
    def fully_qualified_table_name(self) -> str:
        """`database.schema.table`, as far as they are known; what the table names itself counts."""
        if not self.table:
            return ""
        parts = self.table.split(".")
        if len(parts) > 3:
            raise ValueError(
                f"the Redshift table `{self.table}` has {len(parts)} parts; write at most "
                "database.schema.table"
            )
        schema = parts[-2] if len(parts) > 1 else self.schema
        database = parts[-3] if len(parts) > 2 else self.database
        if not schema:
            return parts[-1]
        return ".".join(part for part in (database, schema, parts[-1]) if part)


class RedshiftSource(StoredSource):
    """A table (in schema `public` unless given) or query of Redshift."""

    _source_type = SourceType.BATCH_REDSHIFT
    _member = "redshift_options"
    _options_class = RedshiftOptions
    _value_types = "redshift_to_feast_value_type"

    redshift_options = all_options()
    table = option("table")
    schema = option("schema")
    query = option("query")
    database = option("database")

    def __init__(
        self,
        *,
        name: str | None = None,
        timestamp_field: str | None = "",
        table: str | None = None,
        schema: str | None = None,
        created_timestamp_column: str | None = "",
        field_mapping: dict[str, str] | None = None,
        query: str | None = None,
        description: str | None = "",
        tags: dict[str, str] | None = None,
        owner: str | None = "",
        database: str | None = "",
        connection_ref: ConnectionRef | None = None,
    ) -> None:
        schema = "public" if table and not schema else schema
        self._options = RedshiftOptions(table, schema, query, database)
        super().__init__(
            name=table_name("RedshiftSource", name, table, query),
            timestamp_field=timestamp_field,
            created_timestamp_column=created_timestamp_column,
            field_mapping=field_mapping,
            description=description,
            tags=tags,
            owner=owner,
            connection_ref=connection_ref,
        )

    def get_table_query_string(self) -> str:
        """The quoted table, or the query in parentheses."""
        return f'"{self.schema}"."{self.table}"' if self.table else f"({self.query})"


class SavedDatasetRedshiftStorage(StoredDataset):
    """A saved dataset in a table."""

    _proto_attr_name = "redshift_storage"
    _options_class = RedshiftOptions
    _source_class = RedshiftSource
    _parameters = {"table_ref": "table"}
    _source_parameters = {"table": "table"}

    redshift_options = all_options()

    def __init__(self, table_ref: str) -> None:
        self._options = RedshiftOptions(table_ref, None, None, None)


class RedshiftLoggingDestination(StoredLog):
    """Logs in a table."""

    _proto_kind = "redshift_destination"
    _source_class = RedshiftSource
    _members = {"table_name": "table_name"}
    _source_parameters = {"table": "table_name"}

    def __init__(self, *, table_name: str) -> None:
        self.table_name = table_name
