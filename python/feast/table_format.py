"""Table layers above files: Iceberg, Delta Lake, Hudi and Lance.

Each setting of a format is also written into its `properties`, under the key the engine that reads
the table knows.
"""

from __future__ import annotations

import enum
from abc import ABC
from typing import Any, ClassVar

from feast._definition import shown


class TableFormatType(enum.Enum):
    """The kinds of table layer."""

    DELTA = "delta"
    ICEBERG = "iceberg"
    HUDI = "hudi"
    LANCE = "lance"


class TableFormat(ABC):
    """A kind of table layer with its settings."""

    # Setting → the key of the property which repeats it.
    _settings: ClassVar[dict[str, str]] = {}
    _type: ClassVar[TableFormatType]

    def __init__(
        self, format_type: TableFormatType, properties: dict[str, str] | None = None
    ) -> None:
        if type(self) is TableFormat:
            raise TypeError("use one of IcebergFormat, DeltaFormat, HudiFormat, LanceFormat")
        self.format_type = format_type
        self.properties = dict(properties or {})

    def _keep(self, **settings: Any) -> None:
        for name, value in settings.items():
            setattr(self, name, value)
            if value not in (None, ""):
                self.properties[self._settings[name]] = str(value)

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash((self.format_type, tuple(sorted(self.properties.items()))))

    def __repr__(self) -> str:
        return shown(self)

    def get_property(self, key: str, default: str | None = None) -> str | None:
        """One property, or the default."""
        return self.properties.get(key, default)

    def set_property(self, key: str, value: str) -> None:
        """Sets one property."""
        self.properties[key] = value

    def to_dict(self) -> dict[str, Any]:
        """Kind, settings and properties as plain values."""
        settings = {name: getattr(self, name) for name in self._settings}
        return {"format_type": self.format_type.value, **settings, "properties": self.properties}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> TableFormat:
        """The inverse of `to_dict` (the kind comes from the class)."""
        settings = {name: data.get(name) for name in cls._settings}
        return cls(**settings, properties=data.get("properties") or {})  # type: ignore[arg-type]

    def to_proto(self) -> Any:
        """The message `feast.core.TableFormat`."""
        from feast.protos.feast.core.DataFormat_pb2 import TableFormat as Message

        message = Message()
        chosen = getattr(message, f"{self.format_type.value}_format")
        chosen.SetInParent()
        for name in self._settings:
            value = getattr(self, name)
            if value:
                setattr(chosen, name, value)
        chosen.properties.update(self.properties)
        return message

    @classmethod
    def from_proto(cls, proto: Any) -> TableFormat:
        """Reads `feast.core.TableFormat`."""
        chosen = getattr(proto, f"{cls._type.value}_format")
        settings = {name: getattr(chosen, name) or None for name in cls._settings}
        return cls(**settings, properties=dict(chosen.properties))  # type: ignore[arg-type]


class IcebergFormat(TableFormat):
    """An Apache Iceberg table."""

    _type = TableFormatType.ICEBERG
    _settings = {"catalog": "iceberg.catalog", "namespace": "iceberg.namespace"}

    def __init__(
        self,
        catalog: str | None = None,
        namespace: str | None = None,
        properties: dict[str, str] | None = None,
    ) -> None:
        super().__init__(self._type, properties)
        self._keep(catalog=catalog, namespace=namespace)


class DeltaFormat(TableFormat):
    """A Delta Lake table."""

    _type = TableFormatType.DELTA
    _settings = {"checkpoint_location": "delta.checkpointLocation"}

    def __init__(
        self,
        checkpoint_location: str | None = None,
        properties: dict[str, str] | None = None,
    ) -> None:
        super().__init__(self._type, properties)
        self._keep(checkpoint_location=checkpoint_location)


class HudiFormat(TableFormat):
    """An Apache Hudi table."""

    _type = TableFormatType.HUDI
    _settings = {
        "table_type": "hoodie.datasource.write.table.type",
        "record_key": "hoodie.datasource.write.recordkey.field",
        "precombine_field": "hoodie.datasource.write.precombine.field",
    }

    def __init__(
        self,
        table_type: str | None = None,
        record_key: str | None = None,
        precombine_field: str | None = None,
        properties: dict[str, str] | None = None,
    ) -> None:
        super().__init__(self._type, properties)
        self._keep(table_type=table_type, record_key=record_key, precombine_field=precombine_field)


class LanceFormat(TableFormat):
    """A Lance dataset, at its newest version or pinned to a version or tag."""

    _type = TableFormatType.LANCE
    version: int | None
    tag: str | None
    _settings = {
        "catalog": "lance.catalog",
        "namespace": "lance.namespace",
        "version": "lance.version",
        "tag": "lance.tag",
    }

    def __init__(
        self,
        catalog: str | None = None,
        namespace: str | None = None,
        version: int | None = None,
        tag: str | None = None,
        properties: dict[str, str] | None = None,
    ) -> None:
        if version is not None and tag:
            raise ValueError(
                f"LanceFormat: both `version` ({version}) and `tag` (`{tag}`) are given; "
                "a tag names a version, so give one of them"
            )
        if version is not None and version < 1:
            raise ValueError(
                f"LanceFormat: `version` is {version}, but versions start at 1; "
                "leave it out to read the newest"
            )
        super().__init__(self._type, properties)
        self._keep(catalog=catalog, namespace=namespace, version=version, tag=tag)

    @property
    def is_pinned(self) -> bool:
        """Whether it means one version forever."""
        return self.version is not None or bool(self.tag)


_CLASSES = {one._type: one for one in (DeltaFormat, IcebergFormat, HudiFormat, LanceFormat)}


def create_table_format(format_type: TableFormatType, **kwargs: Any) -> TableFormat:
    """The format of a kind, with its settings."""
    if format_type not in _CLASSES:
        raise ValueError(f"`{format_type}` is no kind of table; known are {_known()}")
    return _CLASSES[format_type](**kwargs)


def table_format_from_dict(data: dict[str, Any]) -> TableFormat:
    """The format described by `TableFormat.to_dict`."""
    if "format_type" not in data:
        raise KeyError("the description of a table format has no `format_type`")
    for kind, chosen in _CLASSES.items():
        if kind.value == data["format_type"]:
            return chosen.from_dict(data)
    raise ValueError(f"`{data['format_type']}` is no kind of table; known are {_known()}")


def table_format_from_json(json_str: str) -> TableFormat:
    """The same from JSON."""
    import json

    return table_format_from_dict(json.loads(json_str))


def table_format_from_proto(proto: Any) -> TableFormat:
    """Reads `feast.core.TableFormat`, whatever its kind."""
    chosen = proto.WhichOneof("format")
    for kind, cls in _CLASSES.items():
        if chosen == f"{kind.value}_format":
            return cls.from_proto(proto)
    raise ValueError("a table format in the registry says no kind")


def _known() -> str:
    return ", ".join(one.value for one in TableFormatType)
