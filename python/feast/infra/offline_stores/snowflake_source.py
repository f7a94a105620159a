"""Tables and queries of Snowflake."""

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

# Snowflake's column types, by their numbers in the description of a result.
snowflake_type_code_map = {
    0: "NUMBER",
    1: "DOUBLE",
    2: "VARCHAR",
    3: "DATE",
    4: "TIMESTAMP",
    6: "TIMESTAMP_LTZ",
    7: "TIMESTAMP_TZ",
    8: "TIMESTAMP_NTZ",
    10: "ARRAY",
    11: "BINARY",
    13: "BOOLEAN",
}
snowflake_unsupported_map = {5: "VARIANT", 9: "OBJECT", 12: "TIME"}
python_int_to_snowflake_type_map = {
    "int64": "NUMBER64",
    "int32": "NUMBER32",
    "int16": "NUMBER32",
    "int8": "NUMBER32",
}


class SnowflakeOptions(MessageOptions):
    """A table with schema and database, or a query."""

    _message = "SnowflakeOptions"

    def __init__(
        self, database: str | None, schema: str | None, table: str | None, query: str | None
    ) -> None:
        self.database = database or ""
        self.schema = schema or ""
        self.table = table or ""
        self.query = query or ""


class SnowflakeSource(StoredSource):
    """A table or query of Snowflake; the warehouse comes from the settings of the store."""

    _source_type = SourceType.BATCH_SNOWFLAKE
    _member = "snowflake_options"
    _options_class = SnowflakeOptions
    _value_types = "snowflake_type_to_feast_value_type"

    snowflake_options = all_options()
    database = option("database")
    schema = option("schema")
    table = option("table")
    query = option("query")

    def __init__(
        self,
        *,
        name: str | None = None,
        timestamp_field: str | None = "",
        database: str | None = None,
        warehouse: str | None = None,
        schema: str | None = None,
        table: str | None = None,
        query: str | None = None,
        created_timestamp_column: str | None = "",
        field_mapping: dict[str, str] | None = None,
        description: str | None = "",
        tags: dict[str, str] | None = None,
        owner: str | None = "",
        connection_ref: ConnectionRef | None = None,
    ) -> None:
        own_name = table_name("SnowflakeSource", name, table, query)
        if table and query:
            raise ValueError(
                f"data source `{own_name}`: both `table` and `query` are given; give one of them"
            )
        schema = "PUBLIC" if database and table and not schema else schema
        self._options = SnowflakeOptions(database, schema, table, query)
        super().__init__(
            name=own_name,
            timestamp_field=timestamp_field,
            created_timestamp_column=created_timestamp_column,
            field_mapping=field_mapping,
            description=description,
            tags=tags,
            owner=owner,
            connection_ref=connection_ref,
        )

    def get_table_query_string(self) -> str:
        """The quoted table with all that is known before it, or the query in parentheses."""
        if not self.table:
            return f"({self.query})"
        before = (self.database, self.schema) if self.schema else ()
        return ".".join(f'"{part}"' for part in (*before, self.table) if part)


class SavedDatasetSnowflakeStorage(StoredDataset):
    """A saved dataset in a table."""

    _proto_attr_name = "snowflake_storage"
    _options_class = SnowflakeOptions
    _source_class = SnowflakeSource
    _parameters = {"table_ref": "table"}
    _source_parameters = {"table": "table"}

    snowflake_options = all_options()

    def __init__(self, table_ref: str) -> None:
        self._options = SnowflakeOptions(None, None, table_ref, None)


class SnowflakeLoggingDestination(StoredLog):
    """Logs in a table."""

    _proto_kind = "snowflake_destination"
    _source_class = SnowflakeSource
    _members = {"table_name": "table_name"}
    _source_parameters = {"table": "table_name"}

    def __init__(self, *, table_name: str) -> None:
        self.table_name = table_name
