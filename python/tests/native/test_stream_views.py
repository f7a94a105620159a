"""Stream feature views with transformations and aggregations: what materializations, training data and pushes make of them."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from drivers import HOUR, T0

from feast import (
    Aggregation,
    Entity,
    FeatureStore,
    Field,
    FileSource,
    PushSource,
    StreamFeatureView,
    ValueType,
)
from feast.data_source import PushMode
from feast.types import Int64

driver = Entity(name="driver", join_keys=["driver_id"], value_type=ValueType.INT64)
source = FileSource(
    name="stats",
    path="stats.parquet",
    timestamp_field="event_timestamp",
    created_timestamp_column="created",
)
fresh = PushSource(name="fresh", batch_source=source)
DOUBLED = """
def computed(df):
    df["trips"] = df["trips"] * 2
    return df
"""


def stream_view(
    text: str = "", mode: str = "pandas", feature: str = "trips", **more: Any
) -> StreamFeatureView:
    scope: dict[str, Any] = {}
    exec(text, scope)  # noqa: S102
    return StreamFeatureView(
        name="streamed",
        source=fresh,
        entities=[driver],
        schema=[Field(name=feature, dtype=Int64)],
        mode=mode,
        udf=scope.get("computed"),
        udf_string=text,
        **more,
    )


def applied(repository: Path, view: StreamFeatureView) -> FeatureStore:
    store = FeatureStore(repo_path=str(repository))
    store.apply([driver, source, fresh, view])
    return store


def served(store: FeatureStore, feature: str = "trips") -> Any:
    answer = store.get_online_features([f"streamed:{feature}"], [{"driver_id": 1001}])
    return answer.to_dict()[feature][0]


def trained(store: FeatureStore, time: Any, feature: str = "trips") -> Any:
    ask = pd.DataFrame({"driver_id": [1001], "event_timestamp": [time]})
    answer = store.get_historical_features(ask, [f"streamed:{feature}"])
    return answer.to_df()[feature].tolist()[0]


def row(trips: int, time: Any) -> pd.DataFrame:
    columns = {
        "driver_id": 1001,
        "event_timestamp": time,
        "created": time,
        "conv_rate": 0.9,
        "trips": trips,
        "city": "z",
    }
    return pd.DataFrame({name: [value] for name, value in columns.items()})


def test_materializing_runs_the_function_and_training_data_are_the_same(repository: Path) -> None:
    store = applied(repository, stream_view(DOUBLED))
    store.materialize(T0 - 3 * HOUR, T0)
    assert served(store) == 60
    assert trained(store, T0) == 60
    assert trained(store, T0 - HOUR) == 20


def test_what_is_pushed_online_was_computed_by_who_read_the_stream(repository: Path) -> None:
    store = applied(repository, stream_view(DOUBLED))
    store.push("fresh", row(5, T0 + HOUR))
    assert served(store) == 5
    store.write_to_online_store("streamed", row(6, T0 + 2 * HOUR))
    assert served(store) == 6
    assert trained(store, T0 + 3 * HOUR) == 60


def test_what_is_pushed_offline_is_computed_later(repository: Path) -> None:
    store = applied(repository, stream_view(DOUBLED))
    store.push("fresh", row(7, T0 + HOUR), to=PushMode.OFFLINE)
    assert trained(store, T0 + HOUR) == 14
    store.materialize(T0, T0 + HOUR)
    assert served(store) == 14


def test_one_push_to_both_stores_is_refused_since_no_row_suits_both(repository: Path) -> None:
    store = applied(repository, stream_view(DOUBLED))
    with pytest.raises(ValueError, match="`streamed` are computed") as caught:
        store.push("fresh", row(7, T0 + HOUR), to=PushMode.ONLINE_AND_OFFLINE)
    assert "push to `offline` and materialize" in str(caught.value)
    assert served(store) is None
    assert trained(store, T0 + HOUR) == 60


def test_aggregations_count_what_was_pushed_offline(repository: Path) -> None:
    sums = Aggregation(column="trips", function="sum", time_window=timedelta(hours=2))
    store = applied(
        repository,
        stream_view(
            feature="sum_trips_7200s", aggregations=[sums], timestamp_field="event_timestamp"
        ),
    )
    store.materialize(T0 - 3 * HOUR, T0)
    assert served(store, "sum_trips_7200s") == 60
    store.push("fresh", row(7, T0 + HOUR), to=PushMode.OFFLINE)
    store.materialize(T0, T0 + HOUR)
    assert served(store, "sum_trips_7200s") == 57
    assert trained(store, T0 + HOUR, "sum_trips_7200s") == 57


def test_a_function_for_another_engine_is_kept_and_not_run(repository: Path) -> None:
    store = applied(repository, stream_view(DOUBLED, mode="spark"))
    with pytest.raises(NotImplementedError, match="in mode `spark`, which is not run here"):
        store.materialize(T0 - HOUR, T0)
    store.push("fresh", row(5, T0 + HOUR))
    assert served(store) == 5
