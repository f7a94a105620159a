"""Logging of served features: which share of the requests, and where to."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

from feast._definition import check_instance, shown

if TYPE_CHECKING:
    import pyarrow

    from feast.data_source import DataSource
    from feast.feature_service import FeatureService

REQUEST_ID_FIELD = "__request_id"
LOG_TIMESTAMP_FIELD = "__log_timestamp"
LOG_DATE_FIELD = "__log_date"

_STORES = "feast.infra.offline_stores"

# Where the class for each member of the message is, so that reading a registry imports no more
# than it needs.
_KNOWN_DESTINATIONS = {
    "file_destination": f"{_STORES}.file_source",
    "bigquery_destination": f"{_STORES}.bigquery_source",
    "redshift_destination": f"{_STORES}.redshift_source",
    "snowflake_destination": f"{_STORES}.snowflake_source",
    "athena_destination": f"{_STORES}.contrib.athena_offline_store.athena_source",
    "couchbase_columnar_destination": f"{_STORES}.contrib.couchbase_offline_store.couchbase_source",
}
_DESTINATIONS: dict[str, type[LoggingDestination]] = {}


class LoggingDestination:
    """A place for logs. A destination of your own sets `_proto_kind` and writes it as `kind`."""

    _proto_kind: ClassVar[str]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "_proto_kind" in vars(cls):
            _DESTINATIONS[cls._proto_kind] = cls

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and vars(self) == vars(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return shown(self)

    @classmethod
    @abstractmethod
    def from_proto(cls, config_proto: Any) -> LoggingDestination:
        """Reads `feast.core.LoggingConfig`."""
        raise NotImplementedError

    @abstractmethod
    def to_proto(self) -> Any:
        """The message `feast.core.LoggingConfig`, without a sample rate."""
        raise NotImplementedError

    @abstractmethod
    def to_data_source(self) -> DataSource:
        """The source that reads the log."""
        raise NotImplementedError


class LoggingConfig:
    """Logs a share of the requests (1.0: all of them) to a destination."""

    def __init__(self, destination: LoggingDestination, sample_rate: float = 1.0) -> None:
        example = 'FileLoggingDestination(path="data/logs")'
        check_instance("LoggingConfig", "destination", destination, LoggingDestination, example)
        if not 0 <= sample_rate <= 1:
            raise ValueError(
                f"LoggingConfig: `sample_rate` is {sample_rate}, but must be between 0 and 1"
            )
        self.destination = destination
        self.sample_rate = sample_rate

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LoggingConfig) and vars(self) == vars(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return shown(self)

    def to_proto(self) -> Any:
        """The message `feast.core.LoggingConfig`."""
        message = self.destination.to_proto()
        message.sample_rate = self.sample_rate
        return message

    @classmethod
    def from_proto(cls, config_proto: Any) -> LoggingConfig | None:
        """Reads `feast.core.LoggingConfig`; nothing if it names no destination."""
        import importlib

        kind = config_proto.WhichOneof("destination")
        if kind is None:
            return None
        if kind == "custom_destination":
            kind = config_proto.custom_destination.kind
        if kind not in _DESTINATIONS and kind in _KNOWN_DESTINATIONS:
            importlib.import_module(_KNOWN_DESTINATIONS[kind])
        if kind not in _DESTINATIONS:
            raise ValueError(
                f"no logging destination is called `{kind}`; import the module that defines it"
            )
        destination = _DESTINATIONS[kind].from_proto(config_proto)
        return cls(destination=destination, sample_rate=config_proto.sample_rate)


class LoggingSource:
    """What is logged: the columns, and which of them says when."""

    @abstractmethod
    def get_schema(self, registry: Any) -> pyarrow.Schema:
        """The Arrow columns of the log."""
        raise NotImplementedError

    @abstractmethod
    def get_log_timestamp_column(self) -> str:
        """The column with the time of the request."""
        raise NotImplementedError


class FeatureServiceLoggingSource(LoggingSource):
    """The log of a feature service: join keys, request data, features, their times and statuses."""

    def __init__(self, feature_service: FeatureService, project: str) -> None:
        self._feature_service = feature_service
        self._project = project

    def get_schema(self, registry: Any) -> pyarrow.Schema:
        """The Arrow columns of the log; views are looked up in the registry."""
        import pyarrow

        from feast.feature_view import DUMMY_ENTITY_ID
        from feast.types import from_feast_to_pyarrow_type as arrow_type

        columns: dict[str, pyarrow.DataType] = {}
        for projection in self._feature_service.feature_view_projections:
            view = registry.get_any_feature_view(projection.name, self._project)
            requests = getattr(view, "source_request_sources", None)
            if requests is not None:
                for source in requests.values():
                    columns.update({one.name: arrow_type(one.dtype) for one in source.schema})
            else:
                for key in view.entity_columns:
                    if key.name != DUMMY_ENTITY_ID:
                        name = projection.join_key_map.get(key.name, key.name)
                        columns[name] = arrow_type(key.dtype)
            for feature in projection.features:
                name = f"{projection.name_to_use()}__{feature.name}"
                columns[name] = arrow_type(feature.dtype)
                columns[f"{name}__timestamp"] = pyarrow.timestamp("s", tz="UTC")
                columns[f"{name}__status"] = pyarrow.int32()
        columns[LOG_TIMESTAMP_FIELD] = pyarrow.timestamp("us", tz="UTC")
        columns[LOG_DATE_FIELD] = pyarrow.date32()
        columns[REQUEST_ID_FIELD] = pyarrow.string()
        return pyarrow.schema(list(columns.items()))

    def get_log_timestamp_column(self) -> str:
        """The column with the time of the request."""
        return LOG_TIMESTAMP_FIELD
