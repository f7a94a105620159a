"""Tables of Oracle."""

from __future__ import annotations

from feast._source_base import (
    JsonOptions,
    StoredSource,
    all_options,
    option,
)
from feast.credentials import ConnectionRef


class OracleOptions(JsonOptions):
    """The table."""

    def __init__(self, table_ref: str | None) -> None:
        self.table_ref = table_ref


class OracleSource(StoredSource):
    """A table of Oracle. Its event time is called `event_timestamp_column`."""

    _options_class = OracleOptions
    _event_time = "event_timestamp_column"
    _also = ("date_partition_column",)
    _value_types = "oracle_to_feast_value_type"

    oracle_options = all_options()
    table_ref = option("table_ref")

    def __init__(
        self,
        name: str,
        table_ref: str | None = None,
        event_timestamp_column: str | None = None,
        created_timestamp_column: str | None = "",
        field_mapping: dict[str, str] | None = None,
        date_partition_column: str | None = "",
        description: str | None = None,
        tags: dict[str, str] | None = None,
        owner: str | None = None,
        connection_ref: ConnectionRef | None = None,
    ) -> None:
        self._options = OracleOptions(table_ref)
        super().__init__(
            name=name,
            timestamp_field=event_timestamp_column,
            created_timestamp_column=created_timestamp_column,
            field_mapping=field_mapping,
            date_partition_column=date_partition_column,
            description=description,
            tags=tags,
            owner=owner,
            connection_ref=connection_ref,
        )

    def get_table_query_string(self) -> str:
        """The table."""
        return str(self.table_ref)
