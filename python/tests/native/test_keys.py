"""Views with several join keys, with none, and under other names: the same answers offline and online."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from drivers import HOUR, T0, definitions

from feast import Entity, FeatureService, FeatureStore, FeatureView, Field, FileSource, PushSource
from feast.errors import FeastError, FeatureNameCollisionError
from feast.types import Float64, Int64, String

driver = definitions()["driver"]
customer = Entity(name="customer", join_keys=["customer_id"])


def view(name: str, feature: str, entities: list[Any], pushed: bool = False) -> FeatureView:
    source: Any = FileSource(name=name, path=f"{name}.parquet", timestamp_field="at")
    return FeatureView(
        name=name,
        entities=entities,
        ttl=timedelta(days=1),
        schema=[Field(name=feature, dtype=Float64)],
        source=PushSource(name=f"{name}_push", batch_source=source) if pushed else source,
    )


fares = view("fares", "fare", [driver, customer])
weather = view("weather", "wind", [], pushed=True)
tips = view("tips", "fare", [customer])


@pytest.fixture
def store(repository: Path) -> FeatureStore:
    """Drivers, and what they earn from whom in which weather."""
    files = {
        "fares": {
            "driver_id": [1001, 1001, 1002],
            "customer_id": ["a", "b", "a"],
            "fare": [1.0, 2.0, 3.0],
        },
        "tips": {"customer_id": ["a", "b"], "fare": [0.1, 0.2]},
    }
    for name, columns in files.items():
        rows = len(columns["fare"])
        pq.write_table(
            pa.table({**columns, "at": [T0 - HOUR] * rows}), repository / f"{name}.parquet"
        )
    pq.write_table(
        pa.table({"wind": [1.5, 2.5], "at": [T0 - 2 * HOUR, T0 - HOUR]}),
        repository / "weather.parquet",
    )
    store = FeatureStore(repo_path=str(repository))
    store.apply([*definitions().values(), customer, fares, weather, tips])
    store.materialize(T0 - 100 * HOUR, T0)
    return store


def offline(
    store: FeatureStore, features: Any, rows: list[dict[str, Any]], full: bool = False
) -> dict[str, list[Any]]:
    table = pa.Table.from_pylist([{**row, "event_timestamp": T0} for row in rows])
    answer = store.get_historical_features(table, features, full_feature_names=full).to_arrow()
    return {
        name: values for name, values in answer.to_pydict().items() if name != "event_timestamp"
    }


def both(
    store: FeatureStore, features: Any, rows: list[dict[str, Any]], full: bool = False
) -> dict[str, list[Any]]:
    """The features, which must be the same offline and online."""
    answer = store.get_online_features(features, rows, full_feature_names=full).to_dict()
    assert answer == offline(store, features, rows, full)
    return {name: values for name, values in answer.items() if name not in rows[0]}


def test_several_keys_in_any_order(store: FeatureStore) -> None:
    rows = [
        {"customer_id": "b", "driver_id": 1001},
        {"customer_id": "a", "driver_id": 1001},
        {"customer_id": "b", "driver_id": 1002},
    ]
    assert both(store, ["fares:fare"], rows) == {"fare": [2.0, 1.0, None]}
    with pytest.raises(FeastError, match="customer_id"):
        store.get_online_features(["fares:fare"], [{"driver_id": 1001}])


def test_views_with_different_keys_in_one_request(store: FeatureStore) -> None:
    rows = [{"driver_id": 1001, "customer_id": "b"}, {"driver_id": 9, "customer_id": "a"}]
    features = ["fares:fare", "weather:wind", "driver_stats:trips", "tips:fare"]

    assert both(store, features, rows, full=True) == {
        "fares__fare": [2.0, None],
        "weather__wind": [2.5, 2.5],
        "driver_stats__trips": [30, None],
        "tips__fare": [0.2, 0.1],
    }
    for ask in (
        lambda: store.get_online_features(features, rows),
        lambda: offline(store, features, rows),
    ):
        with pytest.raises(FeatureNameCollisionError, match="`fare`"):
            ask()


def test_a_view_without_keys(store: FeatureStore) -> None:
    for rows in ([{}], {}):
        assert store.get_online_features(["weather:wind"], rows).to_dict() == {"wind": [2.5]}
    times = pa.table({"event_timestamp": [T0, T0 - 90 * HOUR]})
    assert store.get_historical_features(times, ["weather:wind"]).to_arrow()[
        "wind"
    ].to_pylist() == [2.5, None]
    # What is pushed is what is read.
    store.push("weather_push", pa.table({"wind": [9.5], "at": [T0]}))
    assert store.get_online_features(["weather:wind"], [{}]).to_dict() == {"wind": [9.5]}
    assert [entity.name for entity in store.list_entities()] == ["customer", "driver"]
    assert store.get_feature_view("weather").entities == []


def test_one_view_twice_under_other_names(store: FeatureStore) -> None:
    stats: Any = definitions()["driver_stats"]
    route = FeatureService(
        name="route",
        features=[
            stats.with_name("origin").with_join_key_map({"driver_id": "origin_id"})[["trips"]],
            stats.with_name("destination").with_join_key_map({"driver_id": "destination_id"})[
                ["trips"]
            ],
        ],
    )
    store.apply(route)
    rows = [{"origin_id": 1001, "destination_id": 1002}, {"origin_id": 9, "destination_id": 1001}]

    for service in (route, store.get_feature_service("route")):
        assert both(store, service, rows, full=True) == {
            "origin__trips": [30, None],
            "destination__trips": [40, 30],
        }
        with pytest.raises(FeatureNameCollisionError, match="`trips`"):
            store.get_online_features(service, rows)


def test_a_map_of_some_of_the_keys(store: FeatureStore) -> None:
    service = FeatureService(
        name="some", features=[fares.with_join_key_map({"driver_id": "chauffeur"})]
    )

    rows = [{"chauffeur": 1001, "customer_id": "b"}, {"chauffeur": 1002, "customer_id": "a"}]
    assert both(store, service, rows) == {"fare": [2.0, 3.0]}


def test_names_of_columns_do_not_meet(store: FeatureStore) -> None:
    rows = pa.table({"driver_id": [1001], "trips": ["mine"], "event_timestamp": [T0]})
    with pytest.raises(FeatureNameCollisionError, match="`trips`.*full feature names"):
        store.get_historical_features(rows, ["driver_stats:trips"]).to_arrow()

    answer = store.get_historical_features(
        rows, ["driver_stats:trips"], full_feature_names=True
    ).to_arrow()
    assert answer["trips"].to_pylist() == ["mine"]
    assert answer["driver_stats__trips"].to_pylist() == [30]
    for features in (
        ["driver_stats:trips", "driver_stats:trips"],
        ["driver_stats:trips", "driver_push:trips"],
    ):
        with pytest.raises(FeatureNameCollisionError, match="`trips`"):
            store.get_online_features(features, [{"driver_id": 1001}])


def test_features_come_in_the_order_asked_for(store: FeatureStore) -> None:
    features = ["driver_stats:trips", "weather:wind", "driver_stats:conv_rate", "driver_stats:city"]
    answer = both(store, features, [{"driver_id": 1001}])

    # View by view, in the order in which a view is first named.
    assert list(answer) == ["trips", "conv_rate", "city", "wind"]
    full = both(store, features, [{"driver_id": 1001}], full=True)
    assert list(full) == [
        "driver_stats__trips",
        "driver_stats__conv_rate",
        "driver_stats__city",
        "weather__wind",
    ]


def test_rows_with_their_times(store: FeatureStore) -> None:
    answer = store.get_online_features(
        ["driver_stats:trips", "weather:wind"], {"driver_id": [1001, 9]}
    )

    assert answer.to_dict(include_event_timestamps=True) == {
        "driver_id": [1001, 9],
        "trips": [30, None],
        "wind": [2.5, 2.5],
        "driver_id__ts": [0, 0],
        "trips__ts": [int(T0.timestamp()), 0],
        "wind__ts": [int((T0 - HOUR).timestamp())] * 2,
    }
    assert list(answer.to_df(include_event_timestamps=True)) == list(
        answer.to_dict(include_event_timestamps=True)
    )
    assert [row.event_timestamps[0].seconds for row in answer.proto.results][1] == int(
        T0.timestamp()
    )


@pytest.mark.parametrize(
    "drivers",
    [
        [1001, 1002],
        (1001, 1002),
        np.array([1001, 1002]),
        np.array([1001, 1002], dtype="int32"),
        [np.int64(1001), np.int32(1002)],
        pd.Series([1001, 1002]),
        pa.array([1001, 1002]),
        pa.chunked_array([[1001], [1002]]),
        ["1001", "1002"],
        [1001.0, 1002.0],
    ],
    ids=[
        "list",
        "tuple",
        "numpy",
        "int32",
        "scalars",
        "pandas",
        "arrow",
        "chunked",
        "text",
        "float",
    ],
)
def test_keys_of_every_kind(store: FeatureStore, drivers: Any) -> None:
    answer = store.get_online_features(["driver_stats:trips"], {"driver_id": drivers}).to_dict()

    assert answer == {"driver_id": [1001, 1002], "trips": [30, 40]}
    assert [type(value) for value in answer["driver_id"]] == [int, int]


def test_values_of_protobuf_are_keys(store: FeatureStore) -> None:
    from feast.protos.feast.types.Value_pb2 import RepeatedValue, Value

    keys = [Value(int64_val=1001), Value(int64_val=1002)]
    for rows in ({"driver_id": RepeatedValue(val=keys)}, [{"driver_id": key} for key in keys]):
        assert store.get_online_features(["driver_stats:trips"], rows).to_dict()["trips"] == [
            30,
            40,
        ]


def test_times_are_keys(repository: Path) -> None:
    from feast.types import UnixTimestamp

    slot = Entity(name="slot", join_keys=["starts"])
    source = FileSource(name="slots", path="slots.parquet", timestamp_field="at")
    fields = [Field(name="starts", dtype=UnixTimestamp), Field(name="booked", dtype=Int64)]
    slots = FeatureView(
        name="slots", entities=[slot], ttl=timedelta(0), schema=fields, source=source
    )
    pq.write_table(
        pa.table({"starts": [T0, T0 + HOUR], "booked": [1, 2], "at": [T0, T0]}),
        repository / "slots.parquet",
    )
    store = FeatureStore(repo_path=str(repository))
    store.apply([slot, slots])
    store.materialize(T0 - HOUR, T0)

    # A time without a zone is UTC, wherever the program runs.
    naive = T0.replace(tzinfo=None)
    for time in (T0, naive, pd.Timestamp(T0), pd.Timestamp(naive), np.datetime64(naive, "ns")):
        times = np.array([time]) if isinstance(time, np.datetime64) else [time]
        assert store.get_online_features(["slots:booked"], {"starts": times}).to_dict()[
            "booked"
        ] == [1], repr(time)
    with pytest.raises(FeastError, match="starts"):
        store.get_online_features(["slots:booked"], {"starts": [pd.NaT]})


def test_an_entity_named_unlike_its_key(store: FeatureStore) -> None:
    rows = [{"driver": 1001}]
    assert store.get_online_features(["driver_stats:trips"], rows).to_dict()["trips"] == [30]
    assert offline(store, ["driver_stats:trips"], rows)["trips"] == [30]


def test_columns_of_sources_have_names_of_their_own(repository: Path) -> None:
    source = FileSource(
        name="raw",
        path="raw.parquet",
        timestamp_field="event_time",
        created_timestamp_column="insert_time",
        field_mapping={"ts": "event_time", "ins": "insert_time", "drv": "driver_id", "n": "trips"},
    )
    raw = FeatureView(
        name="raw",
        entities=[driver],
        ttl=timedelta(days=1),
        schema=[
            Field(name="driver_id", dtype=Int64),
            Field(name="trips", dtype=Int64),
            Field(name="note", dtype=String),
        ],
        source=source,
    )
    columns = {
        "drv": [1, 1],
        "n": [5, 6],
        "note": ["a", "b"],
        "ts": [T0, T0],
        "ins": [T0 + HOUR, T0],
    }
    pq.write_table(pa.table(columns), repository / "raw.parquet")
    store = FeatureStore(repo_path=str(repository))
    store.apply([driver, raw])
    store.materialize(T0 - HOUR, T0)

    assert both(store, ["raw:trips", "raw:note"], [{"driver_id": 1}]) == {
        "trips": [5],
        "note": ["a"],
    }
