"""Lance datasets: at a path, or as a table of a Lance namespace."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from feast._source_base import JsonOptions, StoredDataset, StoredSource, option
from feast.data_source import DataSource
from feast.table_format import LanceFormat

if TYPE_CHECKING:
    import pyarrow

    from feast.feature_view import FeatureView


class LanceOptions(JsonOptions):
    """The place of a dataset, the version that is read, and how to connect."""

    _keys = {"lance_table": "table"}

    def __init__(
        self,
        uri: str | None,
        lance_table: str | None,
        table_format: LanceFormat | None,
        namespace_impl: str | None,
        namespace_properties: dict[str, str] | None,
        storage_options: dict[str, str] | None,
    ) -> None:
        self.uri = uri
        self.lance_table = lance_table
        self.table_format = table_format or LanceFormat()
        self.namespace_impl = namespace_impl
        self.namespace_properties = namespace_properties or {}
        self.storage_options = storage_options or {}

    def to_json(self) -> dict[str, Any]:
        """The JSON object of these options."""
        return {**super().to_json(), "table_format": self.table_format.to_dict()}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> LanceOptions:
        """Reads the JSON object."""
        table_format = LanceFormat.from_dict(values.get("table_format") or {})
        return super().from_json({**values, "table_format": table_format})

    def check(self, where: str) -> None:
        """Refuses options that do not say one place."""
        if not isinstance(self.table_format, LanceFormat):
            raise ValueError(
                f"{where}: `table_format` must be a LanceFormat, but is a "
                f"{type(self.table_format).__name__}"
            )
        if bool(self.uri) == bool(self.lance_table):
            found = "both are" if self.uri else "neither is"
            raise ValueError(
                f"{where}: give `uri` (a path) or `table` (in a namespace), but {found} given"
            )
        if self.lance_table and not self.namespace_impl:
            raise ValueError(
                f'{where}: the table `{self.lance_table}` needs `namespace_impl`, such as "dir" for '
                'folders or "rest" for a namespace server'
            )


class LanceSource(StoredSource):
    """A Lance dataset, at its newest version or the one its `table_format` pins."""

    _options_class = LanceOptions
    _parameters = {"table": "lance_table"}

    uri = option("uri")
    lance_table = option("lance_table")
    table_format = option("table_format")
    namespace_impl = option("namespace_impl")
    namespace_properties = option("namespace_properties")
    storage_options = option("storage_options")

    def __init__(
        self,
        *,
        uri: str | None = None,
        table: str | None = None,
        table_format: LanceFormat | None = None,
        namespace_impl: str | None = None,
        namespace_properties: dict[str, str] | None = None,
        storage_options: dict[str, str] | None = None,
        name: str | None = None,
        timestamp_field: str | None = None,
        created_timestamp_column: str | None = None,
        field_mapping: dict[str, str] | None = None,
        description: str | None = "",
        tags: dict[str, str] | None = None,
        owner: str | None = "",
    ) -> None:
        self._options = LanceOptions(
            uri, table, table_format, namespace_impl, namespace_properties, storage_options
        )
        self._options.check(f"data source `{name or uri or table}`")
        parts = (self.table_format.catalog, self.table_format.namespace, table)
        super().__init__(
            name=name or uri or ".".join(one for one in parts if one),
            timestamp_field=timestamp_field,
            created_timestamp_column=created_timestamp_column,
            field_mapping=field_mapping,
            description=description,
            tags=tags,
            owner=owner,
        )

    @property
    def is_catalog_based(self) -> bool:
        """Whether it is a table of a namespace."""
        return self.lance_table is not None

    @property
    def pin(self) -> int | str | None:
        """The pinned version or tag, if any."""
        return self.table_format.version or self.table_format.tag or None

    @property
    def pin_description(self) -> str:
        """What is read, in words."""
        if self.table_format.version is not None:
            return f"version {self.table_format.version}"
        return f"tag `{self.pin}`" if self.pin else "the newest version"

    @property
    def table_id(self) -> list[str]:
        """The path of the table in its namespace."""
        if not self.lance_table:
            raise ValueError(f"data source `{self.name}` is a path, not a table of a namespace")
        return [*filter(None, (self.table_format.namespace or "").split(".")), self.lance_table]

    def get_namespace_client(self) -> Any:
        """The client of its namespace (needs lance_namespace)."""
        import lance_namespace

        if not self.namespace_impl:
            raise ValueError(f"data source `{self.name}` has no `namespace_impl` to connect to")
        return lance_namespace.connect(self.namespace_impl, dict(self.namespace_properties))

    def get_write_target(self) -> dict[str, Any]:
        """The arguments by which the `lance` package finds the dataset."""
        target: dict[str, Any] = {"uri": self.uri}
        if self.is_catalog_based:
            target = {"namespace_client": self.get_namespace_client(), "table_id": self.table_id}
        if self.storage_options:
            target["storage_options"] = dict(self.storage_options)
        return target

    def get_dataset(self) -> Any:
        """The opened dataset (needs the `lance` package)."""
        import lance

        pinned = {} if self.pin is None else {"version": self.pin}
        return lance.dataset(**self.get_write_target(), **pinned)

    def get_schema(self) -> pyarrow.Schema:
        """The Arrow columns of the dataset."""
        return self.get_dataset().schema

    def get_existing_schema(self) -> pyarrow.Schema | None:
        """The Arrow columns of the newest version, or nothing if there is no dataset yet."""
        import lance

        try:
            return lance.dataset(**self.get_write_target()).schema
        except (ValueError, OSError):
            return None

    def assert_writable(self) -> None:
        """Refuses a pinned source: a write makes a new version, which the pin would not show."""
        if self.pin is not None:
            raise ValueError(
                f"data source `{self.name}` is pinned to {self.pin_description} and cannot be "
                "written; write through a source without a pin"
            )

    def to_arrow(
        self, columns: list[str] | None = None, feature_view: FeatureView | None = None
    ) -> pyarrow.Table:
        """The rows; with a view, its columns must be there."""
        dataset = self.get_dataset()
        if feature_view is not None:
            _check_columns(self, dataset.schema, feature_view)
        return dataset.to_table(columns=columns)

    def get_table_column_names_and_types(self, config: Any) -> Iterable[tuple[str, str]]:
        """Name and Arrow type of each column."""
        schema = self.get_schema()
        return list(zip(schema.names, map(str, schema.types)))


class SavedDatasetLanceStorage(StoredDataset):
    """A saved dataset in a pinned version of a Lance dataset."""

    _proto_attr_name = "custom_storage"
    _options_class = LanceOptions
    _source_class = LanceSource
    _parameters = {
        "table_format": "table_format",
        "uri": "uri",
        "table": "lance_table",
        "namespace_impl": "namespace_impl",
        "namespace_properties": "namespace_properties",
        "storage_options": "storage_options",
    }
    _source_parameters = _parameters

    uri = option("uri")
    lance_table = option("lance_table")
    table_format = option("table_format")
    namespace_impl = option("namespace_impl")
    namespace_properties = option("namespace_properties")
    storage_options = option("storage_options")

    def __init__(
        self,
        table_format: LanceFormat,
        *,
        uri: str | None = None,
        table: str | None = None,
        namespace_impl: str | None = None,
        namespace_properties: dict[str, str] | None = None,
        storage_options: dict[str, str] | None = None,
    ) -> None:
        self._options = LanceOptions(
            uri, table, table_format, namespace_impl, namespace_properties, storage_options
        )
        where = f"saved dataset at `{uri or table}`"
        self._options.check(where)
        if not self._options.table_format.is_pinned:
            raise ValueError(
                f"{where}: `table_format` pins no version or tag, so that later writes would change "
                "the saved rows; write for instance `LanceFormat(version=3)`"
            )


def _check_columns(source: LanceSource, schema: Any, feature_view: FeatureView) -> None:
    original = {new: old for old, new in source.field_mapping.items()}
    wanted = [original.get(one.name, one.name) for one in feature_view.schema]
    wanted += [one for one in (source.timestamp_field, source.created_timestamp_column) if one]
    missing = [one for one in dict.fromkeys(wanted) if one not in schema.names]
    if missing:
        raise ValueError(
            f"data source `{source.name}` at {source.pin_description} lacks the columns {missing}, "
            f"which feature view `{feature_view.name}` needs; it has {sorted(schema.names)}"
        )


def validate_lance_source_schema(feature_view: FeatureView) -> None:
    """Refuses a view whose Lance source lacks its columns; other sources are not looked at."""
    source: DataSource | None = feature_view.batch_source
    if isinstance(source, LanceSource):
        _check_columns(source, source.get_schema(), feature_view)


def validate_lance_write_shape(
    table: pyarrow.Table, source: LanceSource, existing_schema: pyarrow.Schema | None
) -> None:
    """Refuses a write that would change the length of vectors."""
    from pyarrow import types

    for field in existing_schema or ():
        if not types.is_fixed_size_list(field.type) or field.name not in table.schema.names:
            continue
        new = table.schema.field(field.name).type
        if types.is_fixed_size_list(new) and new.list_size != field.type.list_size:
            raise ValueError(
                f"data source `{source.name}`: vectors of `{field.name}` have "
                f"{field.type.list_size} dimensions, but those to be written have {new.list_size}; "
                "write them to a new dataset"
            )
