"""Tables and queries of ClickHouse."""

from __future__ import annotations

from feast._source_base import (
    JsonOptions,
    StoredDataset,
    StoredSource,
    all_options,
    table_name,
)
from feast.credentials import ConnectionRef
from feast.value_type import ValueType


class ClickhouseOptions(JsonOptions):
    """A table or a query; the name repeats that of the source."""

    def __init__(self, name: str | None, query: str | None, table: str | None) -> None:
        self.name = name or ""
        self.query = query or ""
        self.table = table or ""


class ClickhouseSource(StoredSource):
    """A table or query of ClickHouse."""

    _options_class = ClickhouseOptions
    _value_types = "ch_type_to_feast_value_type"

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
        self._options = ClickhouseOptions(name, query, table)
        super().__init__(
            name=table_name("ClickhouseSource", name, table, query),
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


class SavedDatasetClickhouseStorage(StoredDataset):
    """A saved dataset in a table."""

    _proto_attr_name = "custom_storage"
    _options_class = ClickhouseOptions
    _source_class = ClickhouseSource
    _parameters = {"table_ref": "table"}
    _source_parameters = {"table": "table"}

    clickhouse_options = all_options()

    def __init__(self, table_ref: str) -> None:
        self._options = ClickhouseOptions(None, None, table_ref)


def ch_type_to_feast_value_type(type_str: str) -> ValueType:
    """The stored type of a ClickHouse type such as `Array(Float32)`."""
    from feast import type_map

    return type_map.ch_type_to_feast_value_type(type_str)
