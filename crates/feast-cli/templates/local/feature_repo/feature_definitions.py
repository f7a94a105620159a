"""Features of drivers: what they did hour by hour, and what follows from it.

`feast plan` compares this file with the registry, `feast apply` makes the registry like this file.
"""

from datetime import timedelta
from typing import Any

from feast import (
    Entity,
    FeatureService,
    FeatureView,
    Field,
    FileSource,
    Project,
    PushSource,
    RequestSource,
    ValueType,
)
from feast.feature_logging import LoggingConfig
from feast.infra.offline_stores.file_source import FileLoggingDestination
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Float32, Float64, Int64

project = Project(name="__PROJECT__", description="Features of drivers")

# An entity is what features describe; its join key is the column that identifies it.
driver = Entity(
    name="driver",
    join_keys=["driver_id"],
    value_type=ValueType.INT64,
    description="A driver of the fleet",
)

# Where rows come from: a Parquet file with one row per driver and hour.
driver_stats_source = FileSource(
    name="driver_hourly_stats_source",
    path="data/driver_stats.parquet",
    timestamp_field="event_timestamp",
    created_timestamp_column="created",
)

# A feature view is a group of columns of a source, with a limit on how old a value may be.
driver_stats_fv = FeatureView(
    name="driver_hourly_stats",
    entities=[driver],
    ttl=timedelta(days=1),
    schema=[
        Field(name="conv_rate", dtype=Float32, description="Share of offers that became trips"),
        Field(name="acc_rate", dtype=Float32, description="Share of offers that were accepted"),
        Field(name="avg_daily_trips", dtype=Int64, description="Trips per day, on average"),
    ],
    source=driver_stats_source,
    online=True,
    tags={"team": "driver_performance"},
)

# The same features, fed by `store.push(...)` as well as by the file.
driver_stats_push_source = PushSource(
    name="driver_stats_push_source",
    batch_source=driver_stats_source,
)
driver_stats_fresh_fv = FeatureView(
    name="driver_hourly_stats_fresh",
    entities=[driver],
    ttl=timedelta(days=1),
    schema=[
        Field(name="conv_rate", dtype=Float32),
        Field(name="acc_rate", dtype=Float32),
        Field(name="avg_daily_trips", dtype=Int64),
    ],
    source=driver_stats_push_source,
    online=True,
    tags={"team": "driver_performance"},
)

# Values that only the request knows.
input_request = RequestSource(
    name="vals_to_add",
    schema=[
        Field(name="val_to_add", dtype=Int64),
        Field(name="val_to_add_2", dtype=Int64),
    ],
)


# An on-demand feature view is computed when it is asked for, from other views and the request.
@on_demand_feature_view(
    sources=[driver_stats_fv, input_request],
    schema=[
        Field(name="conv_rate_plus_val1", dtype=Float64),
        Field(name="conv_rate_plus_val2", dtype=Float64),
    ],
    mode="python",
)
def transformed_conv_rate(inputs: dict[str, Any]) -> dict[str, Any]:
    # A driver that is not known has no rate.
    def plus(values: list[int]) -> list[float | None]:
        return [None if rate is None else rate + value for rate, value in zip(inputs["conv_rate"], values)]

    return {
        "conv_rate_plus_val1": plus(inputs["val_to_add"]),
        "conv_rate_plus_val2": plus(inputs["val_to_add_2"]),
    }


@on_demand_feature_view(
    sources=[driver_stats_fresh_fv, input_request],
    schema=[
        Field(name="conv_rate_plus_val1", dtype=Float64),
        Field(name="conv_rate_plus_val2", dtype=Float64),
    ],
    mode="python",
)
def transformed_conv_rate_fresh(inputs: dict[str, Any]) -> dict[str, Any]:
    # A driver that is not known has no rate.
    def plus(values: list[int]) -> list[float | None]:
        return [None if rate is None else rate + value for rate, value in zip(inputs["conv_rate"], values)]

    return {
        "conv_rate_plus_val1": plus(inputs["val_to_add"]),
        "conv_rate_plus_val2": plus(inputs["val_to_add_2"]),
    }


# A feature service is the set of features that one version of a model uses.
driver_activity_v1 = FeatureService(
    name="driver_activity_v1",
    features=[driver_stats_fv[["conv_rate"]], transformed_conv_rate],
    logging_config=LoggingConfig(destination=FileLoggingDestination(path="data")),
)
driver_activity_v2 = FeatureService(
    name="driver_activity_v2",
    features=[driver_stats_fv, transformed_conv_rate],
)
driver_activity_v3 = FeatureService(
    name="driver_activity_v3",
    features=[driver_stats_fresh_fv, transformed_conv_rate_fresh],
)
