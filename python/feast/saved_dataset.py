"""Saved datasets, where they are kept, and the references that other data are checked against."""

from __future__ import annotations

from abc import abstractmethod
from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar

from feast._definition import (
    Definition,
    check_instance,
    check_text,
    checked_list,
    checked_texts,
    declared_at,
    shown,
)

if TYPE_CHECKING:
    import pandas
    import pyarrow

    from feast.data_source import DataSource
    from feast.dqm.profilers.profiler import Profile, Profiler

# Key in the JSON of a custom storage: several classes share the member of the message, and only
# this tells them apart.
CUSTOM_STORAGE_CLASS_KEY = "saved_dataset_storage_class"

_STORES = "feast.infra.offline_stores"
_LANCE = "feast.infra.data_sources.contrib.lance.lance_source.SavedDatasetLanceStorage"
_COUCHBASE = f"{_STORES}.contrib.couchbase_offline_store.couchbase_source.SavedDatasetCouchbaseColumnarStorage"
_KNOWN_STORAGES = {
    "file_storage": f"{_STORES}.file_source.SavedDatasetFileStorage",
    "bigquery_storage": f"{_STORES}.bigquery_source.SavedDatasetBigQueryStorage",
    "redshift_storage": f"{_STORES}.redshift_source.SavedDatasetRedshiftStorage",
    "snowflake_storage": f"{_STORES}.snowflake_source.SavedDatasetSnowflakeStorage",
    "trino_storage": f"{_STORES}.contrib.trino_offline_store.trino_source.SavedDatasetTrinoStorage",
    "spark_storage": f"{_STORES}.contrib.spark_offline_store.spark_source.SavedDatasetSparkStorage",
    "athena_storage": f"{_STORES}.contrib.athena_offline_store.athena_source.SavedDatasetAthenaStorage",
}
_STORAGE_OF_SOURCE = {
    "FileSource": _KNOWN_STORAGES["file_storage"],
    "SparkSource": _KNOWN_STORAGES["spark_storage"],
    "LanceSource": _LANCE,
}


def get_saved_dataset_storage_class_from_path(saved_dataset_storage_path: str) -> Any:
    """The storage class at an import path."""
    from feast.data_source import class_at

    return class_at(saved_dataset_storage_path, "a saved dataset")


class SavedDatasetStorage:
    """Where a saved dataset is kept: a file or a table."""

    _proto_attr_name: ClassVar[str]

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and vars(self) == vars(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({vars(self).get('_options', '')})"

    @staticmethod
    def from_proto(storage_proto: Any) -> SavedDatasetStorage:
        """Reads `feast.core.SavedDatasetStorage`, whatever its kind."""
        kind = storage_proto.WhichOneof("kind")
        if kind is None:
            raise ValueError("a saved dataset in the registry does not say where it is kept")
        path = _KNOWN_STORAGES.get(kind) or _custom_class(storage_proto.custom_storage)
        return get_saved_dataset_storage_class_from_path(path).from_proto(storage_proto)

    @abstractmethod
    def to_proto(self) -> Any:
        """The message `feast.core.SavedDatasetStorage`."""
        raise NotImplementedError

    @abstractmethod
    def to_data_source(self) -> DataSource:
        """The source that reads the saved rows."""
        raise NotImplementedError

    @staticmethod
    def from_data_source(data_source: DataSource) -> SavedDatasetStorage:
        """The storage at the place a source reads from."""
        path = _STORAGE_OF_SOURCE.get(type(data_source).__name__)
        if path is None:
            known = ", ".join(sorted(_STORAGE_OF_SOURCE))
            raise ValueError(
                f"a saved dataset cannot be kept where a {type(data_source).__name__} reads; "
                f"possible are {known}"
            )
        return get_saved_dataset_storage_class_from_path(path).from_data_source(data_source)

    def _custom_storage_proto(self, options_proto: Any) -> Any:
        """The message of a storage with JSON options, which also records its class."""
        import json

        from feast.protos.feast.core.SavedDataset_pb2 import SavedDatasetStorage as Message

        values = json.loads(options_proto.configuration)
        values[CUSTOM_STORAGE_CLASS_KEY] = f"{type(self).__module__}.{type(self).__qualname__}"
        message = Message()
        message.custom_storage.configuration = json.dumps(values).encode()
        return message


def _custom_class(options: Any) -> str:
    """The path of the class that wrote a custom storage."""
    import json

    try:
        values = json.loads(options.configuration)
    except ValueError:
        values = {}
    if isinstance(values, dict):
        if values.get(CUSTOM_STORAGE_CLASS_KEY):
            return str(values[CUSTOM_STORAGE_CLASS_KEY])
        # Older messages do not name their class; these two can be told by their keys.
        if "collection" in values:
            return _COUCHBASE
        if "table_format" in values:
            return _LANCE
    raise ValueError(
        "a saved dataset in the registry has a custom storage that does not name its class "
        f"(key `{CUSTOM_STORAGE_CLASS_KEY}`); call `from_proto` of the right class yourself"
    )


class SavedDataset(Definition):
    """A retrieved dataset that was kept, and how it was asked for.

    Get one from `FeatureStore.create_saved_dataset` or `FeatureStore.get_saved_dataset`: those can
    also read the rows.
    """

    _compared = (
        "name",
        "_sorted_features",
        "_sorted_join_keys",
        "storage",
        "full_feature_names",
        "tags",
        "feature_service_name",
        "namespace",
        "collection",
        "description",
    )

    created_timestamp: datetime | None = None
    last_updated_timestamp: datetime | None = None
    min_event_timestamp: datetime | None = None
    max_event_timestamp: datetime | None = None

    def __init__(
        self,
        name: str,
        features: list[str],
        join_keys: list[str],
        storage: SavedDatasetStorage,
        full_feature_names: bool = False,
        tags: dict[str, str] | None = None,
        feature_service_name: str | None = None,
        namespace: str = "",
        collection: str = "",
        description: str = "",
    ) -> None:
        check_text("a saved dataset", "name", name)
        where = f"saved dataset `{name}`"
        self._declared_at = declared_at()
        self.name = name
        self.features = checked_list(where, "features", features, str, '"view:feature"')
        self.join_keys = checked_list(where, "join_keys", join_keys, str, '"driver_id"')
        example = 'SavedDatasetFileStorage(path="data/set.parquet")'
        check_instance(where, "storage", storage, SavedDatasetStorage, example)
        self.storage = storage
        self.full_feature_names = full_feature_names
        self.tags = checked_texts(where, "tags", tags)
        self.feature_service_name = feature_service_name
        self.namespace = namespace
        self.collection = collection
        self.description = description
        self._columns: list[Any] = []
        self._retrieval_job: Any = None

    def __hash__(self) -> int:
        return hash(self.name)

    @property
    def _sorted_features(self) -> list[str]:
        return sorted(self.features)

    @property
    def _sorted_join_keys(self) -> list[str]:
        return sorted(self.join_keys)

    _TIMES = (
        "created_timestamp",
        "last_updated_timestamp",
        "min_event_timestamp",
        "max_event_timestamp",
    )

    def to_proto(self) -> Any:
        """The message `feast.core.SavedDataset`."""
        from feast._wire import write_times
        from feast.protos.feast.core import SavedDataset_pb2 as messages

        spec = messages.SavedDatasetSpec(
            name=self.name,
            features=self.features,
            join_keys=self.join_keys,
            full_feature_names=self.full_feature_names,
            storage=self.storage.to_proto(),
            tags=self.tags,
            feature_service_name=self.feature_service_name or "",
            namespace=self.namespace,
            collection=self.collection,
            description=self.description,
            columns=self._columns,
        )
        meta = write_times(messages.SavedDatasetMeta(), self, self._TIMES)
        return messages.SavedDataset(spec=spec, meta=meta)

    @staticmethod
    def from_proto(saved_dataset_proto: Any) -> SavedDataset:
        """Reads `feast.core.SavedDataset`."""
        from feast._wire import read_times

        spec = saved_dataset_proto.spec
        dataset = SavedDataset(
            name=spec.name,
            features=list(spec.features),
            join_keys=list(spec.join_keys),
            storage=SavedDatasetStorage.from_proto(spec.storage),
            full_feature_names=spec.full_feature_names,
            tags=dict(spec.tags),
            feature_service_name=spec.feature_service_name or None,
            namespace=spec.namespace,
            collection=spec.collection,
            description=spec.description,
        )
        dataset._columns = list(spec.columns)
        read_times(saved_dataset_proto.meta, dataset, SavedDataset._TIMES)
        return dataset

    def with_retrieval_job(self, retrieval_job: Any) -> SavedDataset:
        """Gives the dataset the means to read its rows; returns itself."""
        self._retrieval_job = retrieval_job
        return self

    def _job(self) -> Any:
        if self._retrieval_job is None:
            raise RuntimeError(
                f"saved dataset `{self.name}` was only declared; get it with "
                f'`store.get_saved_dataset("{self.name}")` to read its rows'
            )
        return self._retrieval_job

    def to_df(self) -> pandas.DataFrame:
        """The rows as a pandas frame."""
        return self._job().to_df()

    def to_arrow(self) -> pyarrow.Table:
        """The rows as an Arrow table."""
        return self._job().to_arrow()

    def as_reference(self, name: str, profiler: Profiler) -> ValidationReference:
        """A reference that other data can be checked against."""
        return ValidationReference.from_saved_dataset(name=name, profiler=profiler, dataset=self)

    def get_profile(self, profiler: Profiler) -> Profile:
        """What a profiler says about the rows."""
        return profiler.analyze_dataset(self.to_df())


class ValidationReference(Definition):
    """A saved dataset and a profiler: together the rules that other data must meet."""

    _compared = ("name", "dataset_name", "description", "tags", "profiler")

    def __init__(
        self,
        name: str,
        dataset_name: str,
        profiler: Profiler | None = None,
        description: str = "",
        tags: dict[str, str] | None = None,
    ) -> None:
        check_text("a validation reference", "name", name)
        where = f"validation reference `{name}`"
        check_text(where, "dataset_name", dataset_name)
        self._declared_at = declared_at()
        self.name = name
        self.dataset_name = dataset_name
        self.profiler = profiler
        self.description = description
        self.tags = checked_texts(where, "tags", tags)
        self._profile: Profile | None = None
        self._dataset: SavedDataset | None = None

    def __hash__(self) -> int:
        return hash(self.name)

    def __repr__(self) -> str:
        return shown(self)

    @classmethod
    def from_saved_dataset(
        cls, name: str, dataset: SavedDataset, profiler: Profiler
    ) -> ValidationReference:
        """A reference that can compute its profile from the dataset."""
        reference = cls(name, dataset.name, profiler)
        reference._dataset = dataset
        return reference

    @property
    def profile(self) -> Profile:
        """The rules: computed from the dataset once, then kept."""
        if self._profile is None:
            if self._dataset is None or self.profiler is None:
                lacking = "dataset" if self._dataset is None else "profiler"
                raise RuntimeError(
                    f"validation reference `{self.name}` has no {lacking} to compute its rules "
                    "from; make it with `ValidationReference.from_saved_dataset`"
                )
            self._profile = self.profiler.analyze_dataset(self._dataset.to_df())
        return self._profile

    def to_proto(self) -> Any:
        """The message `feast.core.ValidationReference`."""
        from feast.protos.feast.core.ValidationProfile_pb2 import ValidationReference as Message

        message = Message(
            name=self.name,
            reference_dataset_name=self.dataset_name,
            description=self.description,
            tags=self.tags,
        )
        if self.profiler is not None:
            message.ge_profiler.CopyFrom(self.profiler.to_proto())
        if self._profile is not None:
            message.ge_profile.CopyFrom(self._profile.to_proto())
        return message

    @classmethod
    def from_proto(cls, proto: Any, skip_udf: bool = False) -> ValidationReference:
        """Reads `feast.core.ValidationReference`; `skip_udf` leaves profiler and rules aside."""
        reference = cls(
            name=proto.name,
            dataset_name=proto.reference_dataset_name,
            description=proto.description,
            tags=dict(proto.tags),
        )
        if not skip_udf:
            from feast.dqm.profilers.ge_profiler import GEProfile, GEProfiler

            if proto.HasField("ge_profiler"):
                reference.profiler = GEProfiler.from_proto(proto.ge_profiler)
            if proto.HasField("ge_profile"):
                reference._profile = GEProfile.from_proto(proto.ge_profile)
        return reference
