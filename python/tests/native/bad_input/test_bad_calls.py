"""Rows to push and to append, and arguments of other calls, that are wrong."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from datetime import date
from typing import Any

import pandas as pd
import pytest
from drivers import HOUR, T0
from inputs import (
    PUSHED,
    TRIPS,
    frame,
    pushed,
)
from told import contents, is_clear, says_how

from feast import Entity, FeatureStore, FeatureView, FileSource, Project
from feast.data_source import PushMode
from feast.errors import (
    EntityDFNotDateTime,
    EntityNotFoundException,
    FeastEntityDFMissingColumnsError,
    FeatureServiceNotFoundException,
    FeatureViewNotFoundException,
    PushSourceNotFoundException,
)

PUSHES: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "no key": (lambda: pushed("driver_id"), FeastEntityDFMissingColumnsError, "lack `driver_id`"),
    "no time": (
        lambda: pushed("event_timestamp"),
        FeastEntityDFMissingColumnsError,
        "lack `event_timestamp`",
    ),
    "no created time": (
        lambda: pushed("created"),
        FeastEntityDFMissingColumnsError,
        "lack `created`",
    ),
    "no feature": (lambda: pushed("trips"), FeastEntityDFMissingColumnsError, "lack `trips`"),
    "no columns": (pd.DataFrame, FeastEntityDFMissingColumnsError, "lack `driver_id`, `conv_rate`"),
    "null key": (
        lambda: pushed(driver_id=[None]),
        KeyError,
        "join key `driver_id` is null in row 0",
    ),
    "null time": (lambda: pushed(event_timestamp=[None]), EntityDFNotDateTime, "is null in row 0"),
    "NaT": (lambda: pushed(event_timestamp=[pd.NaT]), EntityDFNotDateTime, "is null in row 0"),
    "text time": (
        lambda: pushed(event_timestamp=["x"]),
        ValueError,
        "`event_timestamp` has `x` in row 0",
    ),
    "text": (lambda: pushed(trips=["abc"]), ValueError, "`trips` has `abc` in row 0"),
    "fraction": (lambda: pushed(trips=[5.5]), ValueError, "`5.5` in row 0"),
    "infinity": (lambda: pushed(trips=[math.inf]), ValueError, "`inf` in row 0"),
    "huge": (lambda: pushed(trips=[2**70]), ValueError, "column `trips` of `df`"),
    "list": (
        lambda: pushed(trips=[[1]]),
        ValueError,
        "`trips` is List(Int64), but INT64 is expected",
    ),
    "boolean": (lambda: pushed(trips=[True]), ValueError, "`trips` is Boolean"),
    "too large": (lambda: pushed(conv_rate=[1e300]), ValueError, "not a value of type FLOAT"),
    "broken bytes": (lambda: pushed(city=[b"\xff"]), ValueError, "not a value of type STRING"),
    "number": (lambda: 5, TypeError, "is of class int"),
    "nothing": (lambda: None, TypeError, "is of class NoneType"),
    "rows": (lambda: [PUSHED], TypeError, "is of class list"),
}


@pytest.mark.parametrize("to", [PushMode.ONLINE, PushMode.ONLINE_AND_OFFLINE])
@pytest.mark.parametrize("name", PUSHES)
def test_wrong_pushes_are_refused(name, to, shared, applied):
    make, kind, expected = PUSHES[name]
    before = (applied / "pushed.parquet").read_bytes()
    with pytest.raises(kind) as caught:
        shared.push("push", make(), to=to)
    says_how(caught.value, expected)
    assert (applied / "pushed.parquet").read_bytes() == before
    answer = shared.get_online_features(["driver_push:trips"], [{"driver_id": 1001}]).to_dict()
    assert answer["trips"] == [30]


APPENDED: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "no feature": (lambda: pushed("trips"), FeastEntityDFMissingColumnsError, "missing `trips`"),
    "another column": (lambda: pushed(extra=[1]), FeastEntityDFMissingColumnsError, "`extra`"),
    "null key": (
        lambda: pushed(driver_id=[None]),
        KeyError,
        "join key `driver_id` is null in row 0",
    ),
    "null time": (lambda: pushed(event_timestamp=[None]), EntityDFNotDateTime, "is null in row 0"),
    "text time": (lambda: pushed(event_timestamp=["x"]), EntityDFNotDateTime, "holds `x`"),
    "text": (lambda: pushed(trips=["abc"]), ValueError, "'abc'"),
    "fraction": (lambda: pushed(trips=[5.5]), ValueError, "holds 5.5, which is not Int64"),
    "list": (lambda: pushed(trips=[[1]]), ValueError, "column `trips`"),
}


@pytest.mark.parametrize("name", APPENDED)
def test_wrong_appends_are_refused(name, shared, applied):
    make, kind, expected = APPENDED[name]
    before = contents(applied)
    calls = (
        lambda: shared.push("push", make(), to=PushMode.OFFLINE),
        lambda: shared.write_to_offline_store("driver_push", make()),
    )
    for call in calls:
        with pytest.raises(kind) as caught:
            call()
        says_how(caught.value, expected)
    assert contents(applied) == before


CALLS: dict[str, tuple[Callable[[FeatureStore], Any], type[Exception], str]] = {
    "unknown push source": (
        lambda s: s.push("pus", pushed()),
        PushSourceNotFoundException,
        "did you mean `push`?",
    ),
    "push nowhere": (
        lambda s: s.push("push", pushed(), to="nowhere"),
        ValueError,
        "`PushMode.ONLINE`",
    ),
    "write to no view": (
        lambda s: s.write_to_online_store("nope", pushed()),
        FeatureViewNotFoundException,
        "`nope`",
    ),
    "write nothing": (
        lambda s: s.write_to_online_store("driver_stats"),
        ValueError,
        "neither is given",
    ),
    "append to no view": (
        lambda s: s.write_to_offline_store("nope", pushed()),
        FeatureViewNotFoundException,
        "`nope`",
    ),
    "append too little": (
        lambda s: s.write_to_offline_store("driver_stats", pushed("trips")),
        FeastEntityDFMissingColumnsError,
        "missing `trips`",
    ),
    "end before start": (lambda s: s.materialize(T0, T0 - HOUR), ValueError, "is after `end_date`"),
    "times as text": (
        lambda s: s.materialize("x", "y"),
        TypeError,
        "`start_date` must be a datetime",
    ),
    "times as dates": (
        lambda s: s.materialize(date(2020, 1, 1), T0),
        TypeError,
        "must be a datetime",
    ),
    "no time": (
        lambda s: s.materialize_incremental(None),
        TypeError,
        "`end_date` must be a datetime",
    ),
    "materialize no view": (
        lambda s: s.materialize(T0, T0, ["nope"]),
        FeatureViewNotFoundException,
        "`nope`",
    ),
    "views as text": (
        lambda s: s.materialize(T0, T0, "driver_stats"),
        TypeError,
        "must be a list of names",
    ),
    "range as text": (
        lambda s: s.get_historical_features(None, TRIPS, start_date="2026-01-01"),
        TypeError,
        "`start_date` must be a datetime",
    ),
    "range backwards": (
        lambda s: s.get_historical_features(None, TRIPS, start_date=T0, end_date=T0 - HOUR).to_df(),
        ValueError,
        "is after the end",
    ),
    "rows and range": (
        lambda s: s.get_historical_features(frame()(), TRIPS, start_date=T0),
        ValueError,
        "cannot be combined",
    ),
    "get no entity": (
        lambda s: s.get_entity("drivr"),
        EntityNotFoundException,
        "did you mean `driver`?",
    ),
    "get no service": (
        lambda s: s.get_feature_service("x"),
        FeatureServiceNotFoundException,
        "`model`",
    ),
    "get a number": (lambda s: s.get_feature_view(5), TypeError, "must be a text, but is 5 (int)"),
    "delete no service": (
        lambda s: s.delete_feature_service("x"),
        FeatureServiceNotFoundException,
        "`model`",
    ),
    "apply nothing": (lambda s: s.apply(None), TypeError, "is not an object of a feature store"),
    "apply text": (lambda s: s.apply(["x"]), TypeError, "is not an object of a feature store"),
    "apply twice": (
        lambda s: s.apply([Entity(name="a"), Entity(name="a", description="b")]),
        ValueError,
        "entity `a` is defined twice",
    ),
    "apply without entity": (
        lambda s: s.apply(
            [
                FeatureView(
                    name="q",
                    entities=[Entity(name="e")],
                    source=FileSource(name="stats", path="stats.parquet"),
                )
            ]
        ),
        ValueError,
        "refers to entity `e`, which does not exist",
    ),
    "apply another project": (lambda s: s.apply([Project(name="other")]), ValueError, "`other`"),
    "delete what is not there": (
        lambda s: s.apply([], objects_to_delete=[Entity(name="zz")], partial=False),
        EntityNotFoundException,
        "`zz`",
    ),
    "plan nothing": (lambda s: s.plan(None), TypeError, "must be a RepoContents"),
    "save no job": (
        lambda s: s.create_saved_dataset(5, "x", None),
        TypeError,
        "must be a retrieval job",
    ),
    "persist nowhere": (
        lambda s: s.get_historical_features(frame()(), TRIPS).persist(None),
        TypeError,
        "must be a SavedDatasetStorage",
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_wrong_calls_are_refused(name, shared, applied):
    call, kind, expected = CALLS[name]
    before = contents(applied)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(kind) as caught:
            call(shared)
    # What is wrong with definitions is a list, with hints in lines of their own.
    if "\n    hint: " not in str(caught.value):
        says_how(caught.value, expected)
    is_clear(str(caught.value), expected)
    assert contents(applied) == before
