"""One object of every kind, written as a repository would write it.

The same file is run by our package and by Feast's: both must produce the same messages.
"""

from __future__ import annotations

from datetime import timedelta

from feast import (
    Aggregation,
    AthenaSource,
    BatchFeatureView,
    BigQuerySource,
    ChrononSource,
    ConflictPolicy,
    Entity,
    FeatureService,
    FeatureView,
    Field,
    FileSource,
    KafkaSource,
    KinesisSource,
    LabelView,
    OracleSource,
    Project,
    PushSource,
    RedshiftSource,
    RequestSource,
    SnowflakeSource,
    StreamFeatureView,
    ValueType,
)
from feast.credentials import ConnectionRef
from feast.data_format import AvroFormat, DeltaFormat, JsonFormat, ParquetFormat, ProtoFormat
from feast.dqm.profilers.ge_profiler import GEProfiler
from feast.feature_logging import LoggingConfig
from feast.infra.data_sources.contrib.iceberg_catalog.iceberg_source import IcebergSource
from feast.infra.data_sources.contrib.iceberg_catalog.unity_catalog_source import UnityCatalogSource
from feast.infra.data_sources.contrib.lance.lance_source import (
    LanceSource,
    SavedDatasetLanceStorage,
)
from feast.infra.data_sources.mlflow.mlflow_dataset_source import MlflowDatasetSource
from feast.infra.offline_stores.bigquery_source import (
    BigQueryLoggingDestination,
    SavedDatasetBigQueryStorage,
)
from feast.infra.offline_stores.contrib.athena_offline_store.athena_source import (
    AthenaLoggingDestination,
    SavedDatasetAthenaStorage,
)
from feast.infra.offline_stores.contrib.clickhouse_offline_store.clickhouse_source import (
    ClickhouseSource,
    SavedDatasetClickhouseStorage,
)
from feast.infra.offline_stores.contrib.couchbase_offline_store.couchbase_source import (
    CouchbaseColumnarSource,
    SavedDatasetCouchbaseColumnarStorage,
)
from feast.infra.offline_stores.contrib.mongodb_offline_store.mongodb import MongoDBSource
from feast.infra.offline_stores.contrib.mssql_offline_store.mssqlserver_source import (
    MsSqlServerSource,
)
from feast.infra.offline_stores.contrib.postgres_offline_store.postgres_source import (
    PostgreSQLSource,
    SavedDatasetPostgreSQLStorage,
)
from feast.infra.offline_stores.contrib.ray_offline_store.ray_source import RaySource
from feast.infra.offline_stores.contrib.spark_offline_store.spark_source import (
    SavedDatasetSparkStorage,
    SparkSource,
)
from feast.infra.offline_stores.contrib.trino_offline_store.trino_source import (
    SavedDatasetTrinoStorage,
    TrinoSource,
)
from feast.infra.offline_stores.file_source import FileLoggingDestination, SavedDatasetFileStorage
from feast.infra.offline_stores.redshift_source import (
    RedshiftLoggingDestination,
    SavedDatasetRedshiftStorage,
)
from feast.infra.offline_stores.snowflake_source import (
    SavedDatasetSnowflakeStorage,
    SnowflakeLoggingDestination,
)
from feast.on_demand_feature_view import on_demand_feature_view
from feast.permissions.action import READ, AuthzedAction
from feast.permissions.permission import Permission
from feast.permissions.policy import (
    CombinedGroupNamespacePolicy,
    GroupBasedPolicy,
    NamespaceBasedPolicy,
    RoleBasedPolicy,
)
from feast.protos.feast.core.ValidationProfile_pb2 import GEValidationProfiler
from feast.saved_dataset import SavedDataset, ValidationReference
from feast.stream_feature_view import stream_feature_view
from feast.table_format import IcebergFormat, LanceFormat
from feast.types import (
    Array,
    Bool,
    Bytes,
    Decimal,
    Float32,
    Float64,
    Int32,
    Int64,
    Json,
    Map,
    ScalarMap,
    Set,
    String,
    Struct,
    TimeUuid,
    UnixTimestamp,
    Uuid,
    ZonedTimestamp,
)

SHARED = {
    "timestamp_field": "event_timestamp",
    "created_timestamp_column": "created",
    "field_mapping": {"src": "dst"},
    "description": "where it comes from",
    "tags": {"team": "growth"},
    "owner": "a@example.com",
}

driver = Entity(
    name="driver",
    join_keys=["driver_id"],
    value_type=ValueType.INT64,
    description="who drives",
    tags={"pii": "no"},
    owner="a@example.com",
)
customer = Entity(name="customer", value_type=ValueType.STRING)

file_source = FileSource(name="stats", path="data/stats.parquet", **SHARED)
push_source = PushSource(name="stats_push", batch_source=file_source, tags={"a": "b"})
kafka_source = KafkaSource(
    name="stats_kafka",
    kafka_bootstrap_servers="localhost:9092",
    topic="stats",
    message_format=JsonFormat("driver_id integer, event_timestamp timestamp"),
    batch_source=file_source,
    watermark_delay_threshold=timedelta(minutes=5),
    **SHARED,
)

SCHEMA = [
    Field(name="driver_id", dtype=Int64),
    Field(name="conv_rate", dtype=Float32, description="share", tags={"unit": "1"}),
    Field(name="trips", dtype=Int64),
]

driver_stats = FeatureView(
    name="driver_stats",
    entities=[driver],
    schema=SCHEMA,
    source=file_source,
    ttl=timedelta(days=1, seconds=3),
    online=False,
    offline=True,
    description="hourly",
    tags={"tier": "1"},
    owner="b@example.com",
    org="ops",
    enable_validation=True,
)

all_types = FeatureView(
    name="all_types",
    entities=[driver, customer],
    source=FileSource(path="types.parquet"),
    schema=[
        Field(name=f"f{number}", dtype=dtype)
        for number, dtype in enumerate(
            [
                Bool,
                Bytes,
                Decimal,
                Float32,
                Float64,
                Int32,
                Int64,
                Json,
                Map,
                ScalarMap,
                String,
                TimeUuid,
                UnixTimestamp,
                Uuid,
                ZonedTimestamp,
                Array(Bytes),
                Array(Int32),
                Array(Map),
                Array(Json),
                Array(UnixTimestamp),
                Array(Struct({"x": Int64, "y": Array(Float32)})),
                Array(Array(Int64)),
                Array(Set(String)),
                Set(Array(Int32)),
                Set(String),
                Set(Uuid),
                Set(Decimal),
                Struct({"lat": Float64, "inner": Struct({"deep": Bool})}),
            ]
        )
    ]
    + [
        Field(
            name="embedding",
            dtype=Array(Float32),
            vector_index=True,
            vector_length=4,
            vector_search_metric="cosine",
        )
    ],
)

pinned = FeatureView(
    name="pinned", entities=[driver], schema=SCHEMA, source=file_source, version="v2"
)


def roll_up(rows):
    return rows


rolled_up = BatchFeatureView(
    name="rolled_up",
    source=[driver_stats],
    sink_source=FileSource(name="sink", path="sink.parquet", timestamp_field="event_timestamp"),
    entities=[driver],
    schema=SCHEMA,
    mode="python",
    ttl=timedelta(hours=2),
    udf=roll_up,
    udf_string="def roll_up(rows):\n    return rows\n",
)

stream_stats = StreamFeatureView(
    name="stream_stats",
    entities=[driver],
    schema=SCHEMA,
    source=kafka_source,
    ttl=timedelta(hours=1),
    timestamp_field="event_timestamp",
    aggregations=[
        Aggregation(column="trips", function="sum", time_window=timedelta(hours=1)),
        Aggregation(
            column="trips",
            function="mean",
            time_window=timedelta(hours=2),
            slide_interval=timedelta(minutes=30),
            name="avg_trips",
        ),
    ],
    enable_tiling=True,
    tiling_hop_size=timedelta(minutes=10),
    tags={"s": "t"},
)


@stream_feature_view(
    entities=[driver], schema=SCHEMA, source=push_source, mode="pandas", ttl=timedelta(hours=1)
)
def pushed_stats(frame):
    return frame


vals = RequestSource(
    name="vals",
    schema=[Field(name="amount", dtype=Float64), Field(name="n", dtype=Int64)],
    description="sent along",
)


@on_demand_feature_view(
    sources=[driver_stats[["conv_rate"]], vals],
    schema=[Field(name="scaled", dtype=Float64)],
    mode="pandas",
    description="scaled",
    tags={"x": "y"},
    owner="c@example.com",
)
def scaled_rate(inputs):
    inputs["scaled"] = inputs["conv_rate"] * inputs["amount"]
    return inputs[["scaled"]]


@on_demand_feature_view(
    sources=[driver_stats.with_name("aliased")],
    entities=[driver],
    schema=[Field(name="driver_id", dtype=Int64), Field(name="double", dtype=Float64)],
    mode="python",
    singleton=True,
    write_to_online_store=True,
    track_metrics=True,
)
def doubled(row):
    return {"double": row["conv_rate"] * 2}


@on_demand_feature_view(
    input_schema=[Field(name="q", dtype=Int64)],
    schema=[Field(name="q2", dtype=Int64)],
    mode="python",
    version="v3",
)
def from_request(columns):
    return {"q2": [2 * value for value in columns["q"]]}


labels = LabelView(
    name="labels",
    entities=[driver],
    source=PushSource(name="labels_push", batch_source=file_source),
    schema=[Field(name="label", dtype=String), Field(name="labeler", dtype=String)],
    ttl=timedelta(days=3),
    labeler_field="labeler",
    conflict_policy=ConflictPolicy.MAJORITY_VOTE,
    reference_feature_view="driver_stats",
    tags={"feast.io/label-values:label": "good, bad"},
)


def service(name, destination=None):
    return FeatureService(
        name=name,
        features=[
            driver_stats[["trips"]].with_name("recent"),
            all_types[["f3"]].with_join_key_map({"driver_id": "pickup_driver_id"}),
            labels,
            scaled_rate,
            pinned,
        ],
        tags={"model": "m"},
        description="inputs",
        owner="d@example.com",
        logging_config=LoggingConfig(destination, sample_rate=0.5) if destination else None,
    )


def dataset(name, storage):
    saved = SavedDataset(
        name=name,
        features=["driver_stats:trips", "driver_stats:conv_rate"],
        join_keys=["driver_id"],
        storage=storage,
        full_feature_names=True,
        tags={"k": "v"},
        feature_service_name="svc",
        namespace="ns",
        collection="col",
        description="kept",
    )
    return saved


# The pickle of a function that every Python has.
PROFILER = GEProfiler.from_proto(
    GEValidationProfiler(
        profiler=GEValidationProfiler.UserDefinedProfiler(body=b"cposixpath\nbasename\n.")
    )
)
PINNED = LanceFormat(catalog="c", namespace="n", version=3)
REF = ConnectionRef(
    provider="env", name="PG_", namespace="prod", connection_type="pg", params={"sslmode": "off"}
)

DATA_SOURCES = {
    "file": file_source,
    "file_bare": FileSource(path="x/*.parquet"),
    "file_delta": FileSource(
        path="s3://b/t", file_format=DeltaFormat(), s3_endpoint_override="http://localhost"
    ),
    "file_parquet": FileSource(path="p", file_format=ParquetFormat()),
    "bigquery": BigQuerySource(
        table="p.d.t", date_partition_column="day", timestamp_field_type="DATE", **SHARED
    ),
    "bigquery_query": BigQuerySource(name="q", query="SELECT 1", timestamp_field="ts"),
    "redshift": RedshiftSource(name="rs", table="t", database="db", **SHARED),
    "redshift_query": RedshiftSource(name="rq", query="SELECT 1", schema="s"),
    "snowflake": SnowflakeSource(name="sf", table="T", database="DB", **SHARED),
    "snowflake_query": SnowflakeSource(name="sq", query="SELECT 1"),
    # Without an owner, which Feast forgets of these.
    "athena": AthenaSource(
        name="at",
        table="t",
        data_source="cat",
        date_partition_column="d",
        **{**SHARED, "owner": ""},
    ),
    "trino": TrinoSource(table="c.s.t", **SHARED),
    "trino_query": TrinoSource(name="tq", query="SELECT 1", timestamp_field="ts"),
    "spark": SparkSource(name="spt", table="t", date_partition_column="d", **SHARED),
    "spark_path": SparkSource(
        name="sp",
        path="s3://b",
        file_format="parquet",
        timestamp_field="ts",
        date_partition_column_format="%Y%m%d",
    ),
    "spark_iceberg": SparkSource(
        name="si", path="p", table_format=IcebergFormat(catalog="c", namespace="n")
    ),
    "postgres": PostgreSQLSource(name="pg", table="public.t", **SHARED),
    "postgres_query": PostgreSQLSource(name="pgq", query="SELECT 1", connection_ref=REF),
    "clickhouse": ClickhouseSource(name="ch", query="SELECT 1", **SHARED),
    "couchbase": CouchbaseColumnarSource(name="cb", collection="c", **SHARED),
    "mssql": MsSqlServerSource(
        name="ms",
        table_ref="dbo.t",
        event_timestamp_column="ts",
        connection_str="mssql://h",
        date_partition_column="d",
    ),
    "oracle": OracleSource(name="ora", table_ref="T", event_timestamp_column="ts"),
    "ray": RaySource(
        name="ray", reader_type="csv", path="p.csv", reader_options={"delimiter": ";"}, **SHARED
    ),
    "mongodb": MongoDBSource(name="mongo", tags={"a": "b"}),
    "chronon": ChrononSource(materialization_path="out", chronon_join="team/join", **SHARED),
    "lance": LanceSource(uri="db/t.lance", table_format=LanceFormat(tag="prod"), **SHARED),
    "lance_table": LanceSource(
        table="t", namespace_impl="dir", namespace_properties={"root": "/x"}, timestamp_field="ts"
    ),
    "iceberg": IcebergSource(
        warehouse="w", namespace="n", table="t", endpoint="http://localhost", **SHARED
    ),
    "unity": UnityCatalogSource(
        name="uc",
        warehouse="w",
        namespace="n",
        table="t",
        endpoint="https://h/iceberg",
        sync_lineage=False,
    ),
    "mlflow": MlflowDatasetSource(name="ml", dataset_name="d", batch_source=file_source),
    "push": push_source,
    "push_bare": PushSource(name="pb"),
    "kafka": kafka_source,
    "kafka_avro": KafkaSource(
        name="ka",
        timestamp_field="ts",
        bootstrap_servers="h:1",
        topic="t",
        message_format=AvroFormat('{"type": "record"}'),
    ),
    "kinesis": KinesisSource(
        name="kin",
        region="us",
        stream_name="s",
        record_format=ProtoFormat("a.B"),
        batch_source=file_source,
        **SHARED,
    ),
    "request": vals,
}

OBJECTS = {
    "project": {"plain": Project(name="proj", description="d", tags={"a": "b"}, owner="o")},
    "entity": {"driver": driver, "customer": customer, "untyped": Entity(name="untyped")},
    "data_source": DATA_SOURCES,
    "feature_view": {
        "driver_stats": driver_stats,
        "all_types": all_types,
        "pinned": pinned,
        "push": FeatureView(name="push", entities=[driver], schema=SCHEMA, source=push_source),
        "no_entity": FeatureView(name="no_entity", schema=[SCHEMA[1]], source=file_source),
        "no_schema": FeatureView(name="no_schema", entities=[driver], source=file_source),
        "no_ttl": FeatureView(name="no_ttl", source=file_source, ttl=None, enabled=False),
        "derived": FeatureView(
            name="derived", source=[driver_stats], sink_source=file_source, mode="python"
        ),
        "rolled_up": rolled_up,
        "plain_batch": BatchFeatureView(name="plain_batch", source=file_source, schema=SCHEMA),
    },
    "stream_feature_view": {"stream_stats": stream_stats, "pushed_stats": pushed_stats},
    "on_demand_feature_view": {
        "scaled_rate": scaled_rate,
        "doubled": doubled,
        "from_request": from_request,
    },
    "label_view": {"labels": labels, "bare": LabelView(name="bare", entities=[customer])},
    "feature_service": {
        "plain": service("plain"),
        "file": service("file", FileLoggingDestination(path="logs", partition_by=["d"])),
        "bigquery": service("bq", BigQueryLoggingDestination(table_ref="t")),
        "redshift": service("rs", RedshiftLoggingDestination(table_name="t")),
        "snowflake": service("sf", SnowflakeLoggingDestination(table_name="t")),
        "athena": service("at", AthenaLoggingDestination(table_name="t")),
    },
    "saved_dataset": {
        "file": dataset("file", SavedDatasetFileStorage("d.parquet")),
        "bigquery": dataset("bq", SavedDatasetBigQueryStorage("t")),
        "redshift": dataset("rs", SavedDatasetRedshiftStorage("t")),
        "snowflake": dataset("sf", SavedDatasetSnowflakeStorage("t")),
        "trino": dataset("tr", SavedDatasetTrinoStorage("t")),
        "spark": dataset("sp", SavedDatasetSparkStorage(path="p", file_format="csv")),
        "athena": dataset("at", SavedDatasetAthenaStorage("t")),
        "postgres": dataset("pg", SavedDatasetPostgreSQLStorage("t")),
        "clickhouse": dataset("ch", SavedDatasetClickhouseStorage("t")),
        "couchbase": dataset("cb", SavedDatasetCouchbaseColumnarStorage("d", "s", "c")),
        "lance": dataset("la", SavedDatasetLanceStorage(PINNED, uri="u")),
    },
    "validation_reference": {
        "plain": ValidationReference("ref", "file", PROFILER, "d", {"a": "b"})
    },
    "permission": {
        "all": Permission(name="all"),
        "some": Permission(
            name="some",
            types=[FeatureView, Entity, LabelView],
            name_patterns=["driver_.*"],
            actions=[AuthzedAction.DESCRIBE, *READ],
            policy=RoleBasedPolicy(roles=["reader"]),
            tags={"a": "b"},
            required_tags={"tier": "1"},
        ),
        "groups": Permission(name="g", policy=GroupBasedPolicy(groups=["g"])),
        "namespaces": Permission(name="n", policy=NamespaceBasedPolicy(namespaces=["n"])),
        "both": Permission(
            name="b", policy=CombinedGroupNamespacePolicy(groups=["g"], namespaces=["n"])
        ),
    },
}
