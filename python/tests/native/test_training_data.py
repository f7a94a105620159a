"""Training data: every kind of entity rows in, every kind of frame out, kept and read again."""

from __future__ import annotations

import ctypes
import itertools
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from drivers import HOUR, T0

from feast import Entity, FeatureService, FeatureStore, FeatureView, Field, FileSource
from feast import types as ft
from feast.dataframe import FeastDataFrame
from feast.errors import SavedDatasetLocationAlreadyExists
from feast.infra.offline_stores.file_source import SavedDatasetFileStorage
from feast.retrieval_job import RetrievalJob

FEATURES = ["driver_stats:conv_rate", "driver_stats:trips"]
ROWS = pa.table(
    {
        "driver_id": [1003, 1001, 1002, 9],
        "event_timestamp": [T0, T0 - HOUR, T0, T0],
        "label": [1, 2, 3, 4],
    }
)
TRIPS = [None, 10, 40, None]


class Capsule:
    """An object that is known for nothing but its Arrow stream."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        return self._table.__arrow_c_stream__(requested_schema)


def generated(table: pa.Table) -> pa.RecordBatchReader:
    """A reader whose batches Python makes one at a time."""
    batches = (table.slice(at, 1).to_batches()[0] for at in range(len(table)))
    return pa.RecordBatchReader.from_batches(table.schema, batches)


# Entity rows.


@pytest.mark.parametrize(
    "entity_df",
    [
        ROWS.to_pandas(),
        ROWS,
        ROWS.to_batches()[0],
        generated(ROWS),
        Capsule(ROWS),
        pl.from_arrow(ROWS),
        pl.from_arrow(ROWS).lazy(),
        ROWS.to_pydict(),
        FeastDataFrame(ROWS.to_pandas()),
    ],
    ids=["pandas", "table", "batch", "generator", "capsule", "polars", "lazy", "columns", "feast"],
)
def test_entity_rows_of_every_kind(store: FeatureStore, entity_df: Any) -> None:
    job = store.get_historical_features(entity_df, FEATURES)

    # A stream can be read once, but a job runs as often as it is used.
    for _ in range(2):
        table = job.to_arrow()
        assert table.column_names == ["driver_id", "event_timestamp", "label", "conv_rate", "trips"]
        assert table["label"].to_pylist() == [1, 2, 3, 4]
        assert table["trips"].to_pylist() == TRIPS


def test_categories_stay_categories(store: FeatureStore) -> None:
    labels = pd.Categorical(["low", "high", "low", None], ["low", "high"], ordered=True)
    rows = ROWS.to_pandas().assign(label=labels, driver_id=pd.Categorical(ROWS["driver_id"]))
    frame = store.get_historical_features(rows, FEATURES).to_df()
    assert frame["label"].dtype == labels.dtype
    assert frame["label"].tolist()[:3] == ["low", "high", "low"]
    assert frame["label"].isna().tolist() == [False, False, False, True]
    # The join key has the type that its view declares.
    assert frame["driver_id"].dtype == "int64"
    assert frame["trips"].tolist()[1:3] == TRIPS[1:3]


def test_times_of_pandas_come_back_in_utc(store: FeatureStore) -> None:
    noon = pd.Timestamp(T0)
    rows = ROWS.to_pandas().assign(
        event_timestamp=noon.tz_convert("America/New_York"), seen=noon.tz_localize(None)
    )
    frame = store.get_historical_features(rows, FEATURES).to_df()
    for name in ("event_timestamp", "seen"):
        assert str(frame[name].dt.tz) == "UTC"
        assert (frame[name] == noon).all()
    assert frame["trips"].tolist()[1:3] == [30, 40]
    # Who gives other frames, or wants it so, gets times as they came.
    polars = store.get_historical_features(pl.from_pandas(rows), FEATURES).to_polars()
    assert polars["event_timestamp"].dtype.time_zone == "America/New_York"
    with (store.repo_path / "feature_store.yaml").open("a") as file:
        file.write("coerce_tz_aware: false\n")
    store = FeatureStore(repo_path=str(store.repo_path))
    as_given = store.get_historical_features(rows, FEATURES).to_df()
    assert str(as_given["event_timestamp"].dt.tz) == "America/New_York"
    assert as_given["seen"].dt.tz is None


@pytest.mark.parametrize("name", ["rows.parquet", "rows of today.parquet", "rows.csv"])
def test_entity_rows_in_a_file(
    store: FeatureStore,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path_factory: pytest.TempPathFactory,
    name: str,
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    for folder in (store.repo_path, elsewhere):
        write = pa.csv.write_csv if name.endswith(".csv") else pq.write_table
        write(ROWS, folder / name)
    monkeypatch.chdir(elsewhere)

    def trips(path: Any) -> list[Any]:
        return store.get_historical_features(path, FEATURES).to_arrow()["trips"].to_pylist()

    assert trips(store.repo_path / name) == TRIPS
    assert trips(str(store.repo_path / name)) == TRIPS
    assert trips(name) == TRIPS
    # What is not in the repository is looked for in the working directory.
    (store.repo_path / name).unlink()
    assert trips(name) == TRIPS


def test_entity_rows_as_a_query(store: FeatureStore) -> None:
    query = """
        SELECT driver_id, max(event_timestamp) AS event_timestamp, count(*) AS n
        FROM stats WHERE driver_id < 1003 GROUP BY driver_id ORDER BY driver_id
    """
    table = store.get_historical_features(query, FEATURES).to_arrow()

    assert table["driver_id"].to_pylist() == [1001, 1002]
    assert table["n"].to_pylist() == [3, 1]
    assert table["trips"].to_pylist() == [30, 40]


def test_entity_rows_from_the_features_themselves(store: FeatureStore) -> None:
    def asked(start: datetime | None, end: datetime | None) -> list[tuple[Any, ...]]:
        job = store.get_historical_features(features=FEATURES, start_date=start, end_date=end)
        table = job.to_arrow()
        assert table.column_names == ["event_timestamp", "driver_id", "conv_rate", "trips"]
        return list(
            zip(
                *(table[name].to_pylist() for name in ("event_timestamp", "driver_id", "trips")),
                strict=True,
            )
        )

    in_range = [(T0 - 2 * HOUR, 1001, 10), (T0 - HOUR, 1002, 40), (T0, 1001, 30)]
    assert asked(T0 - 2 * HOUR, T0) == in_range
    # Both ends belong to the range; a time without zone is UTC.
    assert asked((T0 - HOUR).replace(tzinfo=None), T0) == in_range[1:]
    # Without a start, the range begins where the longest ttl reaches.
    assert asked(None, T0) == in_range
    assert asked(T0 - 80 * HOUR, T0 - HOUR) == [(T0 - 72 * HOUR, 1003, 50), *in_range[:2]]


def test_entity_times_of_every_type(store: FeatureStore) -> None:
    naive = T0.replace(tzinfo=None)
    for times in (
        pa.array([T0], pa.timestamp("ns", "UTC")),
        pa.array([T0], pa.timestamp("ms", "America/New_York")),
        pa.array([naive], pa.timestamp("s")),
        pa.array([naive.isoformat()]),
        pa.array([f"{naive.isoformat()}Z"]),
        pa.array(["2026-11-20 07:00:00-05:00"]),
    ):
        rows = pa.table({"driver_id": [1001], "event_timestamp": times})
        table = store.get_historical_features(rows, FEATURES).to_arrow()
        assert table["trips"].to_pylist() == [30], times.type
        assert table["event_timestamp"].type == times.type
        named = rows.rename_columns(["driver_id", "seen"])
        if not pa.types.is_string(times.type):
            assert store.get_historical_features(named, FEATURES).to_arrow()[
                "trips"
            ].to_pylist() == [30]
    day = pa.table({"driver_id": [1001], "event_timestamp": [date(2026, 11, 21)]})
    assert store.get_historical_features(day, FEATURES).to_arrow()["trips"].to_pylist() == [30]


def test_only_what_was_known_at_the_time(store: FeatureStore) -> None:
    # The row with 30 trips was created a minute after its event.
    for known, trips in ((False, 30), (True, 20)):
        rows = pa.table({"driver_id": [1001], "event_timestamp": [T0]})
        job = store.get_historical_features(rows, FEATURES, filter_by_created_timestamp=known)
        assert job.to_arrow()["trips"].to_pylist() == [trips]
    for as_of, trips in ((T0, 20), (T0 + HOUR, 30), (T0 - 100 * HOUR, None)):
        rows = pa.table({"driver_id": [1001], "event_timestamp": [T0]})
        job = store.get_historical_features(rows, FEATURES, as_of=as_of)
        assert job.to_arrow()["trips"].to_pylist() == [trips]


def test_what_was_written_later_is_reported(store: FeatureStore) -> None:
    rows = pa.table({"driver_id": [1001, 1001], "event_timestamp": [T0, T0 + HOUR]})
    [leak] = store.get_historical_features(rows, FEATURES[1:]).leak_report()
    assert leak == {
        "feature_view": "driver_stats",
        "feature": "trips",
        "has_created_timestamp": True,
        "rows": 2,
        "changed": 1,
        "not_yet_known": 0,
    }


def test_a_job_explains_what_its_steps_took(store: FeatureStore) -> None:
    rows = pa.table({"driver_id": [1001, 1002], "event_timestamp": [T0, T0]})
    header, last, *_ = store.get_historical_features(rows, FEATURES).explain().splitlines()
    assert header.split() == ["step", "rows", "bytes", "time"]
    assert last.split()[:6] == ["entity", "rows", "with", "their", "features", "2"]


# What comes out.


def addresses(table: pa.Table, column: str) -> list[int]:
    return [chunk.buffers()[1].address + chunk.offset * 8 for chunk in table[column].chunks]


def test_entity_columns_are_the_memory_that_came_in(store: FeatureStore) -> None:
    rows = 150_000
    table = pa.table(
        {
            "driver_id": np.full(rows, 1001),
            "event_timestamp": pa.array(
                np.full(rows, np.datetime64("2026-11-20T12:00:00", "us")), pa.timestamp("us", "UTC")
            ),
            "label": np.arange(rows),
        }
    )
    start = addresses(table, "label")[0]
    answer = store.get_historical_features(table, FEATURES).to_arrow()

    chunk_starts = list(
        itertools.accumulate((len(chunk) for chunk in answer["label"].chunks), initial=0)
    )[:-1]
    assert len(chunk_starts) > 1
    assert addresses(answer, "label") == [start + 8 * at for at in chunk_starts]
    polars = store.get_historical_features(pl.from_arrow(table), FEATURES).to_arrow()
    assert polars["label"].to_pylist() == table["label"].to_pylist()


def test_online_columns_are_not_copied(store: FeatureStore) -> None:
    store.materialize(T0 - 100 * HOUR, T0)
    answer = store.get_online_features(FEATURES, {"driver_id": [1001, 1002]})

    assert addresses(pa.table(answer), "trips") == addresses(answer.to_arrow(), "trips")
    assert ctypes.c_int64.from_address(addresses(answer.to_arrow(), "trips")[0]).value in (30, 40)


def test_rows_stream_batch_by_batch(store: FeatureStore) -> None:
    rows = 140_000
    table = pa.table(
        {
            "driver_id": np.full(rows, 1001),
            "event_timestamp": pa.array([T0] * rows, pa.timestamp("us", "UTC")),
        }
    )
    job = store.get_historical_features(table, FEATURES)

    batches = iter(job)
    first = next(batches)
    assert isinstance(first, pa.RecordBatch)
    assert 0 < len(first) < rows
    assert sum(len(batch) for batch in batches) == rows - len(first)
    # Whoever stops early leaves nothing behind.
    for _ in range(5):
        next(iter(job))
    assert job.to_arrow_batches().read_next_batch().equals(first)
    assert sum(len(batch) for batch in pa.RecordBatchReader.from_stream(job)) == rows


DTYPES = {
    "an_int32": (ft.Int32, pa.int32(), [1, None, 3], "int32", "Int32"),
    "an_int64": (ft.Int64, pa.int64(), [2**60 + 1, None, 3], "int64", "Int64"),
    "a_float32": (ft.Float32, pa.float32(), [0.5, None, 1.5], "float32", "float32"),
    "a_float64": (ft.Float64, pa.float64(), [0.5, None, 1.5], "float64", "float64"),
    "a_bool": (ft.Bool, pa.bool_(), [True, None, False], "bool", "boolean"),
    "a_string": (ft.String, pa.string(), ["a", None, "c"], None, None),
    "a_bytes": (ft.Bytes, pa.binary(), [b"a", None, b"c"], "object", "object"),
    "a_time": (
        ft.UnixTimestamp,
        pa.timestamp("us", "UTC"),
        [T0, None, T0],
        "datetime64[us, UTC]",
        "datetime64[us, UTC]",
    ),
    "a_list": (ft.Array(ft.Int64), pa.list_(pa.int64()), [[1], None, [3, 4]], "object", "object"),
}


@pytest.fixture
def typed(repository: Path) -> FeatureStore:
    """A view with features of many types, all missing for thing 2; the file has wider types than the view declares."""
    thing = Entity(name="thing", join_keys=["thing_id"])
    wider = {pa.int32(): pa.int64(), pa.float32(): pa.float64()}
    columns = {
        name: pa.array(values, wider.get(kind, kind))
        for name, (_, kind, values, _, _) in DTYPES.items()
    }
    pq.write_table(
        pa.table({"thing_id": [1, 2, 3], "at": [T0] * 3, **columns}), repository / "things.parquet"
    )
    view = FeatureView(
        name="things",
        entities=[thing],
        ttl=timedelta(0),
        schema=[
            Field(name="thing_id", dtype=ft.Int64),
            *(Field(name=name, dtype=DTYPES[name][0]) for name in DTYPES),
        ],
        source=FileSource(name="things_file", path="things.parquet", timestamp_field="at"),
    )
    store = FeatureStore(repo_path=str(repository))
    store.apply([thing, view])
    return store


def test_columns_have_the_declared_types(typed: FeatureStore) -> None:
    def ask(things: list[int]) -> RetrievalJob:
        rows = pa.table({"thing_id": things, "event_timestamp": [T0] * len(things)})
        return typed.get_historical_features(rows, [f"things:{name}" for name in DTYPES])

    whole, gaps = ask([1, 3]), ask([1, 2, 9])
    for name, (_, arrow, values, dtype, nullable) in DTYPES.items():
        for job in (whole, gaps):
            assert job.to_arrow().schema.field(name).type == arrow, name
        assert whole.to_arrow()[name].to_pylist() == [values[0], values[2]]
        assert gaps.to_arrow()[name].to_pylist() == [values[0], None, None]
        if dtype:
            assert str(whole.to_df()[name].dtype) == dtype, name
            assert str(gaps.to_df()[name].dtype) == nullable, name
    assert gaps.to_df()["an_int64"][0] == 2**60 + 1
    assert gaps.to_df()["an_int64"].isna().tolist() == [False, True, True]
    # The same types online.
    typed.materialize(T0 - HOUR, T0)
    answer = typed.get_online_features([f"things:{name}" for name in DTYPES], {"thing_id": [1, 2]})
    for name, (_, arrow, values, _, _) in DTYPES.items():
        assert answer.to_arrow().schema.field(name).type == arrow, name
        assert answer.to_dict()[name] == [values[0], None], name


def test_a_job_is_described(store: FeatureStore) -> None:
    job = store.get_historical_features(ROWS, FEATURES)

    assert job.metadata is not None
    assert job.metadata.features == FEATURES
    assert job.metadata.keys == ["driver_id"]
    assert job.metadata.min_event_timestamp == T0 - HOUR
    assert job.metadata.max_event_timestamp == T0
    assert not job.full_feature_names
    assert job.on_demand_feature_views == []


# Kept rows.


def test_rows_are_kept_in_a_file_or_a_folder(store: FeatureStore) -> None:
    job = store.get_historical_features(ROWS, FEATURES)
    for path in ("kept.parquet", "folder/of/rows"):
        storage = SavedDatasetFileStorage(path=path)
        job.persist(storage)
        assert pq.read_table(store.repo_path / path).equals(job.to_arrow())
        with pytest.raises(SavedDatasetLocationAlreadyExists, match=path):
            job.persist(storage)
        job.persist(storage, allow_overwrite=True)
        assert pq.read_table(store.repo_path / path).equals(job.to_arrow())


def test_a_dataset_is_saved_with_how_it_was_made(store: FeatureStore) -> None:
    service = store.get_feature_service("model")
    job = store.get_historical_features(ROWS, service, full_feature_names=True)
    made = store.create_saved_dataset(
        job,
        "training",
        SavedDatasetFileStorage(path="training.parquet"),
        tags={"for": "model"},
        feature_service=service,
    )

    read = FeatureStore(repo_path=str(store.repo_path)).get_saved_dataset("training")
    for dataset in (made, read):
        assert dataset.to_arrow().equals(job.to_arrow())
        assert dataset.to_df()["driver_stats__trips"].tolist() == [pd.NA, 10, 40, pd.NA]
        assert dataset.features == FEATURES
        assert dataset.join_keys == ["driver_id"]
        assert dataset.full_feature_names
        assert dataset.feature_service_name == "model"
        # Without zone, as in Feast.
        span = (dataset.min_event_timestamp, dataset.max_event_timestamp)
        assert span == tuple(moment.replace(tzinfo=None) for moment in (T0 - HOUR, T0))
        assert dataset.created_timestamp is not None
    assert [each.name for each in store.list_saved_datasets(tags={"for": "model"})] == ["training"]
    assert store.list_saved_datasets(tags={"for": "nothing"}) == []
    assert len(store.retrieve_dataset_data("training", limit=2)) == 2


def test_a_dataset_that_cannot_be_written_is_not_recorded(store: FeatureStore) -> None:
    storage = SavedDatasetFileStorage(path="training.parquet")
    (store.repo_path / "training.parquet").write_text("mine")
    job = store.get_historical_features(ROWS, FEATURES)
    with pytest.raises(SavedDatasetLocationAlreadyExists):
        store.create_saved_dataset(job, "training", storage)

    assert store.list_saved_datasets() == []
    assert (store.repo_path / "training.parquet").read_text() == "mine"
    store.create_dataset_from_retrieval(
        "training", ROWS.to_pandas(), FEATURES, storage, allow_overwrite=True
    )
    assert store.get_saved_dataset("training").to_arrow()["trips"].to_pylist() == TRIPS


def test_rows_are_exported(store: FeatureStore) -> None:
    job = store.get_historical_features(ROWS, FEATURES)
    assert job.supports_remote_storage_export()

    first, second = job.to_remote_storage(), job.to_remote_storage()
    assert not set(first) & set(second)
    for files in (first, second):
        assert pq.read_table(files).equals(job.to_arrow())
        assert all(
            Path(file).is_relative_to(store.repo_path / "data" / "exports") for file in files
        )


def test_rows_are_exported_to_where_the_configuration_says(
    repository: Path, store: FeatureStore
) -> None:
    place = repository / "staging"
    settings = repository / "feature_store.yaml"
    settings.write_text(
        f"{settings.read_text()}offline_store:\n  type: duckdb\n  staging_location: {place}\n"
    )
    files = (
        FeatureStore(repo_path=str(repository))
        .get_historical_features(ROWS, FEATURES)
        .to_remote_storage()
    )

    assert pq.read_table(files)["trips"].to_pylist() == TRIPS
    assert all(Path(file).is_relative_to(place) for file in files)


def test_a_service_need_not_be_registered(store: FeatureStore) -> None:
    view = store.get_feature_view("driver_stats")
    service = FeatureService(name="experiment", features=[view[["trips"]]])

    assert store.get_historical_features(ROWS, service).to_arrow().column_names[3:] == ["trips"]
    assert [each.name for each in store.list_feature_services()] == ["model"]


def test_a_source_that_breaks_while_it_is_read_is_named(store: FeatureStore) -> None:
    content = (store.repo_path / "stats.parquet").read_bytes()
    footer = int.from_bytes(content[-8:-4], "little") + 8
    (store.repo_path / "stats.parquet").write_bytes(
        b"\x00" * (len(content) - footer) + content[-footer:]
    )
    job = store.get_historical_features(ROWS, FEATURES)

    for read in (job.to_arrow, job.to_df, job.to_polars, lambda: list(job)):
        with pytest.raises(Exception, match="stats.parquet") as raised:
            read()
        assert type(raised.value).__module__ in ("feast.errors", "builtins"), type(raised.value)


def test_times_before_and_after_the_usual(store: FeatureStore) -> None:
    for at in (datetime(1950, 1, 1, tzinfo=UTC), datetime(2250, 1, 1, tzinfo=UTC)):
        rows = pd.DataFrame({"driver_id": [1001], "event_timestamp": [at]})
        frame = store.get_historical_features(rows, FEATURES).to_df()
        assert frame["event_timestamp"][0] == at
        assert frame["trips"].isna().tolist() == [True]


def test_a_view_may_declare_its_times_as_a_feature(repository: Path) -> None:
    store = FeatureStore(repository)
    driver = Entity(name="driver", join_keys=["driver_id"])
    timed = FeatureView(
        name="timed",
        entities=[driver],
        schema=[
            Field(name="driver_id", dtype=ft.Int64),
            Field(name="event_timestamp", dtype=ft.UnixTimestamp),
            Field(name="trips", dtype=ft.Int64),
        ],
        source=FileSource(
            name="timed",
            path="stats.parquet",
            timestamp_field="event_timestamp",
            created_timestamp_column="created",
        ),
    )
    store.apply([driver, timed, FeatureService(name="whole", features=[timed])])

    # Of two columns with one name, a training set has that of the entity rows.
    joined = store.get_historical_features(ROWS, store.get_feature_service("whole")).to_arrow()
    assert joined.column_names == ["driver_id", "event_timestamp", "label", "trips"]
    assert joined["event_timestamp"].to_pylist() == ROWS["event_timestamp"].to_pylist()
    assert joined["trips"].to_pylist()[1:3] == [10, 40]

    store.materialize(T0 - 100 * HOUR, T0)
    online = store.get_online_features(
        ["timed:event_timestamp", "timed:trips"], [{"driver_id": 1001}]
    ).to_dict()
    assert online["trips"] == [30]
    assert online["event_timestamp"] == [T0]
