"""On-demand views made of aggregations: each row of a request has the aggregates of the rows of its entity, and a row of
training data what a request for all rows of its time would have had."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from drivers import T0, definitions, write_repository

from feast import FeatureStore, Field, RequestSource
from feast.aggregation import Aggregation
from feast.on_demand_feature_view import OnDemandFeatureView
from feast.types import Float64, Int64

DRIVERS: Any = definitions()
RIDES = RequestSource(name="rides", schema=[Field(name="fare", dtype=Float64)])
FARES = [
    Aggregation(column="fare", function="sum"),
    Aggregation(column="fare", function="mean", name="usual"),
    Aggregation(column="fare", function="count"),
]
SCHEMA = [
    Field(name="sum_fare", dtype=Float64),
    Field(name="usual", dtype=Float64),
    Field(name="count_fare", dtype=Int64),
]
SHARE = """\
def share(inputs):
    return {"share": [None if fare is None else fare / whole for fare, whole in zip(inputs["fare"], inputs["sum_fare"])]}
"""


def view(name: str, **arguments: Any) -> OnDemandFeatureView:
    given: dict[str, Any] = {
        "entities": [DRIVERS["driver"]],
        "sources": [DRIVERS["driver_stats"], RIDES],
        "schema": SCHEMA,
        "aggregations": FARES,
        "mode": "python",
    }
    return OnDemandFeatureView(name=name, **{**given, **arguments})


def share() -> OnDemandFeatureView:
    namespace: dict[str, Any] = {}
    exec(SHARE, namespace)  # noqa: S102
    schema = [Field(name="share", dtype=Float64)]
    return view("shares", udf=namespace["share"], udf_string=SHARE, schema=schema)


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    store = FeatureStore(repo_path=str(write_repository(tmp_path)))
    views = [view("fares"), view("all_fares", entities=[]), share()]
    store.apply([*DRIVERS.values(), *views])
    store.materialize(T0 - timedelta(days=30), T0 + timedelta(hours=1))
    return store


ROWS = [(1001, 4.0), (1002, 1.0), (1001, 8.0), (1002, None), (99, None)]
FEATURES = [f"fares:{field.name}" for field in SCHEMA] + ["all_fares:sum_fare", "shares:share"]


def test_rows_of_a_request_have_the_aggregates_of_their_entity(store: FeatureStore) -> None:
    rows = [{"driver_id": driver, "fare": fare} for driver, fare in ROWS]
    features = [*FEATURES, "driver_stats:trips"]
    found = store.get_online_features(features=features, entity_rows=rows, full_feature_names=True)
    answer = found.to_dict()
    assert answer["fares__sum_fare"] == [12.0, 1.0, 12.0, 1.0, None]
    assert answer["fares__usual"] == [6.0, 1.0, 6.0, 1.0, None]
    assert answer["fares__count_fare"] == [2, 1, 2, 1, 0]
    assert answer["all_fares__sum_fare"] == [13.0] * 5
    # Aggregates are what the function is given, too.
    assert answer["shares__share"] == [4 / 12, 1.0, 8 / 12, None, None]


def test_training_rows_have_what_a_request_at_their_time_would_have(store: FeatureStore) -> None:
    moments = [T0 + timedelta(hours=2), T0 + timedelta(hours=3)]
    # The rows of a moment need not stand together.
    entity = pd.DataFrame(
        [(driver, moment, fare) for driver, fare in ROWS for moment in moments],
        columns=["driver_id", "event_timestamp", "fare"],
    )
    entity.loc[entity.event_timestamp == moments[1], "fare"] *= 2
    features = store.get_historical_features(
        entity_df=entity, features=FEATURES, full_feature_names=True
    ).to_df()
    for moment in moments:
        part = features[features.event_timestamp == moment]
        rows = [
            {"driver_id": driver, "fare": None if pd.isna(fare) else fare}
            for driver, fare in zip(part.driver_id, part.fare)
        ]
        served = store.get_online_features(
            features=FEATURES, entity_rows=rows, full_feature_names=True
        ).to_df()
        for name in FEATURES:
            column = name.replace(":", "__")
            pd.testing.assert_series_equal(
                part[column].reset_index(drop=True), served[column], check_dtype=False
            )
    assert features["fares__sum_fare"].tolist()[:2] == [12.0, 24.0]


def test_types_follow_from_the_inputs(tmp_path: Path) -> None:
    store = FeatureStore(repo_path=str(write_repository(tmp_path)))
    aggregations = [
        Aggregation(column="trips", function=name)
        for name in ("sum", "max", "std", "count_distinct")
    ]
    store.apply([*DRIVERS.values(), view("inferred", schema=None, aggregations=aggregations)])
    found = store.get_on_demand_feature_view("inferred").features
    assert {field.name: field.dtype for field in found} == {
        "sum_trips": Int64,
        "max_trips": Int64,
        "std_trips": Float64,
        "count_distinct_trips": Int64,
    }


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (
            {"aggregations": [Aggregation(column="fare", function="median")]},
            "aggregates by `median`, which is not known\n    hint: known functions are `sum`",
        ),
        (
            {
                "aggregations": [
                    Aggregation(column="fare", function="sum", time_window=timedelta(hours=1))
                ]
            },
            "aggregates `fare` over a time window, but a request has one moment",
        ),
        (
            {"aggregations": [Aggregation(column="fares", function="sum")]},
            "aggregates `fares`, which is none of its inputs",
        ),
        (
            {"aggregations": [Aggregation(column="city", function="sum")]},
            "cannot aggregate `city` by `sum`: it holds Utf8",
        ),
        ({"sources": [RIDES]}, "aggregates by `driver_id`, which its sources do not have"),
        ({"schema": [Field(name="total", dtype=Float64)]}, "`total`"),
    ],
)
def test_what_has_no_meaning_is_refused(
    tmp_path: Path, arguments: dict[str, Any], told: str
) -> None:
    store = FeatureStore(repo_path=str(write_repository(tmp_path)))
    with pytest.raises(Exception, match="refused") as refused:
        store.apply([*DRIVERS.values(), view("refused", **arguments)])
    assert told in str(refused.value)
