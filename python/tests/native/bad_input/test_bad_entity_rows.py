"""Entity rows and selections of training data that are wrong, or only clumsy."""

from __future__ import annotations

import decimal
from datetime import date, datetime
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from drivers import T0
from inputs import (
    ROW,
    TRIPS,
    frame,
)
from told import says_how

from feast import FeatureService
from feast.errors import (
    EntityDFNotDateTime,
    FeatureNameCollisionError,
    FeatureViewNotFoundException,
    InvalidFeaturesParameterType,
)

HISTORICAL: dict[str, tuple[Any, type[Exception], str]] = {
    "no join key": (
        lambda: pd.DataFrame({"event_timestamp": [T0]}),
        KeyError,
        "have no column `driver_id`",
    ),
    "join key as index": (
        lambda: pd.DataFrame(ROW).set_index("driver_id"),
        KeyError,
        "have no column `driver_id`",
    ),
    "columns without names": (
        lambda: pd.DataFrame([[1001, T0]]),
        KeyError,
        "their columns are `0` and `1`",
    ),
    "text keys": (
        frame(driver_id=["1001"]),
        ValueError,
        "convert the column of the entity rows to Int64",
    ),
    "boolean keys": (frame(driver_id=[True]), ValueError, "is Boolean in the entity rows"),
    "bytes keys": (frame(driver_id=[b"1"]), ValueError, "is Binary in the entity rows"),
    "list keys": (frame(driver_id=[[1]]), ValueError, "is List(Int64) in the entity rows"),
    "fraction keys": (frame(driver_id=[1001.5]), ValueError, "holds 1001.5, which is not Int64"),
    "huge keys": (frame(driver_id=[2**70]), ValueError, "column `driver_id` of `entity_df`"),
    "complex keys": (frame(driver_id=[1j]), ValueError, "column `driver_id` of `entity_df`"),
    "text categories": (frame(driver_id=pd.Categorical(["a"])), ValueError, "join key `driver_id`"),
    "mixed keys": (
        lambda: pd.DataFrame({"driver_id": [1, "a"], "event_timestamp": [T0, T0]}),
        ValueError,
        "column `driver_id` of `entity_df` holds values that do not fit together",
    ),
    "objects": (frame(x=[object()]), ValueError, "column `x` of `entity_df`"),
    "no time": (lambda: pd.DataFrame({"driver_id": [1001]}), EntityDFNotDateTime, "no time column"),
    "no columns": (pd.DataFrame, EntityDFNotDateTime, "have no columns"),
    "two times": (
        lambda: pd.DataFrame({"driver_id": [1001], "a": [T0], "b": [T0]}),
        EntityDFNotDateTime,
        "several time columns: `a` and `b`",
    ),
    "text time": (frame(event_timestamp=["yesterday"]), EntityDFNotDateTime, "holds `yesterday`"),
    "integer time": (frame(event_timestamp=[5]), EntityDFNotDateTime, "has type Int64, not a time"),
    "float time": (
        frame(event_timestamp=[5.5]),
        EntityDFNotDateTime,
        "has type Float64, not a time",
    ),
    "time of day": (
        lambda: pa.table({"driver_id": [1], "event_timestamp": pa.array([1], pa.time32("s"))}),
        EntityDFNotDateTime,
        "has type Time32(s), not a time",
    ),
    "time beyond all": (
        lambda: pa.table(
            {"driver_id": [1], "event_timestamp": pa.array([2**62], pa.timestamp("s"))}
        ),
        EntityDFNotDateTime,
        "does not fit into microseconds",
    ),
    "column twice in pandas": (
        lambda: pd.DataFrame([[1, 2, T0]], columns=["driver_id", "driver_id", "event_timestamp"]),
        ValueError,
        "more than one column named `driver_id`",
    ),
    "column twice in Arrow": (
        lambda: pa.Table.from_arrays(
            [pa.array([1]), pa.array([2]), pa.array([T0])],
            names=["driver_id", "driver_id", "event_timestamp"],
        ),
        ValueError,
        "more than one column named `driver_id`",
    ),
    "column called as a feature": (
        frame(trips=[5]),
        FeatureNameCollisionError,
        "`driver_stats__trips`",
    ),
    "Polars text": (
        lambda: pl.DataFrame({"driver_id": ["a"], "event_timestamp": [T0]}),
        ValueError,
        "join key `driver_id`",
    ),
    "nested Arrow": (
        lambda: pa.table({"driver_id": [{"a": 1}], "event_timestamp": [T0]}),
        ValueError,
        "join key `driver_id` is Struct",
    ),
    "array": (lambda: np.array([[1, 2]]), TypeError, "is of class numpy.ndarray"),
    "list": (lambda: [ROW], TypeError, "is of class list"),
    "number": (lambda: 5, TypeError, "is of class int"),
    "series": (lambda: pd.Series([1]), ValueError, "object of type `Series`"),
    "no SQL": (lambda: "selekt 1", ValueError, "the entity query cannot be run"),
    "empty SQL": (lambda: "", ValueError, "the entity query cannot be run"),
    "SQL without a time": (lambda: "select 1 as driver_id", EntityDFNotDateTime, "no time column"),
    "SQL of no table": (lambda: "select * from nope", ValueError, "names a table `nope`"),
    "SQL that drops": (lambda: "DROP TABLE stats", ValueError, "DDL not supported"),
    "SQL that writes": (lambda: "COPY (select 1) TO 'out.csv'", ValueError, "DML not supported"),
    "SQL that reads elsewhere": (
        lambda: "create external table t stored as csv location '/etc/passwd'",
        ValueError,
        "the entity query names a table `t`",
    ),
    "two queries": (lambda: "select 1; select 2", ValueError, "single SQL statement"),
    "no file": (lambda: "nope.parquet", FileNotFoundError, "there is no file at `nope.parquet`"),
}


@pytest.mark.parametrize("name", HISTORICAL)
def test_wrong_entity_rows_are_refused(name, shared):
    make, kind, expected = HISTORICAL[name]
    with pytest.raises(kind) as caught:
        shared.get_historical_features(make(), TRIPS).to_df()
    says_how(caught.value, expected)


HARMLESS: dict[str, tuple[Any, list[int | None]]] = {
    "null key": (
        lambda: pd.DataFrame({"driver_id": [1001, None], "event_timestamp": [T0, T0]}),
        [30, None],
    ),
    "whole floats": (frame(driver_id=[1001.0]), [30]),
    "decimal": (frame(driver_id=[decimal.Decimal(1001)]), [30]),
    "category": (frame(driver_id=pd.Categorical([1001])), [30]),
    "beyond signed": (frame(driver_id=np.array([2**64 - 1], dtype="uint64")), [None]),
    "no time in one row": (
        lambda: pd.DataFrame({"driver_id": [1001, 1002], "event_timestamp": [T0, pd.NaT]}),
        [30, None],
    ),
    "time as text": (frame(event_timestamp=["2026-11-20T12:00:00Z"]), [30]),
    "time in another zone": (frame(event_timestamp=["2026-11-20T13:00:00+01:00"]), [30]),
    "time without a zone": (frame(event_timestamp=[T0.replace(tzinfo=None)]), [30]),
    "zones mixed": (
        lambda: pd.DataFrame(
            {
                "driver_id": [1001] * 2,
                "event_timestamp": pd.Series([T0, T0.replace(tzinfo=None)], dtype=object),
            }
        ),
        [30, 30],
    ),
    "date": (frame(event_timestamp=[date(2026, 11, 21)]), [30]),
    "far future": (
        frame(event_timestamp=pd.Series([datetime(9999, 12, 31)], dtype=object)),
        [None],
    ),
    "far past": (frame(event_timestamp=pd.Series([datetime(1, 1, 1)], dtype=object)), [None]),
    "no rows": (lambda: pd.DataFrame(ROW).iloc[:0], []),
    "lazy": (lambda: pl.LazyFrame(ROW), [30]),
}


@pytest.mark.parametrize("name", HARMLESS)
def test_clumsy_entity_rows_are_understood(name, shared):
    make, trips = HARMLESS[name]
    table = shared.get_historical_features(make(), TRIPS).to_arrow()
    assert table.column("trips").to_pylist() == trips


SELECTIONS: dict[str, tuple[Any, type[Exception], str]] = {
    "nothing": (None, InvalidFeaturesParameterType, "is of class NoneType"),
    "text": ("driver_stats:trips", InvalidFeaturesParameterType, "is of class str"),
    "numbers": ([5], InvalidFeaturesParameterType, "holds an item of class int"),
    "no features": ([], ValueError, "no features were asked for"),
    "unknown view": (
        ["driver_stat:trips"],
        FeatureViewNotFoundException,
        "did you mean `driver_stats`?",
    ),
    "unknown feature": (["driver_stats:trip"], KeyError, "did you mean `trips`?"),
    "join key": (["driver_stats:driver_id"], KeyError, "has no feature `driver_id`"),
    "no view": (["trips"], ValueError, "invalid feature reference `trips`"),
    "twice": (TRIPS * 2, FeatureNameCollisionError, "would both be called `trips`"),
    "same name": ([*TRIPS, "driver_push:trips"], FeatureNameCollisionError, "full feature names"),
    "service of an unknown view": (
        FeatureService(name="z", features=["nope:a"]),
        ValueError,
        "unresolved references",
    ),
}


@pytest.mark.parametrize("name", SELECTIONS)
def test_wrong_selections_are_refused(name, shared):
    features, kind, expected = SELECTIONS[name]
    calls = (
        lambda: shared.get_historical_features(frame()(), features).to_df(),
        lambda: shared.get_online_features(features, [{"driver_id": 1001}]),
    )
    for call in calls:
        with pytest.raises(kind) as caught:
            call()
        says_how(caught.value, expected)
