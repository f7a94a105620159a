"""Entity rows of online requests that are wrong."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
import pytest
from drivers import T0
from inputs import (
    TRIPS,
)
from told import says_how

ENTITIES: dict[str, tuple[Any, type[Exception], str]] = {
    "nothing": (None, TypeError, "is of class NoneType"),
    "text": ("x", TypeError, "is of class str"),
    "frame": (pd.DataFrame({"driver_id": [1]}), TypeError, "is of class DataFrame"),
    "no rows": ([], ValueError, "`entity_rows` is empty"),
    "no columns": ({}, KeyError, "lack the join keys `driver_id`"),
    "empty row": ([{}], KeyError, "lack the join keys `driver_id`"),
    "another column": ([{"x": 1}], KeyError, "the columns given are `x`"),
    "rows of numbers": (
        [5],
        TypeError,
        "row 1 of `entity_rows` must be a mapping, but is of class int",
    ),
    "rows of lists": ([[1]], TypeError, "is of class list"),
    "column is a number": ({"driver_id": 1001}, TypeError, "must be a list, but is 1001 (int)"),
    "column name is a number": ([{5: 1}], TypeError, "one is 5 (int)"),
    "ragged rows": ([{"driver_id": 1}, {}], ValueError, "row 1 has `driver_id`, row 2 has none"),
    "ragged columns": ({"driver_id": [1, 2], "x": [1]}, ValueError, "differ in length"),
    "null": ([{"driver_id": None}], KeyError, "join key `driver_id` is null in row 0"),
    "NaN": ([{"driver_id": math.nan}], KeyError, "is null in row 0"),
    "NaT": ([{"driver_id": 1}, {"driver_id": pd.NaT}], KeyError, "is null in row 1"),
    "NA": ([{"driver_id": pd.NA}], KeyError, "is null in row 0"),
    "text key": (
        [{"driver_id": "abc"}],
        ValueError,
        "`abc` in row 0, which is not a value of type INT64",
    ),
    "fraction": ([{"driver_id": 1.5}], ValueError, "`1.5` in row 0"),
    "boolean": ([{"driver_id": True}], ValueError, "is Boolean, but INT64 is expected"),
    "bytes": ([{"driver_id": b"a"}], ValueError, "is Binary, but INT64 is expected"),
    "huge": ([{"driver_id": 2**70}], ValueError, "1180591620717411303424"),
    "list": ([{"driver_id": [1]}], ValueError, "`[1]` in row 0"),
    "dictionary": ([{"driver_id": {1: 1}}], ValueError, "is not a value of type INT64"),
    "object": ([{"driver_id": object()}], ValueError, "a value of type `object`"),
    "mixed": ([{"driver_id": 1}, {"driver_id": "a"}], ValueError, "`a` in row 1"),
    "time": ([{"driver_id": T0}], ValueError, "but INT64 is expected"),
    "broken text": ([{"driver_id": "\ud800"}], ValueError, "not valid Unicode"),
}


@pytest.mark.parametrize("name", ENTITIES)
def test_wrong_online_requests_are_refused(name, shared):
    rows, kind, expected = ENTITIES[name]
    with pytest.raises(kind) as caught:
        shared.get_online_features(TRIPS, rows)
    says_how(caught.value, expected)
