"""Frames of any library become Arrow streams and back, with their values unchanged."""

from __future__ import annotations

import datetime as dt
import uuid
import zoneinfo

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from feast import _frames, utils
from feast.errors import FeastExtrasDependencyImportError


def table(data) -> pa.Table:
    return pa.table(_frames.to_stream(data, "df"))


def test_pandas_columns_keep_their_types():
    frame = pd.DataFrame(
        {
            "id": np.array([1, 2], dtype="int64"),
            "naive": pd.to_datetime(["2026-01-01", "2026-01-02"]),
            "aware": pd.to_datetime(["2026-01-01", "2026-01-02"], utc=True),
            "text": ["2026-01-01T00:00:00Z", None],
            "float": [1.5, float("nan")],
            "list": [[1, 2], None],
            "category": pd.Categorical(["a", "b"]),
            "nullable": pd.array([1, None], dtype="Int64"),
            "objects": np.array([1, None], dtype=object),
        },
        index=pd.Index([7, 8], name="row"),
    )
    result = table(frame)

    assert result.column_names == list(frame.columns)  # the index is not a column
    assert result.schema.field("id").type == pa.int64()
    assert (
        pa.types.is_timestamp(result.schema.field("naive").type)
        and result.schema.field("naive").type.tz is None
    )
    assert result.schema.field("aware").type.tz == "UTC"
    assert result["text"].to_pylist() == ["2026-01-01T00:00:00Z", None]
    assert result["float"].to_pylist() == [1.5, None]
    assert result["list"].to_pylist() == [[1, 2], None]
    assert result["category"].to_pylist() == ["a", "b"] and not pa.types.is_dictionary(
        result["category"].type
    )
    assert result["nullable"].type == pa.int64() and result["nullable"].to_pylist() == [1, None]
    assert result["objects"].type == pa.int64() and result["objects"].to_pylist() == [1, None]


def test_uuids_become_text():
    one = uuid.UUID(int=1)
    assert table(pd.DataFrame({"id": [one, None]}))["id"].to_pylist() == [str(one), None]


def test_arrays_in_cells_become_lists():
    assert table(pd.DataFrame({"v": [np.array([1.0, 2.0]), None]}))["v"].to_pylist() == [
        [1.0, 2.0],
        None,
    ]


def test_a_mixed_column_is_named():
    with pytest.raises(
        ValueError, match="column `mixed` of `df` holds values that do not fit together"
    ):
        table(pd.DataFrame({"mixed": ["a", 1]}))


def test_a_repeated_column_is_named():
    with pytest.raises(ValueError, match="more than one column named `a`"):
        table(pd.DataFrame([[1, 2]], columns=["a", "a"]))


@pytest.mark.parametrize(
    "data",
    [
        pl.DataFrame({"id": [1, 2]}),
        pl.LazyFrame({"id": [1, 2]}),
        pa.table({"id": [1, 2]}),
        pa.record_batch({"id": [1, 2]}),
        pa.table({"id": [1, 2]}).to_reader(),
        {"id": [1, 2]},
    ],
)
def test_other_frames_pass_through(data):
    assert table(data)["id"].to_pylist() == [1, 2]


def test_arrow_is_not_copied():
    given = pa.table({"id": [1, 2]})
    assert _frames.to_stream(given, "df") is given


def test_what_is_no_frame_is_refused():
    with pytest.raises(
        TypeError, match="`df` must be a pandas, Polars or Arrow frame.*of class int"
    ):
        _frames.to_stream(3, "df")
    with pytest.raises(ValueError, match="equally long, but `a` has 1, `b` has 2"):
        _frames.to_stream({"a": [1], "b": [1, 2]}, "df")


def test_times_are_microseconds_in_utc():
    naive, aware = (
        dt.datetime(2026, 1, 1, 1, microsecond=7),
        dt.datetime(2026, 1, 1, 2, microsecond=7),
    )
    aware = aware.replace(tzinfo=dt.timezone(dt.timedelta(hours=1)))

    assert (
        _frames.microseconds(naive, "t")
        == _frames.microseconds(aware, "t")
        == 1_767_229_200_000_007
    )
    assert _frames.microseconds(pd.Timestamp("1969-12-31", tz="UTC"), "t") == -86_400_000_000
    with pytest.raises(TypeError, match="`start_date` must be a datetime, but is '2026'"):
        _frames.microseconds("2026", "start_date")


def test_integers_never_become_floats_in_pandas():
    whole = pa.table({"i": [1, 2], "b": [True, False], "f": [1.5, None]})
    gaps = pa.table({"i": [2**62 + 1, None], "b": [True, None], "f": [1.5, None]})

    assert {name: str(kind) for name, kind in _frames.to_pandas(whole).dtypes.items()} == {
        "i": "int64",
        "b": "bool",
        "f": "float64",
    }
    frame = _frames.to_pandas(gaps)
    assert (str(frame["i"].dtype), str(frame["b"].dtype)) == ("Int64", "boolean")
    assert frame["i"][0] == 2**62 + 1


class Moment(dt.datetime):
    """Subtracts as pendulum's times do, which Airflow hands to its tasks."""

    def __sub__(self, other):
        return f"from {other} to {self}"


def test_moments_of_every_library_are_the_same_microsecond():
    naive = (2026, 11, 1, 5, 30, 0, 1)
    expected = 1793511000000001
    paris = zoneinfo.ZoneInfo("Europe/Paris")
    for moment in (
        dt.datetime(*naive),
        dt.datetime(*naive, tzinfo=dt.UTC),
        dt.datetime(*naive, tzinfo=dt.UTC).astimezone(paris),
        Moment(*naive),
        Moment(*naive, tzinfo=dt.UTC),
        Moment(2026, 11, 1, 6, 30, 0, 1, tzinfo=paris),
        pd.Timestamp(dt.datetime(*naive), tz="UTC").tz_convert("Asia/Tokyo"),
    ):
        assert _frames.microseconds(moment, "start_date") == expected, repr(moment)


def test_the_second_of_two_equal_hours_is_later():
    zone = zoneinfo.ZoneInfo("America/New_York")
    for kind in (dt.datetime, Moment):
        first, second = (kind(2026, 11, 1, 1, 30, tzinfo=zone, fold=fold) for fold in (0, 1))
        hour = _frames.microseconds(second, "end") - _frames.microseconds(first, "end")
        assert hour == 3_600_000_000


@pytest.mark.parametrize("moment", ["2026-11-01", dt.date(2026, 11, 1), pd.NaT, None, 5])
def test_what_is_no_moment_is_named(moment):
    with pytest.raises(TypeError, match="`end_date` must be a datetime"):
        _frames.microseconds(moment, "end_date")


def test_what_is_missing_can_be_installed():
    # No package index has feast-rs: its extras cannot be installed by name.
    for extras, packages in {"pandas": "pandas pyarrow", "polars": "polars"}.items():
        told = str(FeastExtrasDependencyImportError(extras, "no frames"))
        assert told == f"no frames; install it with: pip install {packages}"


def test_times_that_scripts_make_with_feast_are_those_of_the_engine(monkeypatch):
    noon = dt.datetime(2026, 11, 1, 12)
    assert utils.make_tzaware(noon) == noon.replace(tzinfo=dt.UTC)
    tokyo = zoneinfo.ZoneInfo("Asia/Tokyo")
    assert utils.make_tzaware(noon.replace(tzinfo=tokyo)).tzinfo is tokyo
    assert utils.to_naive_utc(noon.replace(tzinfo=tokyo)) == dt.datetime(2026, 11, 1, 3)
    assert str(utils.get_default_yaml_file_path("repo")) == "repo/feature_store.yaml"
    monkeypatch.setenv("FEAST_FS_YAML_FILE_PATH", "/etc/feast.yaml")
    assert str(utils.get_default_yaml_file_path("repo")) == "/etc/feast.yaml"


def test_maps_are_dictionaries_as_they_are_served() -> None:
    maps = pa.array([[("a", 1), ("b", None)], None], pa.map_(pa.string(), pa.int64()))
    frame = _frames.to_pandas(pa.table({"x": maps}))
    assert list(frame["x"]) == [{"a": 1, "b": None}, None]
