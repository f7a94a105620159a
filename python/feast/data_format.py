"""How the bytes of files and of stream messages are decoded."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from feast._definition import check_text, shown


class _Format(ABC):
    """A format compares by its kind and its settings."""

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash((type(self).__name__, *vars(self).values()))

    def __repr__(self) -> str:
        return shown(self)

    @abstractmethod
    def to_proto(self) -> Any:
        """The protobuf message of this format."""


class FileFormat(_Format):
    """Format of the files of a `FileSource`."""

    @classmethod
    def from_proto(cls, proto: Any) -> FileFormat | None:
        """Reads `feast.core.FileFormat`; nothing if no format is set."""
        kind = proto.WhichOneof("format")
        known = {"parquet_format": ParquetFormat, "delta_format": DeltaFormat, None: lambda: None}
        return known[kind]()


class ParquetFormat(FileFormat):
    """Parquet files."""

    def to_proto(self) -> Any:
        """The message `feast.core.FileFormat`."""
        from feast.protos.feast.core.DataFormat_pb2 import FileFormat as Message

        return Message(parquet_format=Message.ParquetFormat())

    def __str__(self) -> str:
        return "parquet"


class DeltaFormat(FileFormat):
    """A Delta Lake table."""

    def to_proto(self) -> Any:
        """The message `feast.core.FileFormat`."""
        from feast.protos.feast.core.DataFormat_pb2 import FileFormat as Message
        from feast.protos.feast.core.DataFormat_pb2 import TableFormat

        return Message(delta_format=TableFormat.DeltaFormat())

    def __str__(self) -> str:
        return "delta"


class StreamFormat(_Format):
    """Format of the messages of a Kafka or Kinesis source: one setting, a schema or a class."""

    _member: ClassVar[str]
    _setting: ClassVar[str]

    def to_proto(self) -> Any:
        """The message `feast.core.StreamFormat`."""
        from feast.protos.feast.core.DataFormat_pb2 import StreamFormat as Message

        message = Message()
        chosen = getattr(message, self._member)
        chosen.SetInParent()
        setattr(chosen, self._setting, getattr(self, self._setting))
        return message

    @classmethod
    def from_proto(cls, proto: Any) -> StreamFormat:
        """Reads `feast.core.StreamFormat`."""
        member = proto.WhichOneof("format")
        for kind in (AvroFormat, JsonFormat, ProtoFormat):
            if kind._member == member:
                return kind(getattr(getattr(proto, member), kind._setting))
        raise ValueError("a stream source in the registry says no message format")


class AvroFormat(StreamFormat):
    """Avro messages; `schema_json` is the text of the Avro schema."""

    _member = "avro_format"
    _setting = "schema_json"

    def __init__(self, schema_json: str) -> None:
        check_text("AvroFormat", "schema_json", schema_json)
        self.schema_json = schema_json


class JsonFormat(StreamFormat):
    """JSON messages; `schema_json` lists the columns, such as `id integer, at timestamp`."""

    _member = "json_format"
    _setting = "schema_json"

    def __init__(self, schema_json: str) -> None:
        check_text("JsonFormat", "schema_json", schema_json)
        self.schema_json = schema_json


class ProtoFormat(StreamFormat):
    """Protobuf messages; `class_path` is the import path of their class."""

    _member = "proto_format"
    _setting = "class_path"

    def __init__(self, class_path: str) -> None:
        check_text("ProtoFormat", "class_path", class_path)
        self.class_path = class_path
