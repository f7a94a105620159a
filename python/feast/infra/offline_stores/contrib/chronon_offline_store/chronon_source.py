"""What Chronon has computed, read from its files."""

from __future__ import annotations

from feast._source_base import (
    JsonOptions,
    StoredSource,
    option,
)


class ChrononOptions(JsonOptions):
    """Where Chronon writes, and which group-by or join of it this is."""

    def __init__(
        self,
        *,
        materialization_path: str,
        chronon_group_by: str | None = None,
        chronon_join: str | None = None,
        online_endpoint: str | None = None,
    ) -> None:
        self.materialization_path = materialization_path
        self.chronon_group_by = chronon_group_by or ""
        self.chronon_join = chronon_join or ""
        self.online_endpoint = online_endpoint or ""


class ChrononSource(StoredSource):
    """The output of a Chronon group-by or join; the name defaults to its path."""

    _options_class = ChrononOptions

    materialization_path = option("materialization_path")
    chronon_group_by = option("chronon_group_by")
    chronon_join = option("chronon_join")
    online_endpoint = option("online_endpoint")

    def __init__(
        self,
        *,
        materialization_path: str,
        name: str | None = None,
        chronon_group_by: str | None = None,
        chronon_join: str | None = None,
        online_endpoint: str | None = None,
        timestamp_field: str | None = "",
        created_timestamp_column: str | None = "",
        field_mapping: dict[str, str] | None = None,
        description: str | None = "",
        tags: dict[str, str] | None = None,
        owner: str | None = "",
    ) -> None:
        where = f"data source `{name or materialization_path}`"
        if not materialization_path:
            raise ValueError(
                f"{where}: `materialization_path` is missing; say where Chronon writes"
            )
        if not timestamp_field:
            raise ValueError(f"{where}: `timestamp_field` is missing; name the event time column")
        if chronon_join and chronon_group_by:
            raise ValueError(
                f"{where}: both `chronon_join` and `chronon_group_by` are given; give one of them"
            )
        if online_endpoint and not (chronon_join or chronon_group_by):
            raise ValueError(
                f"{where}: `online_endpoint` needs `chronon_join` or `chronon_group_by` beside it"
            )
        self._options = ChrononOptions(
            materialization_path=materialization_path,
            chronon_group_by=chronon_group_by,
            chronon_join=chronon_join,
            online_endpoint=online_endpoint,
        )
        super().__init__(
            name=name or materialization_path,
            timestamp_field=timestamp_field,
            created_timestamp_column=created_timestamp_column,
            field_mapping=field_mapping,
            description=description,
            tags=tags,
            owner=owner,
        )
