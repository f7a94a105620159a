"""What an apply creates in an online store, as the registry remembers it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from feast._definition import shown
from feast.errors import FeastInvalidInfraObjectType

DATASTORE_INFRA_OBJECT_CLASS_TYPE = "feast.infra.online_stores.datastore.DatastoreTable"
SQLITE_INFRA_OBJECT_CLASS_TYPE = "feast.infra.online_stores.sqlite.SqliteTable"


class InfraObject(ABC):
    """One created thing, such as a table. Stores written by a team subclass it."""

    @abstractmethod
    def __init__(self, name: str) -> None:
        self._name = name

    @property
    def name(self) -> str:
        """Name of the thing."""
        return self._name

    def __lt__(self, other: InfraObject) -> bool:
        return self.name < other.name

    @abstractmethod
    def to_infra_object_proto(self) -> Any:
        """The message `feast.core.InfraObject`."""

    @abstractmethod
    def to_proto(self) -> Any:
        """The message of this kind of thing."""

    @staticmethod
    @abstractmethod
    def from_infra_object_proto(infra_object_proto: Any) -> Any:
        """Reads `feast.core.InfraObject`, with the class it names."""
        from feast.data_source import class_at

        path = infra_object_proto.infra_object_class_type
        if not path:
            raise FeastInvalidInfraObjectType()
        return class_at(path, "an infrastructure object").from_infra_object_proto(
            infra_object_proto
        )

    @staticmethod
    def from_proto(infra_object_proto: Any) -> Any:
        """Reads the message of a kind of thing that has one of its own."""
        from feast.data_source import class_at

        paths = {
            "feast.core.DatastoreTable": DATASTORE_INFRA_OBJECT_CLASS_TYPE,
            "feast.core.SqliteTable": SQLITE_INFRA_OBJECT_CLASS_TYPE,
        }
        path = paths.get(infra_object_proto.DESCRIPTOR.full_name)
        if path is None:
            raise FeastInvalidInfraObjectType()
        return class_at(path, "an infrastructure object").from_proto(infra_object_proto)

    @abstractmethod
    def update(self) -> None:
        """Creates the thing, or brings it up to date."""

    @abstractmethod
    def teardown(self) -> None:
        """Removes the thing."""


class Infra:
    """All created things of a project."""

    def __init__(self, infra_objects: list[InfraObject] | None = None) -> None:
        self.infra_objects = infra_objects if infra_objects is not None else []

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Infra) and self.infra_objects == other.infra_objects

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return shown(self)

    def to_proto(self) -> Any:
        """The message `feast.core.Infra`."""
        from feast.protos.feast.core.InfraObject_pb2 import Infra as Message

        return Message(infra_objects=[one.to_infra_object_proto() for one in self.infra_objects])

    @classmethod
    def from_proto(cls, infra_proto: Any) -> Infra:
        """Reads `feast.core.Infra`."""
        return cls([InfraObject.from_infra_object_proto(one) for one in infra_proto.infra_objects])
