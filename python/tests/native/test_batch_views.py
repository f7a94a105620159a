"""Batch feature views whose rows are computed: by queries, by functions, and from other views."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from drivers import HOUR, T0

from feast import (
    Aggregation,
    BatchFeatureView,
    Entity,
    FeatureStore,
    FeatureView,
    Field,
    FileSource,
    ValueType,
)
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Float64, Int64, String

# The name of the entity is not that of its key: Feast's local engine takes one for the other.
driver = Entity(name="driver", join_keys=["driver_id"], value_type=ValueType.INT64)
source = FileSource(
    name="stats",
    path="stats.parquet",
    timestamp_field="event_timestamp",
    created_timestamp_column="created",
)


def batch_view(
    name: str, mode: str, text: str, schema: list[Field], **more: Any
) -> BatchFeatureView:
    """A view whose function is given as text, as a registry keeps it."""
    scope: dict[str, Any] = {}
    exec(text, scope)  # noqa: S102
    given = {"source": source, "entities": [driver], "ttl": timedelta(0), "online": True, **more}
    return BatchFeatureView(
        name=name, mode=mode, udf=scope["computed"], udf_string=text, schema=schema, **given
    )


def applied(repository: Path, *views: Any) -> FeatureStore:
    """A store with these views."""
    store = FeatureStore(repo_path=str(repository))
    store.apply([driver, source, *views])
    return store


def served(store: FeatureStore, view: str, features: list[str]) -> list[tuple[Any, ...]]:
    """What is served of the three drivers."""
    rows = [{"driver_id": driver_id} for driver_id in (1001, 1002, 1003)]
    answer = store.get_online_features([f"{view}:{name}" for name in features], rows).to_dict()
    return list(zip(*(answer[name] for name in features)))


SQL = '''
def computed(stats):
    return f"""
        SELECT driver_id, event_timestamp, created, trips * 2 AS double_trips, upper(city) AS city
        FROM {stats} WHERE trips <> 20
    """
'''
PANDAS = """
def computed(df):
    import pandas as pd

    # Looks at several rows of a driver together: it must get them all at once.
    df["before"] = df.sort_values(["event_timestamp", "created"]).groupby("driver_id")["trips"].shift()
    df["label"] = "d" + df["driver_id"].astype(str)
    return df[["driver_id", "event_timestamp", "created", "before", "label"]]
"""
PYTHON = """
def computed(df):
    return [
        {"driver_id": row.driver_id, "event_timestamp": row.event_timestamp, "halved": row.trips / 2}
        for row in df.itertuples()
    ]
"""


def test_queries_run_over_the_source_by_its_name(repository: Path) -> None:
    schema = [Field(name="double_trips", dtype=Int64), Field(name="city", dtype=String)]
    store = applied(repository, batch_view("doubled", "sql", SQL, schema))
    store.materialize(T0 - 2 * HOUR, T0, ["doubled"])
    assert served(store, "doubled", ["double_trips", "city"]) == [
        (60, "C"),
        (80, None),
        (None, None),
    ]
    # The newest row of 1001 but one was left out by the query, not by the engine.
    store.materialize_incremental(T0 + HOUR, ["doubled"])
    assert served(store, "doubled", ["double_trips"]) == [(60,), (80,), (None,)]


def test_pandas_functions_see_all_rows_of_the_window(repository: Path) -> None:
    schema = [Field(name="before", dtype=Float64), Field(name="label", dtype=String)]
    store = applied(repository, batch_view("shifted", "pandas", PANDAS, schema))
    store.materialize(T0 - 100 * HOUR, T0, ["shifted"])
    assert served(store, "shifted", ["before", "label"]) == [
        (20.0, "d1001"),
        (None, "d1002"),
        (None, "d1003"),
    ]


def test_functions_see_columns_of_lists(repository: Path) -> None:
    rows = pq.read_table(repository / "stats.parquet")
    pq.write_table(
        rows.append_column("tags", [[["a", "b"]] * len(rows)]), repository / "stats.parquet"
    )
    text = """
def computed(df):
    df["n_tags"] = df["tags"].map(len)
    return df
"""
    store = applied(
        repository, batch_view("tagged", "pandas", text, [Field(name="n_tags", dtype=Int64)])
    )
    store.materialize(T0 - 2 * HOUR, T0, ["tagged"])
    assert served(store, "tagged", ["n_tags"]) == [(2,), (2,), (None,)]


def test_python_functions_may_return_plain_rows(repository: Path) -> None:
    store = applied(
        repository, batch_view("halved", "python", PYTHON, [Field(name="halved", dtype=Float64)])
    )
    store.materialize(T0 - HOUR, T0, ["halved"])
    assert served(store, "halved", ["halved"])[1] == (20.0,)


def test_views_are_chained(repository: Path) -> None:
    plain = FeatureView(
        name="plain",
        entities=[driver],
        schema=[Field(name="trips", dtype=Int64)],
        source=source,
    )
    first = batch_view(
        "doubled",
        "sql",
        SQL,
        [Field(name="double_trips", dtype=Int64), Field(name="city", dtype=String)],
    )
    text = '''
def computed(doubled, plain):
    return f"""
        SELECT a.driver_id, a.event_timestamp, a.double_trips + b.trips AS total
        FROM {doubled} a JOIN {plain} b ON a.driver_id = b.driver_id
    """
'''
    second = batch_view(
        "total",
        "sql",
        text,
        [Field(name="total", dtype=Int64)],
        source=[first, plain],
        sink_source=FileSource(
            name="sink", path="pushed.parquet", timestamp_field="event_timestamp"
        ),
    )
    store = applied(repository, first, plain, second)
    store.materialize(T0 - 100 * HOUR, T0, ["total"])
    assert served(store, "total", ["total"]) == [(90,), (120,), (150,)]


@pytest.mark.parametrize(
    ("mode", "text", "reason"),
    [
        (
            "sql",
            "def computed(stats):\n    return 'SELECT * FROM elsewhere'",
            "names a table `elsewhere`",
        ),
        ("sql", "def computed(stats):\n    return 'DROP TABLE stats'", "DROP TABLE"),
        ("sql", "def computed(stats):\n    return f'SELECT nothing FROM {stats}'", "nothing"),
        ("sql", "def computed(stats):\n    return 5", "returns a query as text"),
        ("pandas", "def computed(df):\n    raise ValueError('no luck')", "ValueError: no luck"),
        ("pandas", "def computed(df):\n    return df[['driver_id', 'trips']]", "event_timestamp"),
        ("pandas", "def computed(df):\n    return df.drop(columns=['trips'])", "trips"),
        ("pandas", "def computed(df):\n    return 5", "returned rows"),
    ],
)
def test_what_goes_wrong_names_the_view(
    repository: Path, mode: str, text: str, reason: str
) -> None:
    store = applied(repository, batch_view("wrong", mode, text, [Field(name="trips", dtype=Int64)]))
    with pytest.raises(Exception, match=reason) as raised:
        store.materialize(T0 - HOUR, T0, ["wrong"])
    assert "wrong" in str(raised.value)
    assert store.get_feature_view("wrong").materialization_intervals == []


def test_pickled_code_is_never_loaded(repository: Path) -> None:
    class Hostile:
        def __reduce__(self) -> Any:
            return (Path.touch, (repository / "executed",))

    import pickle

    view = batch_view(
        "hostile", "pandas", "def computed(df):\n    return df", [Field(name="trips", dtype=Int64)]
    )
    view.feature_transformation._body = pickle.dumps(Hostile())
    view.feature_transformation.udf = None
    store = applied(repository, view)
    store.materialize(T0 - HOUR, T0, ["hostile"])
    assert served(store, "hostile", ["trips"])[0] == (30,)
    assert not (repository / "executed").exists()


def trained(
    store: FeatureStore, rows: list[tuple[int, datetime]], features: list[str]
) -> list[tuple[Any, ...]]:
    """The values of the features for keys at times."""
    ids, times = zip(*rows)
    frame = pa.table({"driver_id": list(ids), "event_timestamp": list(times)})
    answer = store.get_historical_features(frame, features).to_arrow()
    return list(zip(*(answer[name.split(":")[1]].to_pylist() for name in features)))


ASKED = [(1001, T0 - HOUR), (1001, T0), (1002, T0 - 2 * HOUR), (1002, T0 + HOUR), (9, T0)]


@pytest.mark.parametrize(
    ("mode", "text", "feature", "values"),
    [
        ("sql", SQL, Field(name="double_trips", dtype=Int64), [20, 60, None, 80, None]),
        ("pandas", PANDAS, Field(name="before", dtype=Float64), [None, 20.0, None, None, None]),
        ("python", PYTHON, Field(name="halved", dtype=Float64), [5.0, 15.0, None, 20.0, None]),
    ],
)
def test_training_data_is_of_the_computed_rows(
    repository: Path, mode: str, text: str, feature: Field, values: list[Any]
) -> None:
    # `halved` has no created time, so of two rows at one time it is the last one that counts.
    store = applied(repository, batch_view("made", mode, text, [feature]))
    job = store.get_historical_features(
        pa.table(
            {"driver_id": [row[0] for row in ASKED], "event_timestamp": [row[1] for row in ASKED]}
        ),
        [f"made:{feature.name}"],
    )
    assert job.to_arrow()[feature.name].to_pylist() == values
    assert "the computed rows of made" in job.explain()
    without_rows = store.get_historical_features(
        None, [f"made:{feature.name}"], start_date=T0 - HOUR, end_date=T0 + HOUR
    )
    assert set(without_rows.to_arrow()["driver_id"].to_pylist()) == {1001, 1002}


def test_training_data_keeps_to_the_ttl_and_to_what_was_known(repository: Path) -> None:
    schema = [Field(name="double_trips", dtype=Int64)]
    view = batch_view("doubled", "sql", SQL, schema, ttl=HOUR)
    store = applied(repository, view)
    asked = [(1002, T0), (1002, T0 + HOUR), (1001, T0)]
    assert trained(store, asked, ["doubled:double_trips"]) == [(80,), (None,), (60,)]
    frame = pa.table({"driver_id": [1001], "event_timestamp": [T0]})
    known = store.get_historical_features(
        frame, ["doubled:double_trips"], filter_by_created_timestamp=True
    )
    # The row that is doubled to 60 was written a minute later.
    assert known.to_arrow()["double_trips"].to_pylist() == [None]
    assert known.leak_report()[0]["changed"] == 1


def test_training_data_of_aggregates_is_what_would_have_been_served(repository: Path) -> None:
    view = BatchFeatureView(
        name="summed",
        source=source,
        entities=[driver],
        online=True,
        ttl=timedelta(days=2),
        schema=[Field(name="sum_trips", dtype=Int64), Field(name="count_trips_3600s", dtype=Int64)],
        aggregations=[
            Aggregation(column="trips", function="sum"),
            Aggregation(column="trips", function="count", time_window=HOUR),
        ],
    )
    store = applied(repository, view)
    asked = [
        (1001, T0 - HOUR),
        (1001, T0),
        (1001, T0 + 2 * HOUR),
        (1001, T0 + 47 * HOUR),
        (1001, T0 + 49 * HOUR),
        (1002, T0 - 2 * HOUR),
    ]
    features = ["summed:sum_trips", "summed:count_trips_3600s"]
    found = trained(store, asked, features)
    assert found == [(10, 1), (60, 2), (60, 0), (50, 0), (None, None), (None, None)]
    # The same after runs that end at these times.
    for (driver_id, time), expected in zip(asked[:4], found):
        again = FeatureStore(repo_path=str(repository))
        again.teardown()
        applied(repository, view).materialize(time - timedelta(days=2), time, ["summed"])
        values = served(store, "summed", ["sum_trips", "count_trips_3600s"])
        assert values[driver_id - 1001] == expected, time


def test_training_data_of_chained_views_is_computed_or_read_from_the_sink(repository: Path) -> None:
    first = batch_view("doubled", "sql", SQL, [Field(name="double_trips", dtype=Int64)])
    plain = FeatureView(
        name="plain", entities=[driver], schema=[Field(name="trips", dtype=Int64)], source=source
    )
    text = '''
def computed(doubled, plain):
    return f"""
        SELECT a.driver_id, a.event_timestamp, a.double_trips + b.trips AS total
        FROM {doubled} a JOIN {plain} b ON a.driver_id = b.driver_id
    """
'''
    sink = FileSource(name="sink", path="sink.parquet", timestamp_field="event_timestamp")
    second = batch_view(
        "total",
        "sql",
        text,
        [Field(name="total", dtype=Int64)],
        source=[first, plain],
        sink_source=sink,
        offline=True,
    )
    store = applied(repository, first, plain, second)
    assert trained(store, ASKED, ["total:total"]) == [(30,), (90,), (None,), (120,), (None,)]
    # A materialization writes to the sink, from where training data is read then.
    store.materialize(T0 - 100 * HOUR, T0, ["total"])
    assert served(store, "total", ["total"]) == [(90,), (120,), (150,)]
    rows = pq.read_table(repository / "sink.parquet")
    assert sorted(rows["total"].to_pylist()) == [90, 120, 150]
    assert set(rows.column_names) == {"driver_id", "event_timestamp", "total"}
    assert trained(store, ASKED, ["total:total"]) == [(None,), (90,), (None,), (120,), (None,)]
    # Once more, and what was there stays.
    store.materialize(T0 - 100 * HOUR, T0 - HOUR, ["total"])
    assert sorted(pq.read_table(repository / "sink.parquet")["total"].to_pylist()) == [
        30,
        90,
        120,
        120,
        150,
        150,
    ]
    assert trained(store, ASKED, ["total:total"]) == [(30,), (90,), (None,), (120,), (None,)]


made_by_query = batch_view("doubled", "sql", SQL, [Field(name="double_trips", dtype=Int64)])


@on_demand_feature_view(
    entities=[driver],
    sources=[made_by_query],
    schema=[Field(name="driver_id", dtype=Int64), Field(name="quadruple", dtype=Int64)],
    mode="python",
    write_to_online_store=True,
)
def quadrupled(inputs: dict[str, Any]) -> dict[str, Any]:
    return {"quadruple": [None if trips is None else 2 * trips for trips in inputs["double_trips"]]}


def test_on_demand_views_are_computed_of_the_computed_rows(repository: Path) -> None:
    store = applied(repository, made_by_query, quadrupled)
    assert trained(store, ASKED, ["quadrupled:quadruple"]) == [
        (40,),
        (120,),
        (None,),
        (160,),
        (None,),
    ]
    store.materialize(T0 - 2 * HOUR, T0, ["quadrupled"])
    assert served(store, "quadrupled", ["quadruple"]) == [(120,), (160,), (None,)]


def test_a_view_that_is_not_online_is_materialized_into_its_sink(repository: Path) -> None:
    plain = FeatureView(
        name="plain", entities=[driver], schema=[Field(name="trips", dtype=Int64)], source=source
    )
    kept = BatchFeatureView(
        name="kept",
        source=[plain],
        sink_source=FileSource(name="sink", path="sink", timestamp_field="at"),
        entities=[driver],
        schema=[Field(name="trips", dtype=Int64)],
        online=False,
        offline=True,
    )
    store = applied(repository, plain, kept)
    store.materialize(T0 - 100 * HOUR, T0, ["kept"])
    assert len(store.get_feature_view("kept").materialization_intervals) == 1
    assert trained(store, ASKED[:2], ["kept:trips"]) == [(None,), (30,)]


def test_aggregations_are_by_join_key_and_over_windows_of_time(repository: Path) -> None:
    view = BatchFeatureView(
        name="summed",
        source=source,
        entities=[driver],
        online=True,
        schema=[
            Field(name="sum_trips", dtype=Int64),
            Field(name="count_trips_3600s", dtype=Int64),
            Field(name="mean_rate", dtype=Float64),
        ],
        aggregations=[
            Aggregation(column="trips", function="sum"),
            Aggregation(column="trips", function="count", time_window=HOUR),
            Aggregation(
                column="conv_rate", function="mean", name="mean_rate", time_window=3 * HOUR
            ),
        ],
    )
    store = applied(repository, view)
    assert store.get_feature_view("summed").aggregations == view.aggregations
    # The windows reach back before the start; the sum does not.
    store.materialize(T0 - HOUR, T0, ["summed"])
    found = served(store, "summed", ["sum_trips", "count_trips_3600s", "mean_rate"])
    assert [row[:2] for row in found] == [(50, 2), (40, 1), (None, None)]
    assert found[0][2] == pytest.approx(0.2)


def test_an_unknown_aggregation_is_told_with_those_there_are(repository: Path) -> None:
    view = BatchFeatureView(
        name="odd",
        source=source,
        entities=[driver],
        online=True,
        schema=[Field(name="odd", dtype=Int64)],
        aggregations=[Aggregation(column="trips", function="median_of_medians", name="odd")],
    )
    with pytest.raises(Exception, match="aggregates by `median_of_medians`"):
        applied(repository, view).materialize(T0 - HOUR, T0, ["odd"])
