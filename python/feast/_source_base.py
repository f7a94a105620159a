"""The shape shared by all sources of a store, their saved datasets and their logs.

A source of a store is its constructor plus one options object. The options travel either as a
message of their own (`MessageOptions`) or as JSON in the message for custom sources
(`JsonOptions`). A source names its options and its kind; everything else happens here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

from feast._definition import shown
from feast.data_source import DataSource, SourceType, shared_arguments, shared_message
from feast.errors import DataSourceNoNameException
from feast.feature_logging import LoggingDestination
from feast.saved_dataset import SavedDatasetStorage

if TYPE_CHECKING:
    from feast.value_type import ValueType


class Options:
    """What a source has beyond the columns every source has; compares by its attributes."""

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and vars(self) == vars(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return shown(self)


class MessageOptions(Options):
    """Options with a message of their own, inside `feast.core.DataSource`."""

    _message: ClassVar[str]

    def to_proto(self) -> Any:
        """The message of these options."""
        from feast.protos.feast.core.DataSource_pb2 import DataSource as Message

        return getattr(Message, self._message)(**vars(self))

    @classmethod
    def from_proto(cls, proto: Any) -> Any:
        """Reads the message of these options."""
        names = [field.name for field in proto.DESCRIPTOR.fields]
        return cls(**{name: getattr(proto, name) for name in names})


class JsonOptions(Options):
    """Options that travel as JSON in `feast.core.DataSource.CustomSourceOptions`."""

    # Attribute → key in the JSON, where the two differ.
    _keys: ClassVar[dict[str, str]] = {}

    def to_json(self) -> dict[str, Any]:
        """The JSON object of these options."""
        return {self._keys.get(name, name): value for name, value in vars(self).items()}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Any:
        """Reads the JSON object; keys that are not options are left aside, missing ones empty."""
        import inspect

        names = inspect.signature(cls).parameters
        return cls(**{name: values.get(cls._keys.get(name, name)) for name in names})

    def to_proto(self) -> Any:
        """The message for custom sources, with these options inside."""
        import json

        from feast.protos.feast.core.DataSource_pb2 import DataSource as Message

        text = json.dumps(self.to_json())
        return Message.CustomSourceOptions(configuration=text.encode())

    @classmethod
    def from_proto(cls, proto: Any) -> Any:
        """Reads the options out of the message for custom sources."""
        import json

        try:
            values = json.loads(proto.configuration)
        except ValueError as error:
            raise ValueError(f"the options of a custom source are not JSON: {error}") from error
        return cls.from_json(values)


def option(name: str) -> Any:
    """A read-only property of a source that shows one of its options."""
    return property(lambda source: getattr(source._options, name), doc=f"The option `{name}`.")


def all_options() -> Any:
    """A read-only property of a source that shows its options object."""
    return property(lambda source: source._options, doc="All options of this kind of source.")


class StoredSource(DataSource):
    """A source of a store, declared by the class attributes below."""

    _source_type: ClassVar[SourceType] = SourceType.CUSTOM_SOURCE
    # The member of the message that holds the options.
    _member: ClassVar[str] = "custom_options"
    _options_class: ClassVar[type[Any]]
    # Constructor parameters whose options have other names (parameter → option).
    _parameters: ClassVar[dict[str, str]] = {}
    # What the constructor calls the event time column.
    _event_time: ClassVar[str] = "timestamp_field"
    # Further members of the message that this kind of source fills.
    _also: ClassVar[tuple[str, ...]] = ()
    # The function of `feast.type_map` for its column types.
    _value_types: ClassVar[str] = "pa_to_feast_value_type"

    _compared: ClassVar[tuple[str, ...]] = (*DataSource._compared, "_options")
    _options: Any

    def source_type(self) -> int:
        """The number of its kind in the message."""
        return self._source_type

    @classmethod
    def source_datatype_to_feast_value_type(cls) -> Callable[[str], ValueType]:  # type: ignore[override]
        """The function from the store's type names to stored types."""
        from feast import type_map

        return getattr(type_map, cls._value_types)

    @classmethod
    def _class_path(cls) -> str:
        return f"{cls.__module__}.{cls.__name__}"

    def _to_proto_impl(self) -> Any:
        members = {name: getattr(self, name) for name in self._also}
        members[self._member] = self._options.to_proto()
        if self._member == "custom_options":
            members["data_source_class_type"] = self._class_path()
        return shared_message(self, **members)

    @classmethod
    def from_proto(cls, data_source: Any) -> Any:  # type: ignore[override]
        """Reads `feast.core.DataSource`."""
        options = cls._options_class.from_proto(getattr(data_source, cls._member))
        arguments = shared_arguments(data_source)
        arguments[cls._event_time] = arguments.pop("timestamp_field")
        arguments.update({name: getattr(data_source, name) for name in cls._also})
        renamed = {option_name: parameter for parameter, option_name in cls._parameters.items()}
        for name, value in vars(options).items():
            arguments.setdefault(renamed.get(name, name), value or None)
        source = cls(**arguments)
        # A constructor may fill in defaults; what was stored counts.
        source._options = options
        source._read_shared(data_source)
        return source


def table_name(kind: str, name: str | None, table: str | None, query: str | None = None) -> str:
    """The name of a source: given, or that of its table. Refuses a source without a place."""
    if name is None and table is None:
        raise DataSourceNoNameException()
    if not table and not query:
        raise ValueError(
            f"{kind} `{name}`: neither `table` nor `query` is given; say where the rows are, "
            'for instance `table="features.driver_stats"`'
        )
    return name or table or ""


class StoredDataset(SavedDatasetStorage):
    """Where a saved dataset is kept: the options of a source."""

    _options_class: ClassVar[type[Any]]
    _source_class: ClassVar[Any]
    # Constructor parameter → option.
    _parameters: ClassVar[dict[str, str]]
    # Source parameter → option.
    _source_parameters: ClassVar[dict[str, str]]

    _options: Any

    def to_proto(self) -> Any:
        """The message `feast.core.SavedDatasetStorage`."""
        from feast.protos.feast.core.SavedDataset_pb2 import SavedDatasetStorage as Message

        if self._proto_attr_name == "custom_storage":
            return self._custom_storage_proto(self._options.to_proto())
        return Message(**{self._proto_attr_name: self._options.to_proto()})

    @classmethod
    def from_proto(cls, storage_proto: Any) -> Any:  # type: ignore[override]
        """Reads `feast.core.SavedDatasetStorage`."""
        options = cls._options_class.from_proto(getattr(storage_proto, cls._proto_attr_name))
        return cls(**{name: getattr(options, of) for name, of in cls._parameters.items()})

    def to_data_source(self) -> DataSource:
        """The source that reads the saved rows."""
        values = {
            name: getattr(self._options, of) or None for name, of in self._source_parameters.items()
        }
        return self._source_class(**values)

    @classmethod
    def from_data_source(cls, data_source: Any) -> Any:  # type: ignore[override]
        """The storage at the place a source reads from."""
        if not isinstance(data_source, cls._source_class):
            raise ValueError(
                f"{cls.__name__} keeps rows where a {cls._source_class.__name__} reads them, but "
                f"`{data_source.name}` is a {type(data_source).__name__}"
            )
        options = data_source._options
        return cls(**{name: getattr(options, of) for name, of in cls._parameters.items()})


class StoredLog(LoggingDestination):
    """Where served features are logged: the attributes named in `_members`."""

    _source_class: ClassVar[Any]
    # Constructor parameter and attribute → member of the message.
    _members: ClassVar[dict[str, str]]
    # Source parameter → attribute.
    _source_parameters: ClassVar[dict[str, str]]

    def to_proto(self) -> Any:
        """The message `feast.core.LoggingConfig`, without a sample rate."""
        from feast.protos.feast.core.FeatureService_pb2 import LoggingConfig as Message

        message = Message()
        destination = getattr(message, self._proto_kind)
        destination.SetInParent()
        for attribute, member in self._members.items():
            value = getattr(self, attribute)
            if isinstance(value, (list, tuple)):
                getattr(destination, member).extend(value)
            elif value:
                setattr(destination, member, value)
        return message

    @classmethod
    def from_proto(cls, config_proto: Any) -> Any:
        """Reads `feast.core.LoggingConfig`."""
        destination = getattr(config_proto, cls._proto_kind)
        values = {}
        for attribute, member in cls._members.items():
            value = getattr(destination, member)
            values[attribute] = value if isinstance(value, str) else list(value) or None
        return cls(**values)

    def to_data_source(self) -> DataSource:
        """The source that reads the log."""
        values = {name: getattr(self, of) for name, of in self._source_parameters.items()}
        return self._source_class(**values)
