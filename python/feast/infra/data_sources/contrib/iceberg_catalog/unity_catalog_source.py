"""Tables of Databricks' Unity Catalog."""

from __future__ import annotations

import os

from feast._source_base import option
from feast.credentials import ConnectionRef
from feast.infra.data_sources.contrib.iceberg_catalog.iceberg_source import (
    IcebergOptions,
    IcebergSource,
)


class UnityCatalogOptions(IcebergOptions):
    """Those of an Iceberg catalog, and what Unity Catalog is told about features."""

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
        register_as_feature_table: bool | None,
        sync_lineage: bool | None,
    ) -> None:
        super().__init__(
            catalog_type,
            catalog_name,
            endpoint,
            warehouse,
            namespace,
            iceberg_table,
            token_env_var,
            credential_vending,
            catalog_properties,
        )
        self.register_as_feature_table = register_as_feature_table is not False
        self.sync_lineage = sync_lineage is not False


class UnityCatalogSource(IcebergSource):
    """A table of Unity Catalog. The address comes from `DATABRICKS_HOST` unless given."""

    _options_class = UnityCatalogOptions  # type: ignore[assignment]

    register_as_feature_table = option("register_as_feature_table")
    sync_lineage = option("sync_lineage")

    def __init__(
        self,
        *,
        warehouse: str,
        namespace: str,
        table: str,
        name: str | None = None,
        timestamp_field: str | None = None,
        created_timestamp_column: str | None = None,
        field_mapping: dict[str, str] | None = None,
        description: str | None = "",
        tags: dict[str, str] | None = None,
        owner: str | None = "",
        endpoint: str | None = None,
        token_env_var: str | None = None,
        credential_vending: bool = True,
        catalog_type: str = "rest",
        catalog_name: str = "feast_iceberg",
        catalog_properties: dict[str, str] | None = None,
        register_as_feature_table: bool = True,
        sync_lineage: bool = True,
        connection_ref: ConnectionRef | None = None,
    ) -> None:
        if endpoint is None:
            endpoint = f"{os.environ.get('DATABRICKS_HOST', '')}/api/2.1/unity-catalog/iceberg"
        super().__init__(
            warehouse=warehouse,
            namespace=namespace,
            table=table,
            name=name,
            timestamp_field=timestamp_field,
            created_timestamp_column=created_timestamp_column,
            field_mapping=field_mapping,
            description=description,
            tags=tags,
            owner=owner,
            connection_ref=connection_ref,
        )
        self._options = UnityCatalogOptions(
            catalog_type,
            catalog_name,
            endpoint,
            warehouse,
            namespace,
            table,
            token_env_var or "DATABRICKS_TOKEN",
            credential_vending,
            catalog_properties,
            register_as_feature_table,
            sync_lineage,
        )
