"""The configuration of a feature store, as `feature_store.yaml` says it or as Python builds it.

Values are checked when a `FeatureStore` is made from the configuration; here they are only put into shape.
"""

from __future__ import annotations

import importlib
import json
import os
from pathlib import Path
from typing import Any

from feast import errors
from feast._own_class import importable
from feast._settings import FeastConfigError, Settings, did_you_mean, mask_secrets, plain

__all__ = ["FeastConfigError", "RegistryConfig", "RepoConfig", "load_repo_config"]

_ONLINE = "feast.infra.online_stores."
_OFFLINE = "feast.infra.offline_stores."
_CONTRIB = "feast.infra.offline_stores.contrib."
_ENGINES = "feast.infra.compute_engines."

# The settings of `<module>.<Class>` are the class `<module>.<Class>Config`.
REGISTRY_CLASS_FOR_TYPE = {
    "file": "feast.infra.registry.registry.Registry",
    "sql": "feast.infra.registry.sql.SqlRegistry",
    "snowflake.registry": "feast.infra.registry.snowflake.SnowflakeRegistry",
    "remote": "feast.infra.registry.remote.RemoteRegistry",
}
BATCH_ENGINE_CLASS_FOR_TYPE = {
    "local": _ENGINES + "local.compute.LocalComputeEngine",
    "snowflake.engine": _ENGINES + "snowflake.snowflake_engine.SnowflakeComputeEngine",
    "lambda": _ENGINES + "aws_lambda.lambda_engine.LambdaComputeEngine",
    "k8s": _ENGINES + "kubernetes.k8s_engine.KubernetesComputeEngine",
    "spark.engine": _ENGINES + "spark.compute.SparkComputeEngine",
    "ray.engine": _ENGINES + "ray.compute.RayComputeEngine",
    "flink.engine": _ENGINES + "flink.compute.FlinkComputeEngine",
    "spark_application": _ENGINES + "spark_application.compute.SparkApplicationComputeEngine",
    "trino.engine": _ENGINES + "trino.compute.TrinoComputeEngine",
    "trino": _ENGINES + "trino.compute.TrinoComputeEngine",
}
ONLINE_STORE_CLASS_FOR_TYPE = {
    "aerospike": _ONLINE + "aerospike_online_store.AerospikeOnlineStore",
    "sqlite": _ONLINE + "sqlite.SqliteOnlineStore",
    "datastore": _ONLINE + "datastore.DatastoreOnlineStore",
    "redis": _ONLINE + "redis.RedisOnlineStore",
    "dynamodb": _ONLINE + "dynamodb.DynamoDBOnlineStore",
    "snowflake.online": _ONLINE + "snowflake.SnowflakeOnlineStore",
    "bigtable": _ONLINE + "bigtable.BigtableOnlineStore",
    "postgres": _ONLINE + "postgres_online_store.postgres.PostgreSQLOnlineStore",
    "hbase": _ONLINE + "hbase_online_store.hbase.HbaseOnlineStore",
    "cassandra": _ONLINE + "cassandra_online_store.cassandra_online_store.CassandraOnlineStore",
    "scylladb": _ONLINE + "scylladb_online_store.scylladb.ScyllaDBOnlineStore",
    "mysql": _ONLINE + "mysql_online_store.mysql.MySQLOnlineStore",
    "hazelcast": _ONLINE + "hazelcast_online_store.hazelcast_online_store.HazelcastOnlineStore",
    "elasticsearch": _ONLINE + "elasticsearch_online_store.elasticsearch.ElasticSearchOnlineStore",
    "remote": _ONLINE + "remote.RemoteOnlineStore",
    "singlestore": _ONLINE + "singlestore_online_store.singlestore.SingleStoreOnlineStore",
    "qdrant": _ONLINE + "qdrant_online_store.qdrant.QdrantOnlineStore",
    "couchbase.online": _ONLINE + "couchbase_online_store.couchbase.CouchbaseOnlineStore",
    "milvus": _ONLINE + "milvus_online_store.milvus.MilvusOnlineStore",
    "mongodb": _ONLINE + "mongodb_online_store.MongoDBOnlineStore",
    "hybrid": _ONLINE + "hybrid_online_store.hybrid_online_store.HybridOnlineStore",
    "chronon": _ONLINE + "chronon_online_store.chronon.ChrononOnlineStore",
}
LEGACY_ONLINE_STORE_CLASS_FOR_TYPE = {
    _ONLINE + "contrib.postgres.PostgreSQLOnlineStore": ONLINE_STORE_CLASS_FOR_TYPE["postgres"],
    _ONLINE + "contrib.hbase_online_store.hbase.HbaseOnlineStore": ONLINE_STORE_CLASS_FOR_TYPE[
        "hbase"
    ],
    _ONLINE
    + "contrib.cassandra_online_store.cassandra_online_store.CassandraOnlineStore": ONLINE_STORE_CLASS_FOR_TYPE[
        "cassandra"
    ],
    _ONLINE + "contrib.mysql_online_store.mysql.MySQLOnlineStore": ONLINE_STORE_CLASS_FOR_TYPE[
        "mysql"
    ],
    _ONLINE
    + "contrib.hazelcast_online_store.hazelcast_online_store.HazelcastOnlineStore": ONLINE_STORE_CLASS_FOR_TYPE[
        "hazelcast"
    ],
    _ONLINE + "contrib.elasticsearch.ElasticSearchOnlineStore": ONLINE_STORE_CLASS_FOR_TYPE[
        "elasticsearch"
    ],
    _ONLINE
    + "contrib.singlestore_online_store.singlestore.SingleStoreOnlineStore": ONLINE_STORE_CLASS_FOR_TYPE[
        "singlestore"
    ],
    _ONLINE + "contrib.qdrant.QdrantOnlineStore": ONLINE_STORE_CLASS_FOR_TYPE["qdrant"],
    _ONLINE + "contrib.milvus.MilvusOnlineStore": ONLINE_STORE_CLASS_FOR_TYPE["milvus"],
}
ONLINE_STORE_CLASS_FOR_TYPE |= LEGACY_ONLINE_STORE_CLASS_FOR_TYPE
OFFLINE_STORE_CLASS_FOR_TYPE = {
    "file": _OFFLINE + "dask.DaskOfflineStore",
    "dask": _OFFLINE + "dask.DaskOfflineStore",
    "bigquery": _OFFLINE + "bigquery.BigQueryOfflineStore",
    "redshift": _OFFLINE + "redshift.RedshiftOfflineStore",
    "snowflake.offline": _OFFLINE + "snowflake.SnowflakeOfflineStore",
    "spark": _CONTRIB + "spark_offline_store.spark.SparkOfflineStore",
    "trino": _CONTRIB + "trino_offline_store.trino.TrinoOfflineStore",
    "postgres": _CONTRIB + "postgres_offline_store.postgres.PostgreSQLOfflineStore",
    "athena": _CONTRIB + "athena_offline_store.athena.AthenaOfflineStore",
    "mssql": _CONTRIB + "mssql_offline_store.mssql.MsSqlServerOfflineStore",
    "duckdb": _OFFLINE + "duckdb.DuckDBOfflineStore",
    "remote": _OFFLINE + "remote.RemoteOfflineStore",
    "couchbase.offline": _CONTRIB
    + "couchbase_offline_store.couchbase.CouchbaseColumnarOfflineStore",
    "clickhouse": _CONTRIB + "clickhouse_offline_store.clickhouse.ClickhouseOfflineStore",
    "ray": _CONTRIB + "ray_offline_store.ray.RayOfflineStore",
    "oracle": _CONTRIB + "oracle_offline_store.oracle.OracleOfflineStore",
    "chronon": _CONTRIB + "chronon_offline_store.chronon.ChrononOfflineStore",
    "hybrid": _OFFLINE + "hybrid_offline_store.HybridOfflineStore",
}
FEATURE_SERVER_CONFIG_CLASS_FOR_TYPE = {
    "local": "feast.infra.feature_servers.local_process.config.LocalFeatureServerConfig",
    "mcp": "feast.infra.mcp_servers.mcp_config.McpFeatureServerConfig",
}
ALLOWED_AUTH_TYPES = ["no_auth", "kubernetes", "oidc"]
AUTH_CONFIGS_CLASS_FOR_TYPE = {
    "no_auth": "feast.permissions.auth_model.NoAuthConfig",
    "kubernetes": "feast.permissions.auth_model.KubernetesAuthConfig",
    "oidc": "feast.permissions.auth_model.OidcAuthConfig",
    "oidc_client": "feast.permissions.auth_model.OidcClientAuthConfig",
}
_OIDC_CLIENT_KEYS = {"client_secret", "token", "token_env_var", "username", "password"}


class FeastConfigBaseModel(Settings):
    """Base class for the settings of a team's own store: keys that it does not declare are refused."""


class FeastBaseModel(Settings, extra="allow"):
    """Base class for settings that take keys they do not declare."""


class McpRegistryConfig(FeastBaseModel):
    """MCP endpoints on the registry's REST server."""

    enabled: bool = False


class RegistryConfig(FeastBaseModel):
    """Where the registry rests and how long a copy of it may be used."""

    registry_type: str = "file"
    registry_store_type: str | None = None
    path: str = ""
    cache_ttl_seconds: int = 600  # 0: until refreshed by hand
    cache_mode: str = "sync"  # or "thread": refreshed in the background
    s3_additional_kwargs: dict[str, str] | None = None
    purge_feast_metadata: bool = False
    enable_online_feature_view_versioning: bool = False
    serve_features_while_materializing: bool = False
    mcp: McpRegistryConfig | None = None


class MaterializationConfig(FeastConfigBaseModel):
    """How rows travel from the offline to the online store."""

    pull_latest_features: bool = False
    online_write_batch_size: int | None = None


class DataQualityMonitoringConfig(FeastConfigBaseModel):
    """Monitoring of the data's distribution."""

    auto_baseline: bool = True


class OpenLineageConsumerConfig(FeastBaseModel):
    """The receiving end of lineage events."""

    enabled: bool = False
    store_type: str = "sql"
    connection_string: str | None = None
    api_key: str | None = None
    namespace_mapping: dict[str, str] | None = None
    retention_days: int = 30
    retention_check_interval_hours: int = 6
    standalone_server: bool = False


class OpenLineageConfig(FeastBaseModel):
    """The sending end of lineage events."""

    enabled: bool = False
    transport_type: str | None = None
    transport_url: str | None = None
    transport_endpoint: str = "api/v1/lineage"
    api_key: str | None = None
    namespace: str = "feast"
    producer: str = "feast"
    emit_on_apply: bool = True
    emit_on_materialize: bool = True
    consumer: OpenLineageConsumerConfig | None = None


class EmbeddingModelConfig(FeastConfigBaseModel):
    """The model that turns a query's text into a vector."""

    provider: str = "sentence_transformers"
    model: str


# Key of feature_store.yaml -> attribute that holds what was given for it.
_SECTIONS = {
    "registry": "registry_config",
    "online_store": "online_config",
    "offline_store": "offline_config",
    "batch_engine": "batch_engine_config",
    "materialization": "materialization_config",
    "openlineage": "openlineage_config",
    "mlflow": "mlflow_config",
    "data_quality_monitoring": "data_quality_monitoring_config",
}
_DEFAULTS: dict[str, Any] = {
    "project_description": None,
    "provider": "local",
    "online_config": "sqlite",
    "offline_config": "dask",
    "batch_engine_config": "local",
    "auth": None,
    "feature_server": None,
    "embedding_model": None,
    "flags": None,
    "repo_path": None,
    "entity_key_serialization_version": 3,
    "coerce_tz_aware": True,
    "materialization_config": None,
    "openlineage_config": None,
    "mlflow_config": None,
    "data_quality_monitoring_config": None,
}
_SCALARS = (
    "project",
    "project_description",
    "provider",
    "auth",
    "feature_server",
    "embedding_model",
    "flags",
    "entity_key_serialization_version",
    "coerce_tz_aware",
)


class RepoConfig:
    """What a feature store is made of: project, registry, stores, engine, server.

    Takes the keys of `feature_store.yaml` as keyword arguments. A store is given by its type's name
    (`online_store="redis"`), by a mapping, or by its settings class (`RedisOnlineStoreConfig(...)`). The finished
    settings are the attributes `registry`, `online_store`, `offline_store`, `batch_engine` and `auth_config`.
    """

    def __init__(self, **data: Any) -> None:
        for key, attribute in _SECTIONS.items():
            if key in data:
                data[attribute] = data.pop(key)
        if "registry_config" not in data:
            raise errors.FeastRegistryNotSetError()
        if "project" not in data:
            raise FeastConfigError(
                'a configuration needs a `project`: its name, such as `project="my_project"`'
            )
        online = data.get("online_config")
        if isinstance(online, str) and online.lower() in ("none", "null"):
            data["online_config"] = None
        vars(self).clear()
        vars(self).update({"_given": set(data), **_DEFAULTS, **data})
        self._registry = _registry_settings(self.registry_config)
        self._online_store = _settings(self.online_config, "sqlite", get_online_config_from_type)
        self._offline_store = _settings(self.offline_config, "dask", get_offline_config_from_type)
        self._batch_engine = _settings(
            self.batch_engine_config, "local", get_batch_engine_config_from_type
        )
        self._auth_config = _auth_settings(self.auth)
        self.feature_server = _settings(
            self.feature_server, "local", get_feature_server_config_from_type
        )
        self.materialization_config = (
            _section(self.materialization_config, MaterializationConfig) or MaterializationConfig()
        )
        self.openlineage_config = _section(self.openlineage_config, OpenLineageConfig)
        self.data_quality_monitoring_config = _section(
            self.data_quality_monitoring_config, DataQualityMonitoringConfig
        )
        self.embedding_model = _section(self.embedding_model, EmbeddingModelConfig)
        if isinstance(self.repo_path, str):
            self.repo_path = Path(self.repo_path)
        self._ready = True

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _SECTIONS:  # a finished section replaced as a whole
            self.__init__(**(self.to_dict() | {"repo_path": self.repo_path, name: value}))  # type: ignore[misc]
            return
        object.__setattr__(self, name, value)
        if not name.startswith("_") and "_ready" in vars(self):
            self._given.add(name)

    @property
    def registry(self) -> Any:
        """Settings of the registry."""
        return self._registry

    @property
    def online_store(self) -> Any:
        """Settings of the online store; None when there is none."""
        return self._online_store

    @property
    def offline_store(self) -> Any:
        """Settings of the offline store."""
        return self._offline_store

    @property
    def batch_engine(self) -> Any:
        """Settings of the compute engine."""
        return self._batch_engine

    @property
    def auth_config(self) -> Any:
        """Settings of authentication."""
        return self._auth_config

    @property
    def materialization(self) -> MaterializationConfig:
        """Settings of materialization."""
        return self.materialization_config

    @property
    def openlineage(self) -> OpenLineageConfig | None:
        """Settings of the OpenLineage integration."""
        return self.openlineage_config

    @property
    def mlflow(self) -> Any:
        """Settings of the MLflow integration."""
        if isinstance(self.mlflow_config, dict):
            from feast.mlflow_integration.config import MlflowConfig

            object.__setattr__(self, "mlflow_config", MlflowConfig.from_mapping(self.mlflow_config))
        return self.mlflow_config

    @property
    def data_quality_monitoring(self) -> DataQualityMonitoringConfig | None:
        """Settings of data quality monitoring."""
        return self.data_quality_monitoring_config

    def to_dict(self) -> dict[str, Any]:
        """What was given, in the keys of `feature_store.yaml`; what was left at its default is left out."""
        result = {}
        for key in _SCALARS:
            if key in self._given:
                result[key] = plain(getattr(self, key))
        for key, attribute in _SECTIONS.items():
            if attribute in self._given:
                finished = getattr(self, key)
                simple = isinstance(getattr(self, attribute), str) and key == "registry"
                result[key] = plain(
                    finished.path if simple and finished.model_fields_set == {"path"} else finished
                )
        known = {*_SCALARS, *_SECTIONS.values(), "repo_path"}
        for key in vars(self):
            if key in self._given and key not in known:
                result[key] = plain(getattr(self, key))
        return result

    def to_yaml(self) -> str:
        """The text of a `feature_store.yaml` that says the same. It contains the secrets that were given."""
        return "".join(_yaml_lines(self.to_dict(), ""))

    def write_to_path(self, repo_path: Path) -> None:
        """Writes `feature_store.yaml` into a repository."""
        (Path(repo_path) / "feature_store.yaml").write_text(self.to_yaml())

    def model_dump(self, **_: Any) -> dict[str, Any]:
        """The same as `to_dict()`."""
        return self.to_dict()

    dict = model_dump

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, RepoConfig):
            return NotImplemented
        return self.to_dict() == other.to_dict() and self.repo_path == other.repo_path

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        values = ", ".join(
            f"{key}={mask_secrets(key, value)!r}" for key, value in self.to_dict().items()
        )
        return f"RepoConfig({values})"


def load_repo_config(repo_path: Path, fs_yaml_file: Path) -> RepoConfig:
    """Reads and checks a `feature_store.yaml`."""
    from feast import _feast

    text = _read_yaml(fs_yaml_file)
    try:
        store = _feast.Store(text, str(repo_path))
        return _effective(store, Path(repo_path))
    except FeastConfigError as error:
        raise FeastConfigError(error._error_message, fs_yaml_file) from None


def _effective(store: Any, repo_path: Path) -> RepoConfig:
    """The configuration that a native store has read."""
    # Settings of classes of the user's own may lie in the repository.
    with importable(str(repo_path)):
        config = RepoConfig(**json.loads(store.config_json()))
    config.repo_path = repo_path
    return config


def _read_yaml(path: Path) -> str:
    """The file's text; the engine fills in environment variables."""
    try:
        return Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise FileNotFoundError(
            f"there is no feature store configuration at `{path}`: "
            "pass `repo_path=` of a directory with a `feature_store.yaml`, or make one with `feast init`"
        ) from None
    except UnicodeDecodeError:
        raise FeastConfigError("the file is not UTF-8 text; save it as UTF-8", path) from None
    except OSError as error:
        raise FeastConfigError(
            f"the file cannot be read: {error.strerror}; it has to be a file that this user may read",
            path,
        ) from None


def _settings(given: Any, default: str, class_for_type: Any) -> Any:
    """Finishes a section given as a type's name, a mapping or settings."""
    if given is None or not isinstance(given, (str, dict)):
        return given
    if isinstance(given, str):
        given = {"type": given}
    kind = given.get("type", default)
    if not isinstance(kind, str):
        raise FeastConfigError(f"`type` is {kind!r}, expected a name such as `{default}`")
    return class_for_type(kind).from_mapping({"type": kind, **given})


def _registry_settings(given: Any) -> Any:
    if isinstance(given, (str, os.PathLike)):
        return RegistryConfig(path=str(given))
    if isinstance(given, dict):
        return get_registry_config_from_type(given.get("registry_type", "file")).from_mapping(given)
    if given is None:
        raise errors.FeastRegistryNotSetError()
    return given


def _auth_settings(given: Any) -> Any:
    if isinstance(given, str):
        given = {"type": given}
    if given is None:
        given = {"type": "no_auth"}
    if not isinstance(given, dict):
        return given
    kind = given.get("type")
    if kind not in ALLOWED_AUTH_TYPES:
        found = f"`{kind}`{did_you_mean(str(kind), ALLOWED_AUTH_TYPES)}" if kind else "missing"
        valid = ", ".join(f"`{name}`" for name in ALLOWED_AUTH_TYPES)
        raise FeastConfigError(f"the `type` of `auth` is {found}; it is one of {valid}")
    if kind == "oidc" and (_OIDC_CLIENT_KEYS & given.keys() or "auth_discovery_url" not in given):
        kind = "oidc_client"
    return get_auth_config_from_type(kind).from_mapping(given)


def _section(given: Any, settings: type[Settings]) -> Any:
    return settings.from_mapping(given) if isinstance(given, dict) else given


def _import_settings(path: str) -> Any:
    """The settings class at a dotted path; a store of the user's own that has none gets one that takes any key."""
    module_name, _, class_name = path.rpartition(".")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        if module_name.startswith("feast."):
            return FeastBaseModel
        raise errors.FeastModuleImportError(module_name, class_name) from error
    return getattr(module, class_name, FeastBaseModel)


def get_registry_config_from_type(registry_type: str) -> Any:
    """The settings class of a type of registry."""
    if registry_type not in REGISTRY_CLASS_FOR_TYPE:
        raise errors.FeastRegistryTypeInvalidError(registry_type)
    return _import_settings(REGISTRY_CLASS_FOR_TYPE[registry_type] + "Config")


def get_batch_engine_config_from_type(batch_engine_type: str) -> Any:
    """The settings class of a type of compute engine."""
    path = BATCH_ENGINE_CLASS_FOR_TYPE.get(batch_engine_type, batch_engine_type)
    if not path.endswith("Engine") or "." not in path:
        names = list(BATCH_ENGINE_CLASS_FOR_TYPE)
        raise FeastConfigError(
            f"there is no compute engine `{batch_engine_type}`{did_you_mean(batch_engine_type, names)}; "
            f"`batch_engine` is one of {', '.join(f'`{name}`' for name in names)}, or the path of a class ending in `Engine`"
        )
    return _import_settings(path + "Config")


def get_online_config_from_type(online_store_type: str) -> Any:
    """The settings class of a type of online store."""
    path = ONLINE_STORE_CLASS_FOR_TYPE.get(online_store_type, online_store_type)
    if not path.endswith("OnlineStore") or "." not in path:
        raise errors.FeastOnlineStoreInvalidName(online_store_type)
    return _import_settings(path + "Config")


def get_offline_store_type(offline_store_type: str) -> str:
    """The class path of a type of offline store."""
    path = OFFLINE_STORE_CLASS_FOR_TYPE.get(offline_store_type, offline_store_type)
    if not path.endswith("OfflineStore") or "." not in path:
        raise errors.FeastOfflineStoreInvalidName(offline_store_type)
    return path


def get_offline_config_from_type(offline_store_type: str) -> Any:
    """The settings class of a type of offline store."""
    return _import_settings(get_offline_store_type(offline_store_type) + "Config")


def get_auth_config_from_type(auth_config_type: str) -> Any:
    """The settings class of a type of authentication."""
    path = AUTH_CONFIGS_CLASS_FOR_TYPE.get(auth_config_type, auth_config_type)
    if not path.endswith("AuthConfig") or "." not in path:
        raise errors.FeastInvalidAuthConfigClass(auth_config_type)
    return _import_settings(path)


def get_feature_server_config_from_type(feature_server_type: str) -> Any:
    """The settings class of a type of feature server."""
    if feature_server_type not in FEATURE_SERVER_CONFIG_CLASS_FOR_TYPE:
        raise errors.FeastFeatureServerTypeInvalidError(feature_server_type)
    return _import_settings(FEATURE_SERVER_CONFIG_CLASS_FOR_TYPE[feature_server_type])


def get_data_source_class_from_type(data_source_type: str) -> Any:
    """The class of a data source, by its dotted path."""
    module_name, _, class_name = data_source_type.rpartition(".")
    return getattr(importlib.import_module(module_name), class_name)


_YAML_WORDS = {"y", "n", "yes", "no", "on", "off", "true", "false", "null"}


def _yaml_lines(mapping: dict[str, Any], indent: str) -> list[str]:
    # JSON scalars are YAML scalars, so only mappings need YAML's own form; lists stay on one line.
    lines = []
    for key, value in mapping.items():
        name = key if key.isidentifier() and key.lower() not in _YAML_WORDS else json.dumps(key)
        if isinstance(value, dict) and value:
            lines += [f"{indent}{name}:\n", *_yaml_lines(value, indent + "  ")]
        else:
            lines.append(f"{indent}{name}: {json.dumps(value, ensure_ascii=False, default=str)}\n")
    return lines
