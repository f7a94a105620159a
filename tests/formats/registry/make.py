"""Writes feast-0.67.0.pb, a registry file with every kind of object, with the Feast that is installed.

    cp make.py /tmp && python /tmp/make.py feast-0.67.0.pb        # in an environment with feast==0.67.0

The file holds pickled functions, which name the path of this script, and absolute paths below /tmp; times and UUIDs
differ on each run.
"""

import os
import pathlib
import shutil
import sys
import tempfile
from datetime import UTC, datetime, timedelta
from unittest.mock import MagicMock

import pandas as pd

# Drivers of warehouses that nothing here talks to.
for module in [
    "psycopg",
    "psycopg.conninfo",
    "psycopg_pool",
    "trino",
    "trino.auth",
    "trino.dbapi",
    "trino.exceptions",
    "pyspark",
    "regex",
]:
    sys.modules.setdefault(module, MagicMock())

from feast import (
    BatchFeatureView,
    BigQuerySource,
    Entity,
    FeatureService,
    FeatureStore,
    FeatureView,
    Field,
    FileSource,
    KafkaSource,
    KinesisSource,
    Project,
    PushSource,
    RedshiftSource,
    RequestSource,
    SnowflakeSource,
    StreamFeatureView,
    ValueType,
)
from feast.aggregation import Aggregation
from feast.data_format import AvroFormat, DeltaFormat, JsonFormat, ParquetFormat, ProtoFormat
from feast.feature_logging import LoggingConfig
from feast.infra.data_sources.contrib.iceberg_catalog.iceberg_source import IcebergSource
from feast.infra.infra_object import Infra
from feast.infra.offline_stores.contrib.athena_offline_store.athena_source import AthenaSource
from feast.infra.offline_stores.contrib.postgres_offline_store.postgres_source import PostgreSQLSource
from feast.infra.offline_stores.contrib.spark_offline_store.spark_source import SparkSource
from feast.infra.offline_stores.contrib.trino_offline_store.trino_source import TrinoSource
from feast.infra.offline_stores.file_source import FileLoggingDestination, SavedDatasetFileStorage
from feast.infra.online_stores.sqlite import SqliteTable
from feast.labeling import ConflictPolicy, LabelView
from feast.on_demand_feature_view import on_demand_feature_view
from feast.permissions.action import ALL_ACTIONS, AuthzedAction
from feast.permissions.permission import Permission
from feast.permissions.policy import (
    AllowAll,
    CombinedGroupNamespacePolicy,
    GroupBasedPolicy,
    NamespaceBasedPolicy,
    RoleBasedPolicy,
)
from feast.protos.feast.core.DatastoreTable_pb2 import DatastoreTable
from feast.protos.feast.core.InfraObject_pb2 import InfraObject
from feast.protos.feast.core.ValidationProfile_pb2 import GEValidationProfile, GEValidationProfiler, ValidationReference
from feast.saved_dataset import SavedDataset
from feast.table_format import DeltaFormat as DeltaTable
from feast.table_format import HudiFormat, IcebergFormat
from feast.types import Array, Float32, Float64, Int32, Int64, Map, String, UnixTimestamp

target = pathlib.Path(sys.argv[1]).absolute()
repo = pathlib.Path(tempfile.gettempdir()) / "feast-registry-fixture"
shutil.rmtree(repo, ignore_errors=True)
(repo / "data").mkdir(parents=True)
(repo / "feature_store.yaml").write_text(
    "project: rides\nprovider: local\nregistry: data/registry.db\n"
    "online_store: {type: sqlite, path: data/online.db}\nentity_key_serialization_version: 3\n"
)
os.chdir(repo)
now = datetime(2024, 5, 1, tzinfo=UTC)
frame = pd.DataFrame(
    {
        "driver_id": [1, 2],
        "city": ["a", "b"],
        "event_timestamp": [now, now],
        "created": [now, now],
        "conv_rate": [0.5, 0.25],
        "trips": [1, 2],
    }
)
frame.to_parquet("data/stats.parquet")

driver = Entity(
    name="driver",
    join_keys=["driver_id"],
    value_type=ValueType.INT64,
    description="who drives",
    tags={"team": "x"},
    owner="a@b",
)
city = Entity(name="city", value_type=ValueType.STRING)

stats = FileSource(
    name="stats",
    path="data/stats.parquet",
    timestamp_field="event_timestamp",
    created_timestamp_column="created",
    field_mapping={"trips": "n_trips"},
    file_format=ParquetFormat(),
    tags={"a": "1"},
    owner="o",
    description="d",
)
lake = FileSource(
    path="s3://bucket/lake",
    timestamp_field="event_timestamp",
    file_format=DeltaFormat(),
    s3_endpoint_override="http://minio:9000",
)
pushed = PushSource(name="pushed", batch_source=stats)
kafka = KafkaSource(
    name="kafka",
    timestamp_field="event_timestamp",
    message_format=AvroFormat("{}"),
    kafka_bootstrap_servers="k:9092",
    topic="t",
    batch_source=stats,
    watermark_delay_threshold=timedelta(minutes=5),
)
kafka_json = KafkaSource(
    name="kafka_json",
    timestamp_field="event_timestamp",
    message_format=JsonFormat("{}"),
    kafka_bootstrap_servers="k",
    topic="t",
    batch_source=stats,
)
kinesis = KinesisSource(
    name="kinesis",
    timestamp_field="event_timestamp",
    record_format=ProtoFormat("a.B"),
    region="r",
    stream_name="s",
    batch_source=stats,
)
request = RequestSource(
    name="request", schema=[Field(name="amount", dtype=Float64), Field(name="when", dtype=UnixTimestamp)]
)
sources = [
    stats,
    lake,
    pushed,
    kafka,
    kafka_json,
    kinesis,
    request,
    BigQuerySource(name="bigquery", table="p.d.t", timestamp_field="ts"),
    RedshiftSource(name="redshift", query="select 1", schema="s", database="d", timestamp_field="ts"),
    SnowflakeSource(name="snowflake", database="D", schema="S", table="T", timestamp_field="ts"),
    TrinoSource(name="trino", table="c.s.t", timestamp_field="ts"),
    AthenaSource(name="athena", table="t", database="d", data_source="AwsDataCatalog", timestamp_field="ts"),
    SparkSource(name="spark", path="s3://x", file_format="parquet", timestamp_field="ts"),
    SparkSource(
        name="spark_iceberg",
        path="c.ns.t",
        timestamp_field="ts",
        table_format=IcebergFormat(catalog="c", namespace="ns", properties={"k": "v"}),
    ),
    SparkSource(name="spark_delta", path="t", timestamp_field="ts", table_format=DeltaTable(checkpoint_location="/c")),
    SparkSource(
        name="spark_hudi",
        path="t",
        timestamp_field="ts",
        table_format=HudiFormat(table_type="COPY_ON_WRITE", record_key="id", precombine_field="ts"),
    ),
    PostgreSQLSource(name="postgres", table="public.t", timestamp_field="ts"),
    IcebergSource(
        name="iceberg",
        catalog_type="rest",
        endpoint="http://c",
        warehouse="w",
        namespace="n",
        table="t",
        timestamp_field="ts",
    ),
]

driver_stats = FeatureView(
    name="driver_stats",
    entities=[driver],
    ttl=timedelta(days=1, microseconds=500000),
    schema=[
        Field(name="driver_id", dtype=Int64),
        Field(name="conv_rate", dtype=Float32, description="c", tags={"k": "v"}),
        Field(name="n_trips", dtype=Int64),
        Field(
            name="embedding", dtype=Array(Float32), vector_index=True, vector_search_metric="cosine", vector_length=3
        ),
        Field(name="extra", dtype=Map),
    ],
    source=pushed,
    tags={"b": "2", "a": "1"},
    owner="o",
    org="ads",
    description="stats of drivers",
    enable_validation=True,
)
entity_less = FeatureView(
    name="entity_less",
    schema=[Field(name="conv_rate", dtype=Float64)],
    source=stats,
    online=False,
    offline=True,
    enabled=False,
)


def double(frame):
    return frame


computed = BatchFeatureView(
    name="computed",
    mode="python",
    entities=[driver],
    schema=[Field(name="driver_id", dtype=Int64), Field(name="n_trips", dtype=Int32)],
    source=stats,
    udf=double,
    udf_string="def double(frame):\n    return frame\n",
    online=True,
    ttl=timedelta(hours=1),
)
streamed = StreamFeatureView(
    name="streamed",
    entities=[driver],
    ttl=timedelta(days=2),
    mode="pandas",
    timestamp_field="event_timestamp",
    online=True,
    schema=[Field(name="driver_id", dtype=Int64), Field(name="conv_rate", dtype=Float32)],
    source=kafka,
    udf=double,
    udf_string="def double(frame):\n    return frame\n",
    aggregations=[
        Aggregation(
            column="conv_rate",
            function="sum",
            time_window=timedelta(hours=1),
            slide_interval=timedelta(minutes=5),
            name="total",
        )
    ],
    enable_tiling=True,
    tiling_hop_size=timedelta(minutes=1),
)


@on_demand_feature_view(
    sources=[driver_stats, request],
    schema=[Field(name="rate_plus", dtype=Float64)],
    mode="pandas",
    tags={"x": "y"},
    owner="me",
)
def rates(inputs: pd.DataFrame) -> pd.DataFrame:
    result = pd.DataFrame()
    result["rate_plus"] = inputs["conv_rate"] + inputs["amount"]
    return result


@on_demand_feature_view(
    sources=[driver_stats[["conv_rate"]]],
    entities=[driver],
    schema=[Field(name="twice", dtype=Float64)],
    mode="python",
    singleton=True,
    write_to_online_store=True,
)
def written(inputs):
    return {"twice": 2.0}


labels = LabelView(
    name="labels",
    entities=[driver],
    source=stats,
    labeler_field="city",
    conflict_policy=ConflictPolicy.MAJORITY_VOTE,
    schema=[Field(name="driver_id", dtype=Int64), Field(name="city", dtype=String), Field(name="n_trips", dtype=Int64)],
    reference_feature_view="driver_stats",
    ttl=timedelta(days=3),
    description="l",
    owner="o",
    tags={"t": "1"},
)

service = FeatureService(
    name="service",
    features=[
        driver_stats[["conv_rate"]].with_name("renamed").with_join_key_map({"driver_id": "origin_id"}),
        entity_less,
        rates,
    ],
    tags={"s": "1"},
    description="d",
    owner="o",
    precompute_online=True,
    logging_config=LoggingConfig(
        sample_rate=0.5, destination=FileLoggingDestination(path="data/logs", partition_by=["day"])
    ),
)
permissions = [
    Permission(name="everybody", policy=AllowAll),
    Permission(
        name="roles",
        types=[FeatureView, Entity],
        name_patterns=["driver.*"],
        actions=[AuthzedAction.DESCRIBE, AuthzedAction.READ_ONLINE],
        policy=RoleBasedPolicy(roles=["reader"]),
        required_tags={"team": "x"},
        tags={"p": "1"},
    ),
    Permission(name="groups", actions=ALL_ACTIONS, policy=GroupBasedPolicy(groups=["g"])),
    Permission(name="namespaces", policy=NamespaceBasedPolicy(namespaces=["n"])),
    Permission(name="combined", policy=CombinedGroupNamespacePolicy(groups=["g"], namespaces=["n"])),
]

store = FeatureStore(repo_path=".")
store.apply(
    [
        Project(name="rides", description="p", tags={"a": "b"}, owner="o"),
        driver,
        city,
        *sources,
        driver_stats,
        entity_less,
        computed,
        streamed,
        rates,
        written,
        labels,
        service,
        *permissions,
    ],
    skip_feature_view_validation=True,
)
# A new schema, so that an older definition goes into the version history.
store.apply(
    [
        FeatureView(
            name="entity_less",
            schema=[Field(name="conv_rate", dtype=Float64), Field(name="n_trips", dtype=Int64)],
            source=stats,
            online=False,
            offline=True,
        )
    ]
)
store.registry.apply_materialization(store.get_feature_view("driver_stats"), "rides", now - timedelta(days=1), now)

dataset = SavedDataset(
    name="dataset",
    features=["driver_stats:conv_rate"],
    join_keys=["driver_id"],
    storage=SavedDatasetFileStorage(path="data/saved.parquet"),
    full_feature_names=True,
    tags={"d": "1"},
    feature_service_name="service",
)
dataset.min_event_timestamp = now - timedelta(days=1)
dataset.max_event_timestamp = now
store.registry.apply_saved_dataset(dataset, "rides")

# Feast makes this message only where great_expectations is installed.
store.registry.cached_registry_proto.validation_references.append(
    ValidationReference(
        name="reference",
        project="rides",
        reference_dataset_name="dataset",
        description="r",
        tags={"v": "1"},
        ge_profiler=GEValidationProfiler(profiler=GEValidationProfiler.UserDefinedProfiler(body=b"\x80profiler")),
        ge_profile=GEValidationProfile(expectation_suite=b'{"rules": []}'),
    )
)
store.registry.update_infra(Infra([SqliteTable(path=str(repo / "data/online.db"), name="rides_driver_stats")]), "rides")
store.registry.cached_registry_proto.infra.infra_objects.append(
    InfraObject(
        infra_object_class_type="feast.infra.online_stores.datastore.DatastoreTable",
        datastore_table=DatastoreTable(project="rides", name="kept"),
    )
)
store.registry.commit()
shutil.copy("data/registry.db", target)
