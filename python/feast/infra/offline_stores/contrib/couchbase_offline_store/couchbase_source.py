"""Collections and queries of Couchbase Columnar."""

from __future__ import annotations

from feast._source_base import (
    JsonOptions,
    StoredDataset,
    StoredLog,
    StoredSource,
    all_options,
    option,
)
from feast.credentials import ConnectionRef
from feast.errors import DataSourceNoNameException


class CouchbaseColumnarOptions(JsonOptions):
    """A collection with database and scope, or a query; the name repeats that of the source."""

    def __init__(
        self,
        name: str | None,
        query: str | None,
        database: str | None,
        scope: str | None,
        collection: str | None,
    ) -> None:
        self.name = name or ""
        self.query = query or ""
        self.database = database or ""
        self.scope = scope or ""
        self.collection = collection or ""


class CouchbaseColumnarSource(StoredSource):
    """A collection or query of Couchbase Columnar."""

    _options_class = CouchbaseColumnarOptions
    _value_types = "cb_columnar_type_to_feast_value_type"

    database = option("database")
    scope = option("scope")

    def __init__(
        self,
        name: str | None = None,
        query: str | None = None,
        database: str | None = "Default",
        scope: str | None = "Default",
        collection: str | None = None,
        timestamp_field: str | None = "",
        created_timestamp_column: str | None = "",
        field_mapping: dict[str, str] | None = None,
        description: str | None = "",
        tags: dict[str, str] | None = None,
        owner: str | None = "",
        connection_ref: ConnectionRef | None = None,
    ) -> None:
        if name is None and collection is None:
            raise DataSourceNoNameException()
        self._options = CouchbaseColumnarOptions(name, query, database, scope, collection)
        super().__init__(
            name=name or collection or "",
            timestamp_field=timestamp_field,
            created_timestamp_column=created_timestamp_column,
            field_mapping=field_mapping,
            description=description,
            tags=tags,
            owner=owner,
            connection_ref=connection_ref,
        )

    def get_table_query_string(self) -> str:
        """The quoted collection with all that is before it, or the query in parentheses."""
        parts = (self._options.database, self._options.scope, self._options.collection)
        return ".".join(f"`{part}`" for part in parts) if all(parts) else f"({self._options.query})"


class SavedDatasetCouchbaseColumnarStorage(StoredDataset):
    """A saved dataset in a collection."""

    _proto_attr_name = "custom_storage"
    _options_class = CouchbaseColumnarOptions
    _source_class = CouchbaseColumnarSource
    _parameters = {
        "database_ref": "database",
        "scope_ref": "scope",
        "collection_ref": "collection",
    }
    _source_parameters = {"database": "database", "scope": "scope", "collection": "collection"}

    couchbase_options = all_options()

    def __init__(self, database_ref: str, scope_ref: str, collection_ref: str) -> None:
        self._options = CouchbaseColumnarOptions(
            None, None, database_ref, scope_ref, collection_ref
        )


class CouchbaseColumnarLoggingDestination(StoredLog):
    """Logs in a collection."""

    _proto_kind = "couchbase_columnar_destination"
    _source_class = CouchbaseColumnarSource
    _members = {"database": "database", "scope": "scope", "table_name": "collection"}
    _source_parameters = {"database": "database", "scope": "scope", "collection": "table_name"}

    def __init__(self, *, database: str, scope: str, table_name: str) -> None:
        self.database = database
        self.scope = scope
        self.table_name = table_name
