"""Tables of an Iceberg catalog."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from feast._source_base import JsonOptions, StoredSource, option
from feast.credentials import ConnectionRef
from feast.data_source import SourceType, class_at


class IcebergOptions(JsonOptions):
    """The catalog, the table in it, and how to log in."""

    _keys = {"iceberg_table": "table"}

    def __init__(
        self,
        catalog_type: str | None,
        catalog_name: str | None,
        endpoint: str | None,
        warehouse: str,
        namespace: str,
        iceberg_table: str,
        token_env_var: str | None,
        credential_vending: bool | None,
        catalog_properties: dict[str, str] | None,
    ) -> None:
        self.catalog_type = catalog_type or "rest"
        self.catalog_name = catalog_name or "feast_iceberg"
        self.endpoint = endpoint or ""
        self.warehouse = warehouse
        self.namespace = namespace
        self.iceberg_table = iceberg_table
        self.token_env_var = token_env_var
        self.credential_vending = True if credential_vending is None else credential_vending
        self.catalog_properties = catalog_properties or {}


class IcebergSource(StoredSource):
    """A table of an Iceberg catalog; the name defaults to `warehouse.namespace.table`.

    `token_env_var` names the environment variable that holds the token: the token itself never
    goes into a registry.
    """

    _source_type = SourceType.BATCH_ICEBERG
    _options_class = IcebergOptions
    _parameters = {"table": "iceberg_table"}
    _value_types = "iceberg_to_feast_value_type"

    catalog_type = option("catalog_type")
    catalog_name = option("catalog_name")
    endpoint = option("endpoint")
    warehouse = option("warehouse")
    namespace = option("namespace")
    iceberg_table = option("iceberg_table")
    token_env_var = option("token_env_var")
    credential_vending = option("credential_vending")
    catalog_properties = option("catalog_properties")

    def __init__(
        self,
        *,
        warehouse: str,
        namespace: str,
        table: str,
        catalog_type: str = "rest",
        catalog_name: str = "feast_iceberg",
        endpoint: str | None = None,
        catalog_properties: dict[str, str] | None = None,
        name: str | None = None,
        timestamp_field: str | None = None,
        created_timestamp_column: str | None = None,
        field_mapping: dict[str, str] | None = None,
        description: str | None = "",
        tags: dict[str, str] | None = None,
        owner: str | None = "",
        token_env_var: str | None = None,
        credential_vending: bool = True,
        connection_ref: ConnectionRef | None = None,
    ) -> None:
        self._options = IcebergOptions(
            catalog_type,
            catalog_name,
            endpoint,
            warehouse,
            namespace,
            table,
            token_env_var,
            credential_vending,
            catalog_properties,
        )
        super().__init__(
            name=name or self.fqn,
            timestamp_field=timestamp_field,
            created_timestamp_column=created_timestamp_column,
            field_mapping=field_mapping,
            description=description,
            tags=tags,
            owner=owner,
            connection_ref=connection_ref,
        )

    @property
    def fqn(self) -> str:
        """`warehouse.namespace.table`."""
        return f"{self.warehouse}.{self.namespace}.{self.iceberg_table}"

    @classmethod
    def from_proto(cls, data_source: Any) -> Any:
        """Reads `feast.core.DataSource`; the message says which kind of catalog it is."""
        path = data_source.data_source_class_type
        if cls is IcebergSource and path and path != cls._class_path():
            return class_at(path, f"data source `{data_source.name}`").from_proto(data_source)
        return super().from_proto(data_source)

    def get_catalog_client(self) -> Any:
        """The catalog, opened with pyiceberg."""
        from pyiceberg.catalog import load_catalog

        settings = {"type": self.catalog_type, **self.catalog_properties}
        token = os.environ.get(self.token_env_var) if self.token_env_var else None
        for key, value in (("uri", self.endpoint), ("warehouse", self.warehouse), ("token", token)):
            if value:
                settings.setdefault(key, value)
        return load_catalog(self.catalog_name, **settings)

    def get_table_column_names_and_types(self, config: Any) -> Iterable[tuple[str, str]]:
        """Name and Iceberg type of each column (needs pyiceberg)."""
        table = self.get_catalog_client().load_table(f"{self.namespace}.{self.iceberg_table}")
        return [(one.name, str(one.field_type)) for one in table.schema().fields]

    def get_table_query_string(self) -> str:
        """The name under which engines register the table."""
        return f"iceberg_tmp_{self.iceberg_table}"
