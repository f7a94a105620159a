"""Settings of the MongoDB offline store, and its data source."""

from __future__ import annotations

from typing import Any

from feast._settings import Settings
from feast._source_base import JsonOptions, StoredSource, option
from feast.credentials import ConnectionRef
from feast.data_source import shared_arguments
from feast.errors import DataSourceNoNameException


class MongoDBOfflineStoreConfig(Settings):
    """Settings of the MongoDB offline store."""

    type: str = (
        "feast.infra.offline_stores.contrib.mongodb_offline_store.mongodb.MongoDBOfflineStore"
    )
    connection_string: str = "mongodb://localhost:27017"
    database: str = "feast"
    collection: str = "feature_history"


class MongoDBOptions(JsonOptions):
    """The feature view whose documents are read: the name of the source."""

    def __init__(self, feature_view: str) -> None:
        self.feature_view = feature_view


class MongoDBSource(StoredSource):
    """The documents of one feature view, in the collection of the store."""

    _options_class = MongoDBOptions
    _value_types = "mongodb_to_feast_value_type"

    feature_view_name = option("feature_view")

    def __init__(
        self,
        name: str | None = None,
        timestamp_field: str = "event_timestamp",
        created_timestamp_column: str = "created_at",
        field_mapping: dict[str, str] | None = None,
        description: str | None = "",
        tags: dict[str, str] | None = None,
        owner: str | None = "",
        connection_ref: ConnectionRef | None = None,
    ) -> None:
        if name is None:
            raise DataSourceNoNameException()
        self._options = MongoDBOptions(name)
        super().__init__(
            name=name,
            timestamp_field=timestamp_field,
            created_timestamp_column=created_timestamp_column,
            field_mapping=field_mapping,
            description=description,
            tags=tags,
            owner=owner,
            connection_ref=connection_ref,
        )

    @classmethod
    def from_proto(cls, data_source: Any) -> MongoDBSource:
        """Reads `feast.core.DataSource`."""
        return cls(**shared_arguments(data_source))

    def get_table_query_string(self) -> str:
        """The feature view."""
        return self.name
