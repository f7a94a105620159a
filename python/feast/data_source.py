"""Data sources: where feature data come from.

`DataSource` is the base of every source, also of sources that other packages define. This module
holds the sources without a store behind them (push, request, Kafka, Kinesis); sources of a store
live beside it, such as `feast.infra.offline_stores.file_source`.
"""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar

from feast._definition import (
    Definition,
    check_instance,
    check_text,
    checked_list,
    checked_texts,
    declared_at,
)
from feast.credentials import TAG_PREFIX, ConnectionRef
from feast.data_format import StreamFormat
from feast.field import Field

if TYPE_CHECKING:
    from feast.value_type import ValueType


class SourceType(enum.IntEnum):
    """The kinds of source that the registry tells apart, with their numbers in the message."""

    BATCH_FILE = 1
    BATCH_BIGQUERY = 2
    STREAM_KAFKA = 3
    STREAM_KINESIS = 4
    BATCH_REDSHIFT = 5
    CUSTOM_SOURCE = 6
    REQUEST_SOURCE = 7
    BATCH_SNOWFLAKE = 8
    PUSH_SOURCE = 9
    BATCH_TRINO = 10
    BATCH_SPARK = 11
    BATCH_ATHENA = 12
    BATCH_ICEBERG = 13


_STORES = "feast.infra.offline_stores"
_CLASSES = {
    SourceType.BATCH_FILE: f"{_STORES}.file_source.FileSource",
    SourceType.BATCH_BIGQUERY: f"{_STORES}.bigquery_source.BigQuerySource",
    SourceType.BATCH_REDSHIFT: f"{_STORES}.redshift_source.RedshiftSource",
    SourceType.BATCH_SNOWFLAKE: f"{_STORES}.snowflake_source.SnowflakeSource",
    SourceType.BATCH_TRINO: f"{_STORES}.contrib.trino_offline_store.trino_source.TrinoSource",
    SourceType.BATCH_SPARK: f"{_STORES}.contrib.spark_offline_store.spark_source.SparkSource",
    SourceType.BATCH_ATHENA: f"{_STORES}.contrib.athena_offline_store.athena_source.AthenaSource",
    SourceType.BATCH_ICEBERG: "feast.infra.data_sources.contrib.iceberg_catalog.iceberg_source.IcebergSource",
    SourceType.STREAM_KAFKA: "feast.data_source.KafkaSource",
    SourceType.STREAM_KINESIS: "feast.data_source.KinesisSource",
    SourceType.REQUEST_SOURCE: "feast.data_source.RequestSource",
    SourceType.PUSH_SOURCE: "feast.data_source.PushSource",
}


class DataSource(Definition, ABC):
    """Where feature data come from.

    `timestamp_field` is the column that says when the facts of a row became true; empty means that
    it is found out when the source is applied. `created_timestamp_column` says when a row was
    written: among rows of equal event time the newest counts. `field_mapping` renames columns of
    the source to names of features or join keys.

    A source of your own overrides `source_type` (return `SourceType.CUSTOM_SOURCE`),
    `_to_proto_impl`, `from_proto` and `source_datatype_to_feast_value_type`.
    """

    _compared: ClassVar[tuple[str, ...]] = (
        "name",
        "timestamp_field",
        "created_timestamp_column",
        "field_mapping",
        "date_partition_column",
        "timestamp_field_type",
        "description",
        "tags",
        "owner",
        "connection_ref",
    )

    created_timestamp: datetime | None
    last_updated_timestamp: datetime | None

    def __init__(
        self,
        *,
        name: str,
        timestamp_field: str | None = None,
        created_timestamp_column: str | None = None,
        field_mapping: dict[str, str] | None = None,
        description: str | None = "",
        tags: dict[str, str] | None = None,
        owner: str | None = "",
        date_partition_column: str | None = None,
        timestamp_field_type: str | None = None,
        connection_ref: ConnectionRef | None = None,
    ) -> None:
        check_text(f"a {type(self).__name__}", "name", name)
        where = f"data source `{name}`"
        texts = {
            "timestamp_field": timestamp_field,
            "created_timestamp_column": created_timestamp_column,
            "description": description,
            "owner": owner,
            "date_partition_column": date_partition_column,
            "timestamp_field_type": timestamp_field_type,
        }
        for parameter, value in texts.items():
            if value is not None:
                check_text(where, parameter, value)
        if timestamp_field and timestamp_field == created_timestamp_column:
            raise ValueError(
                f"{where}: `timestamp_field` and `created_timestamp_column` are both "
                f"`{timestamp_field}`; leave `created_timestamp_column` out if no column says when "
                "a row was written"
            )
        if connection_ref is not None:
            check_instance(
                where,
                "connection_ref",
                connection_ref,
                ConnectionRef,
                'ConnectionRef("env", "PG_")',
            )
        self._declared_at = declared_at()
        self.name = name
        self.timestamp_field = timestamp_field or ""
        self.created_timestamp_column = created_timestamp_column or ""
        self.field_mapping = checked_texts(where, "field_mapping", field_mapping)
        self.description = description or ""
        self.tags = checked_texts(where, "tags", tags)
        self.owner = owner or ""
        self.date_partition_column = date_partition_column or ""
        self.timestamp_field_type = timestamp_field_type or ""
        self.connection_ref = connection_ref
        # Set by the registry: a declaration has no history.
        self.created_timestamp = None
        self.last_updated_timestamp = None

    def __hash__(self) -> int:
        return hash((self.name, self.timestamp_field))

    @staticmethod
    @abstractmethod
    def from_proto(data_source: Any) -> Any:
        """Reads `feast.core.DataSource`, whatever its kind."""
        kind = data_source.type
        if kind == SourceType.CUSTOM_SOURCE:
            path = data_source.data_source_class_type
        elif kind in _CLASSES:
            path = _CLASSES[kind]
        else:
            raise ValueError(
                f"data source `{data_source.name}`: the registry gives its kind as {kind}, which "
                "is unknown here"
            )
        source = class_at(path, f"data source `{data_source.name}`").from_proto(data_source)
        source._read_shared(data_source)
        return source

    def to_proto(self) -> Any:
        """The message `feast.core.DataSource`."""
        from feast._wire import write_times

        message = self._to_proto_impl()
        if self.created_timestamp or self.last_updated_timestamp:
            write_times(message.meta, self)
        if self.connection_ref is not None:
            message.tags.update(self.connection_ref.to_tags())
        return message

    @abstractmethod
    def _to_proto_impl(self) -> Any:
        """The message without times and connection reference."""

    def _read_shared(self, data_source: Any) -> None:
        """Takes over what every kind of source has in its message."""
        from feast._wire import read_times

        read_times(data_source.meta, self, zone=UTC)
        self.connection_ref = ConnectionRef.from_tags(dict(data_source.tags))
        if self.connection_ref is not None:
            self.tags = own_tags(self.tags)

    @abstractmethod
    def source_type(self) -> int:
        """The number of its kind in the message."""

    @staticmethod
    @abstractmethod
    def source_datatype_to_feast_value_type() -> Callable[[str], ValueType]:
        """The function from the source's own type names to stored types."""

    def resolve_credentials(self) -> dict[str, str] | None:
        """The credentials its connection reference means, if it has one."""
        if self.connection_ref is None:
            return None
        from feast.credentials import resolve_credentials

        return resolve_credentials(self.connection_ref)

    def validate(self, config: Any) -> None:
        """Raises if the source cannot be read."""
        raise NotImplementedError(f"a {type(self).__name__} is checked by the engine on apply")

    def get_table_column_names_and_types(self, config: Any) -> Iterable[tuple[str, str]]:
        """Name and type of each column, as the source itself calls them."""
        raise NotImplementedError(f"columns of a {type(self).__name__} are read by the engine")

    def get_table_query_string(self) -> str:
        """What follows FROM in a query on this source."""
        raise NotImplementedError(f"a {type(self).__name__} cannot be queried with SQL")


def own_tags(tags: dict[str, str]) -> dict[str, str]:
    """Tags without those that carry a connection reference."""
    return {key: value for key, value in tags.items() if not key.startswith(TAG_PREFIX)}


def class_at(path: str, where: str) -> Any:
    """The class at an import path; the path comes from a registry, so that it may be wrong."""
    import importlib

    from feast.errors import FeastClassImportError, FeastModuleImportError

    module_name, _, class_name = path.rpartition(".")
    if not module_name:
        raise ValueError(f"{where}: the registry names no class for it, so that it cannot be read")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise FeastModuleImportError(module_name, class_name) from error
    if not hasattr(module, class_name):
        raise FeastClassImportError(module_name, class_name)
    return getattr(module, class_name)


def shared_arguments(message: Any) -> dict[str, Any]:
    """The arguments of a source that every kind reads from the same members of its message."""
    return {
        "name": message.name,
        "timestamp_field": message.timestamp_field,
        "created_timestamp_column": message.created_timestamp_column,
        "field_mapping": dict(message.field_mapping),
        "description": message.description,
        "tags": dict(message.tags),
        "owner": message.owner,
    }


def shared_message(source: DataSource, **members: Any) -> Any:
    """A message with what every kind of source writes, and the members given."""
    from feast.protos.feast.core.DataSource_pb2 import DataSource as Message

    return Message(
        name=source.name,
        type=int(source.source_type()),
        timestamp_field=source.timestamp_field,
        created_timestamp_column=source.created_timestamp_column,
        field_mapping=source.field_mapping,
        description=source.description,
        tags=source.tags,
        owner=source.owner,
        **members,
    )


class _WithoutTable(DataSource):
    """A source that cannot be scanned: streams, pushes and requests."""

    _source_type: SourceType

    def source_type(self) -> int:
        """The number of its kind in the message."""
        return self._source_type

    @staticmethod
    def source_datatype_to_feast_value_type() -> Callable[[str], ValueType]:
        """Such a source has no types of its own."""
        raise NotImplementedError("this source has no column types; its batch source has")


class KafkaOptions:
    """Servers, topic, format and how late messages may come."""

    def __init__(
        self,
        kafka_bootstrap_servers: str,
        message_format: StreamFormat,
        topic: str,
        watermark_delay_threshold: timedelta | None = None,
    ) -> None:
        self.kafka_bootstrap_servers = kafka_bootstrap_servers
        self.message_format = message_format
        self.topic = topic
        self.watermark_delay_threshold = watermark_delay_threshold

    def __eq__(self, other: object) -> bool:
        return isinstance(other, KafkaOptions) and vars(self) == vars(other)

    __hash__ = None  # type: ignore[assignment]

    def to_proto(self) -> Any:
        """The message `feast.core.DataSource.KafkaOptions`."""
        from feast._wire import to_duration
        from feast.protos.feast.core.DataSource_pb2 import DataSource as Message

        return Message.KafkaOptions(
            kafka_bootstrap_servers=self.kafka_bootstrap_servers,
            message_format=self.message_format.to_proto(),
            topic=self.topic,
            watermark_delay_threshold=to_duration(self.watermark_delay_threshold),
        )

    @classmethod
    def from_proto(cls, kafka_options_proto: Any) -> KafkaOptions:
        """Reads `feast.core.DataSource.KafkaOptions`."""
        from feast._wire import from_duration

        return cls(
            kafka_bootstrap_servers=kafka_options_proto.kafka_bootstrap_servers,
            message_format=StreamFormat.from_proto(kafka_options_proto.message_format),
            topic=kafka_options_proto.topic,
            watermark_delay_threshold=from_duration(
                kafka_options_proto, "watermark_delay_threshold"
            ),
        )


class KafkaSource(_WithoutTable):
    """A Kafka topic, with the batch source that keeps its history."""

    _source_type = SourceType.STREAM_KAFKA
    _compared: ClassVar[tuple[str, ...]] = (*DataSource._compared, "kafka_options", "batch_source")

    def __init__(
        self,
        *,
        name: str,
        timestamp_field: str,
        message_format: StreamFormat,
        bootstrap_servers: str | None = None,
        kafka_bootstrap_servers: str | None = None,
        topic: str | None = None,
        created_timestamp_column: str | None = "",
        field_mapping: dict[str, str] | None = None,
        description: str | None = "",
        tags: dict[str, str] | None = None,
        owner: str | None = "",
        batch_source: DataSource | None = None,
        watermark_delay_threshold: timedelta | None = None,
    ) -> None:
        super().__init__(
            name=name,
            timestamp_field=timestamp_field,
            created_timestamp_column=created_timestamp_column,
            field_mapping=field_mapping,
            description=description,
            tags=tags,
            owner=owner,
        )
        where = f"data source `{name}`"
        check_instance(
            where, "message_format", message_format, StreamFormat, 'JsonFormat("id integer")'
        )
        self.batch_source = checked_batch_source(where, batch_source)
        self.kafka_options = KafkaOptions(
            kafka_bootstrap_servers=kafka_bootstrap_servers or bootstrap_servers or "",
            message_format=message_format,
            topic=topic or "",
            watermark_delay_threshold=watermark_delay_threshold,
        )

    def _to_proto_impl(self) -> Any:
        message = shared_message(self, kafka_options=self.kafka_options.to_proto())
        return with_batch_source(message, self.batch_source)

    @staticmethod
    def from_proto(data_source: Any) -> KafkaSource:
        """Reads `feast.core.DataSource`."""
        options = KafkaOptions.from_proto(data_source.kafka_options)
        return KafkaSource(
            **shared_arguments(data_source),
            **vars(options),
            batch_source=batch_source_of(data_source),
        )


class KinesisOptions:
    """Format, region and name of a Kinesis stream."""

    def __init__(self, record_format: StreamFormat, region: str, stream_name: str) -> None:
        self.record_format = record_format
        self.region = region
        self.stream_name = stream_name

    def __eq__(self, other: object) -> bool:
        return isinstance(other, KinesisOptions) and vars(self) == vars(other)

    __hash__ = None  # type: ignore[assignment]

    def to_proto(self) -> Any:
        """The message `feast.core.DataSource.KinesisOptions`."""
        from feast.protos.feast.core.DataSource_pb2 import DataSource as Message

        return Message.KinesisOptions(
            record_format=self.record_format.to_proto(),
            region=self.region,
            stream_name=self.stream_name,
        )

    @classmethod
    def from_proto(cls, kinesis_options_proto: Any) -> KinesisOptions:
        """Reads `feast.core.DataSource.KinesisOptions`."""
        return cls(
            record_format=StreamFormat.from_proto(kinesis_options_proto.record_format),
            region=kinesis_options_proto.region,
            stream_name=kinesis_options_proto.stream_name,
        )


class KinesisSource(_WithoutTable):
    """A Kinesis stream, with the batch source that keeps its history."""

    _source_type = SourceType.STREAM_KINESIS
    _compared: ClassVar[tuple[str, ...]] = (
        *DataSource._compared,
        "kinesis_options",
        "batch_source",
    )

    def __init__(
        self,
        *,
        name: str,
        record_format: StreamFormat,
        region: str,
        stream_name: str,
        timestamp_field: str | None = "",
        created_timestamp_column: str | None = "",
        field_mapping: dict[str, str] | None = None,
        description: str | None = "",
        tags: dict[str, str] | None = None,
        owner: str | None = "",
        batch_source: DataSource | None = None,
    ) -> None:
        super().__init__(
            name=name,
            timestamp_field=timestamp_field,
            created_timestamp_column=created_timestamp_column,
            field_mapping=field_mapping,
            description=description,
            tags=tags,
            owner=owner,
        )
        where = f"data source `{name}`"
        if record_format is None:
            raise ValueError(
                f'{where}: `record_format` is missing; write for instance `JsonFormat("id integer")`'
            )
        check_instance(
            where, "record_format", record_format, StreamFormat, 'JsonFormat("id integer")'
        )
        self.batch_source = checked_batch_source(where, batch_source)
        self.kinesis_options = KinesisOptions(record_format, region, stream_name)

    def _to_proto_impl(self) -> Any:
        message = shared_message(self, kinesis_options=self.kinesis_options.to_proto())
        return with_batch_source(message, self.batch_source)

    @staticmethod
    def from_proto(data_source: Any) -> KinesisSource:
        """Reads `feast.core.DataSource`."""
        options = KinesisOptions.from_proto(data_source.kinesis_options)
        return KinesisSource(
            **shared_arguments(data_source),
            **vars(options),
            batch_source=batch_source_of(data_source),
        )


class PushMode(enum.Enum):
    """Where pushed rows go."""

    ONLINE = 1
    OFFLINE = 2
    ONLINE_AND_OFFLINE = 3


class PushSource(_WithoutTable):
    """Rows that your programs push; the batch source keeps their history."""

    _source_type = SourceType.PUSH_SOURCE
    _compared: ClassVar[tuple[str, ...]] = (*DataSource._compared, "batch_source")

    def __init__(
        self,
        *,
        name: str,
        batch_source: DataSource | None = None,
        description: str | None = "",
        tags: dict[str, str] | None = None,
        owner: str | None = "",
    ) -> None:
        super().__init__(name=name, description=description, tags=tags, owner=owner)
        self.batch_source = checked_batch_source(f"data source `{name}`", batch_source)

    def _to_proto_impl(self) -> Any:
        message = shared_message(self)
        batch = self.batch_source
        if batch and not (
            self.timestamp_field or self.created_timestamp_column or self.field_mapping
        ):
            # Readers look for the columns of pushed rows at the push source itself.
            message.timestamp_field = batch.timestamp_field
            message.created_timestamp_column = batch.created_timestamp_column
            message.field_mapping.update(batch.field_mapping)
            message.date_partition_column = batch.date_partition_column
        return with_batch_source(message, batch)

    @staticmethod
    def from_proto(data_source: Any) -> PushSource:
        """Reads `feast.core.DataSource`; columns are those of the batch source."""
        return PushSource(
            name=data_source.name,
            batch_source=batch_source_of(data_source),
            description=data_source.description,
            tags=dict(data_source.tags),
            owner=data_source.owner,
        )


class RequestSource(_WithoutTable):
    """Values that the caller sends with a request; only on-demand views read them."""

    _source_type = SourceType.REQUEST_SOURCE
    _compared: ClassVar[tuple[str, ...]] = (*DataSource._compared, "schema")

    def __init__(
        self,
        *,
        name: str,
        schema: list[Field],
        timestamp_field: str | None = None,
        description: str | None = "",
        tags: dict[str, str] | None = None,
        owner: str | None = "",
    ) -> None:
        super().__init__(
            name=name,
            timestamp_field=timestamp_field,
            description=description,
            tags=tags,
            owner=owner,
        )
        example = 'Field(name="amount", dtype=Float64)'
        self.schema = checked_list(f"data source `{name}`", "schema", schema, Field, example)

    def _to_proto_impl(self) -> Any:
        message = shared_message(self)
        message.request_data_options.SetInParent()
        message.request_data_options.schema.extend(field.to_proto() for field in self.schema)
        return message

    @staticmethod
    def from_proto(data_source: Any) -> RequestSource:
        """Reads `feast.core.DataSource`."""
        return RequestSource(
            name=data_source.name,
            schema=[Field.from_proto(one) for one in data_source.request_data_options.schema],
            timestamp_field=data_source.timestamp_field,
            description=data_source.description,
            tags=dict(data_source.tags),
            owner=data_source.owner,
        )


def checked_batch_source(where: str, source: DataSource | None) -> DataSource | None:
    """A batch source, when it is a source that can be read in batch."""
    if source is None:
        return None
    check_instance(
        where, "batch_source", source, DataSource, 'FileSource(path="data/stats.parquet")'
    )
    if isinstance(source, _WithoutTable):
        raise ValueError(
            f"{where}: `batch_source` must be a source with a history, but `{source.name}` is a "
            f"{type(source).__name__}; give a FileSource or a table instead"
        )
    return source


def batch_source_of(message: Any) -> DataSource | None:
    """The batch source inside the message of a stream source."""
    return DataSource.from_proto(message.batch_source) if message.HasField("batch_source") else None


def with_batch_source(message: Any, source: DataSource | None) -> Any:
    """The message of a stream source, with its batch source inside."""
    if source is not None:
        message.batch_source.CopyFrom(source.to_proto())
    return message
