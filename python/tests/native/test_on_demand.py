"""On-demand feature views, computed in this process: what functions are given, what may come back, and what is told."""

from __future__ import annotations

import asyncio
import json
import math
import os
import pickle
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from drivers import T0, definitions, write_repository

from feast import FeatureService, FeatureStore, Field, RequestSource
from feast.on_demand_feature_view import OnDemandFeatureView, on_demand_feature_view
from feast.transformation import _functions
from feast.types import Array, Float64, Int64, Map, String, UnixTimestamp

DRIVERS = definitions()
STATS: Any = DRIVERS["driver_stats"]
REQUEST = RequestSource(name="vals", schema=[Field(name="val", dtype=Int64)])
ROWS = [{"driver_id": 1001, "val": 5}, {"driver_id": 1002, "val": 6}, {"driver_id": 99, "val": 7}]
# The three drivers as 32 bit floats read them.
RATES = [0.30000001192092896, 0.4000000059604645, None]


@on_demand_feature_view(
    sources=[STATS, REQUEST],
    schema=[Field(name="plus", dtype=Float64), Field(name="seen", dtype=String)],
    mode="python",
)
def by_columns(inputs: dict[str, Any]) -> dict[str, Any]:
    rates = inputs["conv_rate"]
    assert rates == inputs["driver_stats__conv_rate"]
    return {
        "plus": [None if rate is None else rate + val for rate, val in zip(rates, inputs["val"])],
        "seen": [", ".join(sorted(inputs))] * len(rates),
    }


@on_demand_feature_view(
    sources=[STATS, REQUEST],
    schema=[Field(name="row_plus", dtype=Float64), Field(name="where", dtype=String)],
    mode="python",
    singleton=True,
)
def by_rows(inputs: dict[str, Any]) -> dict[str, Any]:
    rate = inputs["conv_rate"]
    return {
        "row_plus": None if rate is None else rate + inputs["val"],
        "where": f"{inputs['driver_id']} in {inputs['city']}",
    }


@on_demand_feature_view(
    sources=[STATS, REQUEST],
    schema=[Field(name="frame_plus", dtype=Float64), Field(name="dtypes", dtype=String)],
    mode="pandas",
)
def by_frame(df: pd.DataFrame) -> pd.DataFrame:
    out = pd.DataFrame()
    out["frame_plus"] = df["conv_rate"] + df["val"]
    out["dtypes"] = f"{df['conv_rate'].dtype} {df['val'].dtype} {df['driver_stats__trips'].dtype}"
    return out


VIEWS = [by_columns, by_rows, by_frame]


def opened(folder: Path, *views: Any) -> FeatureStore:
    """A store with the drivers and on-demand views, materialized."""
    store = FeatureStore(repo_path=str(write_repository(folder)))
    store.apply([*DRIVERS.values(), *views])
    store.materialize(T0 - timedelta(days=30), T0 + timedelta(days=1))
    return store


@pytest.fixture
def views(tmp_path: Path) -> FeatureStore:
    return opened(tmp_path, *VIEWS)


def entity_frame() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "driver_id": [row["driver_id"] for row in ROWS],
            "event_timestamp": [T0 + timedelta(minutes=5)] * len(ROWS),
            "val": [row["val"] for row in ROWS],
            "label": ["a", "b", "c"],
        }
    )


SUMS = [5.300000011920929, 6.4000000059604645, None]


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize(
    ("view", "feature"),
    [("by_columns", "plus"), ("by_rows", "row_plus"), ("by_frame", "frame_plus")],
)
def test_every_mode_gives_the_same_online_and_offline(
    views: FeatureStore, view: str, feature: str, full: bool
) -> None:
    name = f"{view}__{feature}" if full else feature
    request: dict[str, Any] = {"features": [f"{view}:{feature}"], "full_feature_names": full}
    online = views.get_online_features(entity_rows=ROWS, **request).to_dict()
    assert online == {"driver_id": [1001, 1002, 99], name: SUMS}
    awaited = asyncio.run(views.get_online_features_async(entity_rows=ROWS, **request)).to_dict()
    assert awaited == online
    offline = views.get_historical_features(entity_df=entity_frame(), **request).to_arrow()
    assert offline.column_names == ["driver_id", "event_timestamp", "val", "label", name]
    assert offline[name].to_pylist() == SUMS
    assert offline["driver_id"].to_pylist() == [1001, 1002, 99]


def test_functions_see_their_sources_and_nothing_else_of_the_request(views: FeatureStore) -> None:
    features = ["driver_push:trips", "by_columns:seen", "by_rows:where", "by_frame:dtypes"]
    answer = views.get_online_features(features=features, entity_rows=ROWS[:2]).to_dict()
    assert (
        answer["seen"]
        == [
            "city, conv_rate, driver_id, driver_stats__city, driver_stats__conv_rate, driver_stats__trips, trips, val"
        ]
        * 2
    )
    assert answer["where"] == ["1001 in c", "1002 in None"]
    assert answer["dtypes"] == ["float64 int64 int64"] * 2
    assert list(answer) == ["driver_id", "trips", "seen", "where", "dtypes"]
    history = views.get_historical_features(entity_df=entity_frame(), features=features).to_df()
    assert history["seen"].tolist()[:2] == answer["seen"]
    assert history["where"].tolist()[:2] == answer["where"]


def test_sources_that_were_asked_for_are_returned(views: FeatureStore) -> None:
    features = ["driver_stats:trips", "by_columns:plus"]
    answer = views.get_online_features(features=features, entity_rows=ROWS).to_dict()
    assert answer == {"driver_id": [1001, 1002, 99], "trips": [30, 40, None], "plus": SUMS}
    history = views.get_historical_features(entity_df=entity_frame(), features=features).to_df()
    assert list(history) == ["driver_id", "event_timestamp", "val", "label", "trips", "plus"]


def test_feature_services_take_parts_of_on_demand_views(tmp_path: Path) -> None:
    service = FeatureService(
        name="svc",
        features=[
            STATS[["trips"]],
            by_columns[["plus"]].with_name("renamed"),
            by_frame[["frame_plus"]],
        ],
    )
    store = opened(tmp_path, *VIEWS, service)
    answer = store.get_online_features(
        features=store.get_feature_service("svc"), entity_rows=ROWS, full_feature_names=True
    )
    assert answer.to_dict() == {
        "driver_id": [1001, 1002, 99],
        "driver_stats__trips": [30, 40, None],
        "renamed__plus": SUMS,
        "by_frame__frame_plus": SUMS,
    }
    last = answer.proto.results[-1]
    assert set(last.statuses) == {1}
    assert [time.seconds for time in last.event_timestamps] == [0, 0, 0]


def test_several_sources_and_aliases_have_their_own_names(tmp_path: Path) -> None:
    pushed: Any = DRIVERS["driver_push"]

    @on_demand_feature_view(
        sources=[STATS[["trips"]], pushed[["trips"]]],
        schema=[Field(name="both", dtype=Int64), Field(name="names", dtype=String)],
        mode="python",
    )
    def both_views(inputs: dict[str, Any]) -> dict[str, Any]:
        both = zip(inputs["driver_stats__trips"], inputs["driver_push__trips"])
        return {
            "both": [None if a is None or b is None else a + b for a, b in both],
            "names": [", ".join(sorted(inputs))] * len(inputs["driver_id"]),
        }

    store = opened(tmp_path, both_views)
    rows = [{"driver_id": 1001}, {"driver_id": 99}]
    answer = store.get_online_features(
        features=["both_views:both", "both_views:names"], entity_rows=rows
    ).to_dict()
    assert answer["both"] == [60, None]
    # Nobody could say which `trips` is meant.
    assert answer["names"] == ["driver_id, driver_push__trips, driver_stats__trips"] * 2


def test_what_a_function_returns_is_brought_to_the_declared_types_or_refused(
    tmp_path: Path,
) -> None:
    results: dict[str, Any] = {}

    def returning(name: str, dtype: Any, text: str) -> OnDemandFeatureView:
        source = f"def f(inputs):\n    n = len(inputs['val'])\n    return {text}\n"
        namespace: dict[str, Any] = {}
        exec(source, namespace)  # noqa: S102
        results[name] = text
        return OnDemandFeatureView(
            name=name,
            sources=[REQUEST],
            schema=[Field(name=f"x_{name}", dtype=dtype)],
            udf=namespace["f"],
            udf_string=source,
            mode="python",
        )

    good = {
        "whole": (Int64, "{'x_whole': [1.0] * n}", 1),
        "numpy": (Float64, "{'x_numpy': np.ones(n, dtype='float32')}", 1.0),
        "texts": (Array(String), "{'x_texts': [('a', 'b')] * n}", ["a", "b"]),
        "maps": (Map, "{'x_maps': [{'a': 1, 'b': None}] * n}", {"a": 1, "b": None}),
        "times": (UnixTimestamp, "{'x_times': [datetime(2026, 1, 1)] * n}", None),
        "full": (Int64, "{'full__x_full': [3] * n}", 3),
    }
    bad = {
        "missing": (Int64, "{'y': [1] * n}", "did not return `x_missing`, which it declares"),
        "half": (Int64, "{'x_half': [1.5] * n}", "column `x_half` has `1.5` in row 0"),
        "short": (
            Int64,
            "{'x_short': [1]}",
            "returned 1 values for `x_short`, expected 2, one for each row",
        ),
        "scalar": (
            Int64,
            "{'x_scalar': 1}",
            "returned a value of type `int` for `x_scalar`, expected a list",
        ),
        "text": (Int64, "{'x_text': ['one'] * n}", "column `x_text` has `one` in row 0"),
        "listed": (
            Int64,
            "[1] * n",
            "returned a value of type `list`, expected a dictionary of columns",
        ),
        "object": (
            Int64,
            "{'x_object': [object()] * n}",
            "a value of type `object`, which is not understood",
        ),
        "raising": (
            Int64,
            "{'x_raising': [1 // 0] * n}",
            "failed in line 3 of its function: ZeroDivisionError",
        ),
        "leaving": (Int64, "exit(3)", "SystemExit: 3"),
    }
    store = FeatureStore(repo_path=str(write_repository(tmp_path)))
    store.apply(
        [returning(name, dtype, text) for name, (dtype, text, _) in {**good, **bad}.items()],
        skip_feature_view_validation=True,
    )
    rows = [{"val": 1}, {"val": 2}]
    for name, (_, _, expected) in good.items():
        answer = store.get_online_features(
            features=[f"{name}:x_{name}"], entity_rows=rows
        ).to_dict()[f"x_{name}"]
        assert len(answer) == 2
        if expected is not None:
            assert answer == [expected] * 2, name
    for name, (_, _, words) in bad.items():
        with pytest.raises(RuntimeError) as caught:
            store.get_online_features(features=[f"{name}:x_{name}"], entity_rows=rows)
        assert f"on-demand feature view `{name}` " in str(caught.value)
        assert words in str(caught.value), name
    with pytest.raises(RuntimeError) as caught:
        store.get_online_features(features=["raising:x_raising"], entity_rows=rows)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    # The others still answer.
    assert store.get_online_features(features=["whole:x_whole"], entity_rows=rows).to_dict()[
        "x_whole"
    ] == [1, 1]


def test_frames_may_come_back_sorted_but_not_shortened(tmp_path: Path) -> None:
    @on_demand_feature_view(
        sources=[REQUEST], schema=[Field(name="back", dtype=Int64)], mode="pandas"
    )
    def sorted_frame(df: pd.DataFrame) -> pd.DataFrame:
        return df.sort_values("val", ascending=False).rename(columns={"val": "back"})

    @on_demand_feature_view(
        sources=[REQUEST], schema=[Field(name="few", dtype=Int64)], mode="pandas"
    )
    def shortened(df: pd.DataFrame) -> pd.DataFrame:
        return df[df["val"] < 2].rename(columns={"val": "few"})

    store = FeatureStore(repo_path=str(write_repository(tmp_path)))
    store.apply([sorted_frame, shortened])
    rows = [{"val": 1}, {"val": 3}, {"val": 2}]
    assert store.get_online_features(features=["sorted_frame:back"], entity_rows=rows).to_dict()[
        "back"
    ] == [1, 3, 2]
    with pytest.raises(RuntimeError, match="returned 1 values for `few`, expected 3"):
        store.get_online_features(features=["shortened:few"], entity_rows=rows)


def test_apply_tries_functions_and_tells_what_does_not_fit(tmp_path: Path) -> None:
    def view(name: str, schema: list[Field], text: str) -> OnDemandFeatureView:
        source = f"def f(inputs):\n    return {text}\n"
        namespace: dict[str, Any] = {}
        exec(source, namespace)  # noqa: S102
        return OnDemandFeatureView(
            name=name,
            sources=[REQUEST],
            schema=schema,
            udf=namespace["f"],
            udf_string=source,
            mode="python",
        )

    x = [Field(name="x", dtype=Int64)]
    wrong = [
        view("absent", x, "{'y': [1]}"),
        view("other_type", x, "{'x': ['a']}"),
        view("fails", x, "{'x': inputs['nope']}"),
        view("helper", x, "{'x': helper(inputs)}"),
    ]
    store = FeatureStore(repo_path=str(write_repository(tmp_path)))
    with pytest.raises(Exception) as caught:
        store.apply(wrong)
    told = str(caught.value)
    assert "declares feature `x`, but its function returns `y`" in told
    assert "declares feature `x` as INT64, but its function returns STRING" in told
    assert "failed in line 2 of its function: KeyError: 'nope'" in told
    assert "its source text uses `helper`, which it neither defines nor imports" in told
    store.apply(wrong, skip_feature_view_validation=True)

    # Without a schema, the features are what the function returns.
    store.apply([view("open", [], "{'a': [1.5], 'b': ['t']}")])
    features = store.get_on_demand_feature_view("open").features
    assert [(one.name, one.dtype) for one in features] == [("a", Float64), ("b", String)]


def test_names_that_clash_are_refused_at_apply(tmp_path: Path) -> None:
    def nothing(inputs: dict[str, Any]) -> dict[str, Any]:
        return {"x": inputs["trips"], "val": inputs["val"], "driver_id": inputs["val"]}

    def view(name: str, feature: str, *sources: Any) -> OnDemandFeatureView:
        return OnDemandFeatureView(
            name=name,
            sources=list(sources),
            schema=[Field(name=feature, dtype=Int64)],
            udf=nothing,
            udf_string="def nothing(inputs):\n    return {'x': [1], 'val': [1], 'driver_id': [1]}\n",
            mode="python",
        )

    store = FeatureStore(repo_path=str(write_repository(tmp_path)))
    clashes = {
        "an_input": (view("an_input", "val", STATS, REQUEST), "`val`"),
        "a_source": (
            view(
                "a_source",
                "x",
                STATS,
                RequestSource(name="r", schema=[Field(name="trips", dtype=Int64)]),
            ),
            "`trips`",
        ),
        "a_key": (
            view(
                "a_key",
                "x",
                STATS,
                RequestSource(name="r", schema=[Field(name="driver_id", dtype=Int64)]),
            ),
            "`driver_id`",
        ),
        "key_out": (view("key_out", "driver_id", STATS, REQUEST), "`driver_id`"),
        "source_out": (view("source_out", "trips", STATS, REQUEST), "`trips`"),
    }
    for name, (one, words) in clashes.items():
        with pytest.raises(Exception) as caught:
            store.apply([*DRIVERS.values(), one])
        assert name in str(caught.value) and words in str(caught.value), name


def test_code_comes_from_source_text_and_no_pickle_is_loaded_for_looking(tmp_path: Path) -> None:
    """A pickle in a registry is loaded when its view is used and has no text, never before, and never from elsewhere."""
    trap = tmp_path / "sprung"

    class Trap:
        def __reduce__(self) -> Any:
            return (Path.touch, (trap,))

    hostile = pickle.dumps(Trap())
    store = opened(tmp_path, *VIEWS)
    from feast.protos.feast.core.Registry_pb2 import Registry

    path = tmp_path / "registry.db"
    registry = Registry.FromString(path.read_bytes())
    for view in registry.on_demand_feature_views:
        view.spec.feature_transformation.user_defined_function.body = hostile
        view.spec.user_defined_function.body = hostile
    path.write_bytes(registry.SerializeToString())
    store = FeatureStore(repo_path=str(tmp_path))
    assert len(store.list_on_demand_feature_views()) == 3
    store.get_on_demand_feature_view("by_rows")
    for view, feature in [
        ("by_columns", "plus"),
        ("by_rows", "row_plus"),
        ("by_frame", "frame_plus"),
    ]:
        answer = store.get_online_features(
            features=[f"{view}:{feature}"], entity_rows=ROWS
        ).to_dict()
        assert answer[feature] == SUMS
    store.apply([by_rows])
    assert not trap.exists()

    # A view whose code does not load fails alone.
    registry = Registry.FromString(path.read_bytes())
    broken = next(one for one in registry.on_demand_feature_views if one.spec.name == "by_frame")
    broken.spec.feature_transformation.user_defined_function.body_text = "def by_frame(df:\n"
    broken.spec.feature_transformation.user_defined_function.body = b""
    path.write_bytes(registry.SerializeToString())
    store = FeatureStore(repo_path=str(tmp_path))
    with pytest.raises(
        RuntimeError, match="`by_frame` has a function that does not load: its source text"
    ):
        store.get_online_features(features=["by_frame:frame_plus"], entity_rows=ROWS)
    answer = store.get_online_features(features=["by_columns:plus"], entity_rows=ROWS)
    assert answer.to_dict()["plus"] == SUMS


def test_history_is_computed_batch_by_batch(views: FeatureStore) -> None:
    n = 200_000
    entity = pa.table(
        {
            "driver_id": pa.array([1001, 1002] * (n // 2)),
            "event_timestamp": pa.array([T0 + timedelta(minutes=5)] * n, pa.timestamp("us", "UTC")),
            "val": pa.array(range(n)),
        }
    )
    rows = views.get_historical_features(entity_df=entity, features=["by_columns:plus"]).to_arrow()
    assert rows.num_rows == n
    assert rows["plus"].num_chunks > 1
    assert rows["plus"][n - 1].as_py() == RATES[1] + n - 1


# --- written


@on_demand_feature_view(
    entities=[DRIVERS["driver"]],
    sources=[STATS],
    schema=[Field(name="driver_id", dtype=Int64), Field(name="percent", dtype=Float64)],
    mode="python",
    write_to_online_store=True,
)
def stored(inputs: dict[str, Any]) -> dict[str, Any]:
    return {"percent": [None if rate is None else rate * 100 for rate in inputs["conv_rate"]]}


@on_demand_feature_view(
    entities=[DRIVERS["driver"]],
    sources=[DRIVERS["driver_push"]],
    schema=[Field(name="driver_id", dtype=Int64), Field(name="twice", dtype=Int64)],
    mode="python",
    write_to_online_store=True,
)
def pushed_twice(inputs: dict[str, Any]) -> dict[str, Any]:
    return {"twice": [2 * trips for trips in inputs["trips"]]}


def percents(store: FeatureStore) -> list[Any]:
    rows = [{"driver_id": 1001}, {"driver_id": 1002}, {"driver_id": 7}]
    return store.get_online_features(features=["stored:percent"], entity_rows=rows).to_dict()[
        "percent"
    ]


def test_stored_views_are_materialized_and_written_and_not_computed_when_read(
    tmp_path: Path,
) -> None:
    store = FeatureStore(repo_path=str(write_repository(tmp_path)))
    store.apply([*DRIVERS.values(), stored])
    assert percents(store) == [None, None, None]
    store.materialize(T0 - timedelta(days=30), T0 + timedelta(days=1), feature_views=["stored"])
    assert percents(store) == [RATES[0] * 100, RATES[1] * 100, None]

    inputs = {"driver_id": [7], "conv_rate": [0.5], "trips": [1], "city": ["x"]}
    store.write_to_online_store("stored", inputs=inputs)
    assert percents(store)[2] == 50.0
    store.write_to_online_store(
        "stored", inputs={"driver_id": [7], "percent": [1.5]}, transform_on_write=False
    )
    assert percents(store)[2] == 1.5
    with pytest.raises(Exception, match="lack `trips`"):
        store.write_to_online_store(
            "stored", inputs={"driver_id": [7], "conv_rate": [0.5], "city": ["x"]}
        )
    # Training data is computed from the history of the sources.
    entity = pd.DataFrame({"driver_id": [1001], "event_timestamp": [T0 - timedelta(hours=1)]})
    history = store.get_historical_features(entity_df=entity, features=["stored:percent"]).to_df()
    assert history["percent"].tolist() == [0.10000000149011612 * 100]


@on_demand_feature_view(
    sources=[STATS],
    schema=[Field(name="tenfold", dtype=Float64)],
    mode="pandas",
    write_to_online_store=True,
)
def stored_without_entities(df: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame({"tenfold": df["conv_rate"] * 10})


def test_stored_views_have_the_entities_of_their_sources(tmp_path: Path) -> None:
    store = FeatureStore(repo_path=str(write_repository(tmp_path)))
    store.apply([*DRIVERS.values(), stored_without_entities])
    view = store.get_on_demand_feature_view("stored_without_entities")
    assert (view.entities, view.join_keys) == (["driver"], ["driver_id"])
    store.materialize(T0 - timedelta(days=30), T0 + timedelta(days=1))
    inputs = {"driver_id": [7], "conv_rate": [0.5], "trips": [1], "city": ["x"]}
    store.write_to_online_store("stored_without_entities", inputs=inputs)
    rows = [{"driver_id": driver_id} for driver_id in (1001, 7, 9)]
    answer = store.get_online_features(["stored_without_entities:tenfold"], rows).to_dict()
    assert answer == {"driver_id": [1001, 7, 9], "tenfold": [RATES[0] * 10, 5.0, None]}


@on_demand_feature_view(
    entities=[DRIVERS["driver"]],
    sources=[STATS, REQUEST],
    schema=[Field(name="driver_id", dtype=Int64), Field(name="asked", dtype=Float64)],
    mode="python",
    write_to_online_store=True,
)
def stored_request(inputs: dict[str, Any]) -> dict[str, Any]:
    return {"asked": [rate + val for rate, val in zip(inputs["conv_rate"], inputs["val"])]}


def test_what_needs_a_request_is_written_and_not_materialized(tmp_path: Path) -> None:
    store = FeatureStore(repo_path=str(write_repository(tmp_path)))
    store.apply([*DRIVERS.values(), stored, stored_request])
    store.materialize(T0 - timedelta(days=30), T0 + timedelta(days=1))
    assert percents(store)[0] == RATES[0] * 100
    with pytest.raises(NotImplementedError, match="it needs `val`, which only a request has"):
        store.materialize(T0 - timedelta(days=30), T0, feature_views=["stored_request"])
    inputs = {"driver_id": [7], "conv_rate": [0.5], "trips": [1], "city": ["x"], "val": [2]}
    store.write_to_online_store("stored_request", inputs=inputs)
    answer = store.get_online_features(
        features=["stored_request:asked"], entity_rows=[{"driver_id": 7}]
    )
    assert answer.to_dict()["asked"] == [2.5]


def test_a_push_brings_the_views_up_to_date_that_follow_from_it(tmp_path: Path) -> None:
    store = FeatureStore(repo_path=str(write_repository(tmp_path)))
    store.apply([*DRIVERS.values(), pushed_twice])
    row = {
        "driver_id": [1001],
        "event_timestamp": [T0],
        "created": [T0],
        "conv_rate": [0.9],
        "city": ["z"],
    }
    features = ["driver_push:trips", "pushed_twice:twice"]

    def read() -> list[Any]:
        answer = store.get_online_features(
            features=features, entity_rows=[{"driver_id": 1001}]
        ).to_dict()
        return [answer["trips"][0], answer["twice"][0]]

    store.push("push", pd.DataFrame({**row, "trips": [4]}))
    assert read() == [4, 8]
    store.push(
        "push",
        pd.DataFrame({**row, "event_timestamp": [T0 + timedelta(hours=1)], "trips": [5]}),
        transform_on_write=False,
    )
    assert read() == [5, 8]
    store.push("push", pd.DataFrame({**row, "trips": [4]}).iloc[:0])
    assert read() == [5, 8], "no rows change nothing"
    # A function that fails keeps the whole push from being written.
    with pytest.raises(RuntimeError, match="`pushed_twice` failed in line"):
        store.push(
            "push",
            pd.DataFrame({**row, "event_timestamp": [T0 + timedelta(hours=2)], "trips": [None]}),
        )
    assert read() == [5, 8]


SCALE = 3
LIMIT = None


def scaled(values: list[int]) -> list[int]:
    return [SCALE * one for one in values if LIMIT is None]


@on_demand_feature_view(sources=[REQUEST], schema=[Field(name="x", dtype=Int64)], mode="python")
def with_helpers(inputs: dict[str, Any]) -> dict[str, Any]:
    return {"x": scaled(inputs["val"])}


def test_what_a_function_uses_from_its_module_goes_with_it(tmp_path: Path) -> None:
    store = FeatureStore(repo_path=str(write_repository(tmp_path)))
    store.apply([with_helpers])
    view = store.get_on_demand_feature_view("with_helpers")
    assert view.transform_dict({"val": [1, 2]}) == {"val": [1, 2], "x": [3, 6]}
    answer = store.get_online_features(features=["with_helpers:x"], entity_rows=[{"val": 2}])
    assert answer.to_dict()["x"] == [6]


twice = lambda trips: 2 * (trips or 0)
NAMED = lambda inputs: {"y": [twice(one) for one in inputs["trips"]]}
LAMBDAS = {
    "text": OnDemandFeatureView(
        name="text",
        sources=[STATS],
        schema=[Field(name="y", dtype=Int64)],
        udf=lambda inputs: None,
        udf_string="lambda inputs: {'y': [2 * (one or 0) for one in inputs['trips']]}",
        mode="python",
    ),
    "argument": OnDemandFeatureView(
        name="argument",
        sources=[STATS],
        schema=[Field(name="y", dtype=Int64)],
        udf=lambda inputs: {"y": [twice(one) for one in inputs["trips"]]},
        mode="python",
    ),
    "named": OnDemandFeatureView(
        name="named",
        sources=[STATS],
        schema=[Field(name="y", dtype=Int64)],
        udf=NAMED,
        mode="python",
    ),
}


@pytest.mark.parametrize("name", LAMBDAS)
def test_a_function_may_be_a_lambda(name: str, tmp_path: Path) -> None:
    opened(tmp_path, LAMBDAS[name])
    # Another process has the text of the registry only.
    store = FeatureStore(repo_path=str(tmp_path))
    answer = store.get_online_features([f"{name}:y"], ROWS[:2]).to_dict()
    assert answer["y"] == [60, 80]


def test_which_of_several_lambdas_is_meant_cannot_be_told(tmp_path: Path) -> None:
    several = OnDemandFeatureView(
        name="several",
        sources=[STATS],
        schema=[Field(name="y", dtype=Int64)],
        udf=lambda inputs: None,
        udf_string="(lambda inputs: {}, lambda inputs: {})",
        mode="python",
    )
    with pytest.raises(ValueError, match="has no `def`, and not one `lambda`"):
        opened(tmp_path, several)


def test_the_tour_of_the_template_runs_to_its_end(tmp_path: Path) -> None:
    commands = tmp_path / "bin"
    commands.mkdir()
    (commands / "feast").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m feast._cli "$@"\n')
    (commands / "feast").chmod(0o755)
    environment = {**os.environ, "PATH": f"{commands}{os.pathsep}{os.environ['PATH']}"}

    def run(folder: Path, *command: str) -> str:
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run(tmp_path, "feast", "init", "rides")
    told = run(tmp_path / "rides/feature_repo", sys.executable, "test_workflow.py")
    rows: dict[str, list[list[float]]] = {}
    for line in told.splitlines():
        name, _, values = line.partition(" ")
        if values.strip().startswith("["):
            rows.setdefault(name, []).append(json.loads(values))
    stored, named, fresh = zip(
        rows["conv_rate"], rows["conv_rate_plus_val1"], rows["conv_rate_plus_val2"]
    )
    for rates, first, second in (stored, named, fresh):
        assert first == [rates[0] + 1000, rates[1] + 1001]
        assert second == [rates[0] + 2000, rates[1] + 2002]
    assert fresh[0][0] == pytest.approx(0.99)
    assert "conv_rate_plus_val1" in told.partition("--- load")[0]


def test_functions_may_use_the_feature_store_and_its_streams(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They run on a thread that Python has started: pyarrow gives up the interpreter there while it reads our streams."""
    monkeypatch.setenv("NESTED_REPOSITORY", str(tmp_path))
    source = """def nested(inputs):
    import os, threading
    from datetime import datetime, timezone
    import pandas
    from feast import FeatureStore
    store = FeatureStore(repo_path=os.environ["NESTED_REPOSITORY"])
    drivers = inputs["driver_id"]
    online = store.get_online_features(features=["driver_stats:trips"], entity_rows=[{"driver_id": one} for one in drivers])
    times = [datetime(2026, 11, 20, 13, tzinfo=timezone.utc)] * len(drivers)
    entity = pandas.DataFrame({"driver_id": drivers, "event_timestamp": times})
    history = store.get_historical_features(entity_df=entity, features=["driver_stats:trips"]).to_arrow()
    kind = type(threading.current_thread()).__name__
    return {"x": online.to_dict()["trips"], "y": history["trips"].to_pylist(), "kind": [kind] * len(drivers)}
"""
    namespace: dict[str, Any] = {}
    exec(source, namespace)  # noqa: S102
    view = OnDemandFeatureView(
        name="nested",
        sources=[STATS],
        schema=[
            Field(name="x", dtype=Int64),
            Field(name="y", dtype=Int64),
            Field(name="kind", dtype=String),
        ],
        udf=namespace["nested"],
        udf_string=source,
        mode="python",
    )
    opened(tmp_path)
    store = FeatureStore(repo_path=str(tmp_path))
    store.apply([*DRIVERS.values(), view])
    features = ["nested:x", "nested:y", "nested:kind"]
    rows = [{"driver_id": 1001}, {"driver_id": 1002}]
    for _ in range(20):
        answer = store.get_online_features(features=features, entity_rows=rows).to_dict()
        assert (answer["x"], answer["y"], answer["kind"]) == ([30, 40], [30, 40], ["Thread"] * 2)
    entity = pd.DataFrame({"driver_id": [1001], "event_timestamp": [T0 + timedelta(minutes=5)]})
    table = store.get_historical_features(entity_df=entity, features=features).to_arrow()
    assert (table["x"].to_pylist(), table["kind"].to_pylist()) == ([30], ["Thread"])


def test_frames_of_numbers_are_those_that_arrow_makes() -> None:
    columns = {
        "whole": pa.array([1, 2, -3]),
        "part": pa.array([0.5, None, math.nan]),
        "other": pa.array([2**60, 0, 5]),
        "none": pa.array([None] * 3, pa.float64()),
    }
    for names in (["whole", "part", "other", "none"], ["part"], ["other", "whole"]):
        chosen = {name: columns[name] for name in names}
        kinds = "".join("i" if pa.types.is_integer(one.type) else "f" for one in chosen.values())
        blocks = {"i": bytearray(), "f": bytearray()}
        for kind, column in zip(kinds, chosen.values()):
            blocks[kind] += column.to_numpy(zero_copy_only=False).tobytes()
        made = _functions.frame_of_numbers(tuple(names), kinds, 3, blocks["f"], blocks["i"])
        expected = pa.table(chosen).to_pandas()
        pd.testing.assert_frame_equal(made, expected)
        assert type(made.index) is type(expected.index)
        assert made.columns.dtype == expected.columns.dtype
        # What a function does to its frame, it does to no other.
        made["new"] = made[names[0]] + 1
        made.loc[0, names[0]] = 7
        made.columns.name = "named"
        again = _functions.frame_of_numbers(tuple(names), kinds, 3, blocks["f"], blocks["i"])
        assert again.columns.name is None
        assert list(again.columns) == names
