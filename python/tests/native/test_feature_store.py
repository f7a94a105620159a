"""The verbs of the feature store, from Python through the engine to files and back."""

from __future__ import annotations

import asyncio
import os
import pickle
import warnings
from datetime import timedelta

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from drivers import HOUR, T0, definitions

from feast import (
    Entity,
    FeatureStore,
    FeatureView,
    FeatureViewState,
    Field,
    FileSource,
    RepoConfig,
)
from feast.data_source import PushMode
from feast.errors import (
    ConflictingFeatureViewNames,
    EntityNotFoundException,
    FeastError,
    FeatureNameCollisionError,
    FeatureServiceNotFoundException,
    FeatureViewNotFoundException,
    FeatureViewPinConflict,
    InvalidFeaturesParameterType,
    PushSourceNotFoundException,
    SavedDatasetLocationAlreadyExists,
    SavedDatasetNotFound,
)
from feast.infra.offline_stores.file_source import SavedDatasetFileStorage
from feast.repo_config import FeastConfigError
from feast.repo_operations import (
    apply_total,
    apply_total_with_repo_instance,
    parse_repo,
    plan,
)
from feast.types import Int64

FEATURES = ["driver_stats:conv_rate", "driver_stats:trips"]


def entity_rows() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "driver_id": [1003, 1001, 1002, 1001, 9999],
            "event_timestamp": [T0, T0, T0, T0 - HOUR, T0],
            "label": [5, 4, 3, 2, 1],
        }
    )


def online(store: FeatureStore, driver: int, feature: str = "driver_stats:trips") -> object:
    answer = store.get_online_features([feature], [{"driver_id": driver}]).to_dict()
    return answer[feature.partition(":")[2]][0]


# Opening.


def test_a_store_opens_by_folder_file_environment_or_configuration(
    repository, monkeypatch, tmp_path_factory
):
    config = RepoConfig(
        project="proj", registry=str(repository / "registry.db"), repo_path=repository
    )
    by_folder = FeatureStore(repo_path=str(repository))
    by_file = FeatureStore(fs_yaml_file=repository / "feature_store.yaml")
    by_configuration = FeatureStore(config=config)
    monkeypatch.setenv("FEAST_FS_YAML_FILE_PATH", str(repository / "feature_store.yaml"))
    by_environment = FeatureStore()

    for store in (by_folder, by_file, by_configuration, by_environment):
        assert store.project == "proj"
    assert by_folder.config.online_store.path == "online.db"
    assert by_configuration.config is config


def test_a_missing_or_wrong_configuration_is_explained(tmp_path):
    with pytest.raises(FileNotFoundError, match="no feature store configuration.*feast init"):
        FeatureStore(repo_path=str(tmp_path))
    (tmp_path / "feature_store.yaml").write_text("project: [\n")
    with pytest.raises(FeastConfigError, match="(?s)not valid YAML.*feature_store.yaml"):
        FeatureStore(repo_path=str(tmp_path))
    with pytest.raises(ValueError, match="not both"):
        FeatureStore(config=RepoConfig(project="p", registry="r"), fs_yaml_file=tmp_path / "x")


def test_a_store_can_be_pickled(store):
    assert [view.name for view in pickle.loads(pickle.dumps(store)).list_feature_views()] == [
        view.name for view in store.list_feature_views()
    ]


# Definitions.


def test_applied_objects_come_back(store):
    assert [entity.name for entity in store.list_entities()] == ["driver"]
    assert sorted(view.name for view in store.list_feature_views()) == [
        "driver_push",
        "driver_stats",
    ]
    assert sorted(source.name for source in store.list_data_sources()) == [
        "push",
        "pushed",
        "stats",
    ]
    assert store.get_feature_view("driver_stats").ttl == timedelta(days=1)
    assert store.get_feature_service("model").name == "model"
    assert store.get_entity("driver").join_key == "driver_id"
    assert store.get_data_source("stats").path == "stats.parquet"
    assert store.get_project(None).name == "proj"
    assert [project.name for project in store.list_projects()] == ["proj"]


def test_lists_can_be_filtered_by_tags(store):
    assert [view.name for view in store.list_feature_views(tags={"team": "rides"})] == [
        "driver_stats"
    ]
    assert store.list_feature_views(tags={"team": "other"}) == []


def test_unknown_names_raise_the_exceptions_of_feast(store):
    with pytest.raises(FeatureViewNotFoundException, match="driver_stat"):
        store.get_feature_view("driver_stat")
    with pytest.raises(EntityNotFoundException):
        store.get_entity("nobody")
    with pytest.raises(FeatureServiceNotFoundException):
        store.get_feature_service("nothing")
    with pytest.raises(SavedDatasetNotFound):
        store.get_saved_dataset("nothing")
    with pytest.raises(FeatureViewNotFoundException):
        store.delete_feature_view("nothing")


def test_applying_twice_changes_nothing(store):
    before = store._native.registry_bytes()
    store.apply(list(definitions().values()))

    assert store._native.registry_bytes() == before


def test_apply_deletes_only_what_it_is_told(store):
    store.apply(Entity(name="rider", join_keys=["rider_id"]))
    assert sorted(entity.name for entity in store.list_entities()) == ["driver", "rider"]
    with pytest.warns(UserWarning, match="objects_to_delete"):
        store.apply([], objects_to_delete=[store.get_entity("rider")])
    assert len(store.list_entities()) == 2
    store.apply([], objects_to_delete=[store.get_entity("rider")], partial=False)
    assert [entity.name for entity in store.list_entities()] == ["driver"]


def test_equal_objects_are_one(store, repository, monkeypatch):
    monkeypatch.chdir(repository)
    store.materialize_incremental(T0)
    copy = FeatureStore(
        config=RepoConfig(
            project="copy",
            registry="copy.db",
            online_store={"type": "sqlite", "path": "copy_online.db"},
        )
    )
    objects = [*store.list_entities(), *store.list_data_sources(), *store.list_feature_views()]
    copy.apply([*objects, *store.list_feature_services()], skip_feature_view_validation=True)
    assert sorted(source.name for source in copy.list_data_sources()) == ["push", "pushed", "stats"]
    # Nothing is in the copy's online store yet.
    copy.materialize_incremental(T0)
    assert online(copy, 1001) == 30

    def view(name: str, path: str) -> FeatureView:
        source = FileSource(name="own", path=path, timestamp_field="event_timestamp")
        field = Field(name="trips", dtype=Int64)
        return FeatureView(
            name=name, entities=[definitions()["driver"]], schema=[field], source=source
        )

    store.apply([view("one", "stats.parquet"), view("two", "stats.parquet")])
    with pytest.raises(ValueError, match="data source `own` is defined twice"):
        store.apply([view("one", "stats.parquet"), view("two", "pushed.parquet")])


def test_what_is_no_object_cannot_be_applied(store):
    with pytest.raises(TypeError, match="not an object of a feature store"):
        store.apply(["driver"])


def test_a_plan_names_what_would_change(repository, write_files):
    files = {
        "entities.py": 'from feast import Entity\nrider = Entity(name="rider", join_keys=["rider_id"])\n'
    }
    contents = parse_repo(write_files(files, "definitions"))
    store = FeatureStore(repo_path=str(repository))
    registry_diff, infra_diff, _ = store.plan(contents)

    assert "Created entity rider" in registry_diff.to_string()
    assert infra_diff.to_string() == "No changes to infrastructure"
    assert store.list_entities() == []


def test_a_printed_plan_need_not_look_at_sources(repository, write_files, capsys):
    text = (
        "from feast import FeatureView, Field, FileSource\nfrom feast.types import Int64\n"
        'source = FileSource(name="gone", path="gone.parquet", timestamp_field="t")\n'
        'view = FeatureView(name="view", source=source, schema=[Field(name="a", dtype=Int64)])\n'
    )
    root = write_files({"view.py": text}, "definitions")
    config = RepoConfig(project="proj", registry=str(repository / "registry.db"))
    with pytest.raises(ValueError, match="`gone` cannot be read"):
        plan(config, root, skip_source_validation=False)
    plan(config, root, skip_source_validation=True)
    assert "Created feature view view" in capsys.readouterr().out


def test_applying_a_repository_removes_what_it_does_not_define(store, repository, write_files):
    files = {
        "entities.py": 'from feast import Entity\nrider = Entity(name="rider", join_keys=["rider_id"])\n'
    }
    root = write_files(files, "definitions")
    config = RepoConfig(
        project="proj",
        registry=str(repository / "registry.db"),
        online_store=store.config.online_store,
    )
    apply_total(config, root, skip_source_validation=True)

    store.refresh_registry()
    assert [entity.name for entity in store.list_entities()] == ["rider"]
    assert store.list_all_feature_views() == []


def test_objects_of_a_program_are_applied_as_the_whole_of_a_repository(repository, store):
    (repository / "other").mkdir()
    (repository / "other" / "rider.py").write_text(
        "from feast import Entity\nrider = Entity(name='rider', join_keys=['rider_id'])\n"
    )
    contents = parse_repo(repository / "other")
    with pytest.raises(ValueError, match="for project `else`, and the store is of `proj`"):
        apply_total_with_repo_instance(store, "else", store.registry, contents, True)
    apply_total_with_repo_instance(store, "proj", store.registry, contents, True)

    store.refresh_registry()
    assert [entity.name for entity in store.list_entities()] == ["rider"]
    assert store.list_all_feature_views() == []


def test_views_can_be_disabled_and_enabled(store):
    store.disable_feature_view("driver_stats")
    assert store.get_feature_view("driver_stats").enabled is False
    store.enable_feature_view("driver_stats")
    assert store.get_feature_view("driver_stats").enabled is True


def test_states_follow_their_order(store):
    with pytest.raises(
        ValueError,
        match="cannot go from CREATED to AVAILABLE_ONLINE; from CREATED it can go to `GENERATED`",
    ):
        store.set_feature_view_state("driver_stats", FeatureViewState.AVAILABLE_ONLINE)


def test_the_registry_answers_with_the_project_named(store):
    assert store.registry.get_any_feature_view("driver_stats", "proj").name == "driver_stats"
    assert store.registry.list_entities("elsewhere") == []
    assert "entities" in store.registry.to_dict("proj")


def test_teardown_removes_the_project(store):
    store.teardown()

    assert store.list_feature_views() == []


# Historical features.


def expected_history() -> dict[str, list]:
    return {
        "driver_id": [1003, 1001, 1002, 1001, 9999],
        "label": [5, 4, 3, 2, 1],
        "trips": [None, 30, 40, 10, None],
    }


@pytest.mark.parametrize(
    "frame",
    [
        entity_rows,
        lambda: pa.Table.from_pandas(entity_rows()),
        lambda: pa.Table.from_pandas(entity_rows()).to_reader(),
        lambda: pl.DataFrame(entity_rows().to_dict("list")),
        lambda: pl.DataFrame(entity_rows().to_dict("list")).lazy(),
    ],
    ids=["pandas", "arrow", "reader", "polars", "lazy"],
)
def test_one_row_per_entity_row_in_its_order(store, frame):
    table = store.get_historical_features(frame(), FEATURES).to_arrow()

    assert {
        name: table[name].to_pylist() for name in ("driver_id", "label", "trips")
    } == expected_history()
    assert table.schema.field("conv_rate").type == pa.float32()
    assert table.schema.field("trips").type == pa.int64()


def test_text_timestamps_are_times(store):
    frame = entity_rows()
    frame["event_timestamp"] = [time.isoformat() for time in entity_rows()["event_timestamp"]]

    assert (
        store.get_historical_features(frame, FEATURES).to_arrow()["trips"].to_pylist()
        == expected_history()["trips"]
    )


def test_entity_rows_may_be_a_parquet_file(store, repository):
    pq.write_table(pa.Table.from_pandas(entity_rows()), repository / "rows.parquet")

    for path in (repository / "rows.parquet", str(repository / "rows.parquet")):
        assert store.get_historical_features(path, FEATURES).to_arrow()["trips"].to_pylist() == [
            None,
            30,
            40,
            10,
            None,
        ]


def test_a_job_gives_every_kind_of_frame(store):
    job = store.get_historical_features(entity_rows(), store.get_feature_service("model"))

    assert job.to_df()["trips"].tolist() == [pd.NA, 30, 40, 10, pd.NA]
    assert str(job.to_df()["trips"].dtype) == "Int64"
    assert job.to_polars()["trips"].to_list() == expected_history()["trips"]
    assert pa.table(job)["trips"].to_pylist() == expected_history()["trips"]
    assert sum(len(batch) for batch in job) == 5
    assert job.metadata.features == FEATURES
    assert "driver_stats" in job.to_sql()


def test_full_names_carry_the_view(store):
    job = store.get_historical_features(entity_rows(), FEATURES, full_feature_names=True)

    assert job.full_feature_names
    assert {"driver_stats__conv_rate", "driver_stats__trips"} <= set(job.to_arrow().column_names)


def test_without_entity_rows_there_is_a_range_of_time(store):
    job = store.get_historical_features(
        features=FEATURES, start_date=T0 - 3 * HOUR, end_date=T0 + HOUR
    )

    assert set(job.to_df()["driver_id"]) == {1001, 1002}
    with pytest.raises(ValueError, match="cannot be combined"):
        store.get_historical_features(entity_rows(), FEATURES, end_date=T0)


def test_references_may_stand_in_any_collection(store):
    expected = store.get_historical_features(entity_rows(), FEATURES).to_arrow()
    for features in (
        tuple(FEATURES),
        np.array(FEATURES),
        pd.Index(FEATURES),
        dict.fromkeys(FEATURES).keys(),
    ):
        assert store.get_historical_features(entity_rows(), features).to_arrow().equals(expected)
    one = set(FEATURES[:1])
    assert list(store.get_online_features(one, [{"driver_id": 1}]).to_dict()) == [
        "driver_id",
        "conv_rate",
    ]


def test_wrong_features_are_refused(store):
    with pytest.raises(InvalidFeaturesParameterType):
        store.get_historical_features(entity_rows(), dict.fromkeys(FEATURES))
    with pytest.raises(FeatureViewNotFoundException, match="nope"):
        store.get_historical_features(entity_rows(), ["nope:x"])
    with pytest.raises(InvalidFeaturesParameterType):
        store.get_historical_features(entity_rows(), "driver_stats:trips")
    with pytest.raises(FeatureNameCollisionError):
        store.get_historical_features(
            entity_rows(), ["driver_stats:trips", "driver_push:trips"]
        ).to_arrow()


def test_a_saved_dataset_can_be_read_back(store, repository):
    job = store.get_historical_features(entity_rows(), FEATURES)
    storage = SavedDatasetFileStorage(path=str(repository / "saved.parquet"))
    saved = store.create_saved_dataset(job, "training", storage, tags={"a": "b"})

    assert saved.to_arrow().num_rows == 5
    assert store.get_saved_dataset("training").to_df()["trips"].count() == 3
    assert len(store.retrieve_dataset_data("training", limit=2)) == 2
    assert [each.name for each in store.list_saved_datasets()] == ["training"]
    with pytest.raises(SavedDatasetLocationAlreadyExists):
        job.persist(storage)
    job.persist(storage, allow_overwrite=True)


# Online features.


def test_materialized_values_are_served(store):
    store.materialize(T0 - 100 * HOUR, T0)

    answer = store.get_online_features(FEATURES, [{"driver_id": 1001}, {"driver_id": 9999}])
    assert answer.to_dict()["driver_id"] == [1001, 9999]
    assert answer.to_dict()["trips"] == [30, None]
    assert answer.to_dict(include_event_timestamps=True)["trips__ts"][0] == int(T0.timestamp())
    assert answer.to_df()["trips"].tolist()[0] == 30
    assert answer.to_arrow()["trips"].to_pylist() == [30, None]
    assert list(answer.proto.metadata.feature_names.val) == list(answer.to_dict())


def test_rows_and_columns_and_services_ask_the_same(store):
    store.materialize(T0 - 100 * HOUR, T0)
    service = store.get_feature_service("model")

    by_rows = store.get_online_features(
        FEATURES, [{"driver_id": 1001}, {"driver_id": 1002}]
    ).to_dict()
    by_columns = store.get_online_features(
        FEATURES, {"driver_id": pd.Series([1001, 1002])}
    ).to_dict()
    by_service = store.get_online_features(
        service, [{"driver_id": 1001}, {"driver_id": 1002}]
    ).to_dict()
    assert by_rows == by_columns == by_service


def test_async_reads_answer_the_same(store):
    store.materialize(T0 - 100 * HOUR, T0)

    async def ask():
        rows = [{"driver_id": 1001}]
        answers = await asyncio.gather(
            *(store.get_online_features_async(FEATURES, rows) for _ in range(8))
        )
        return [answer.to_dict()["trips"] for answer in answers]

    assert asyncio.run(ask()) == [[30]] * 8


def test_incremental_materialization_goes_on_where_it_stopped(store):
    store.materialize(T0 - 100 * HOUR, T0 - HOUR, feature_views=["driver_stats"])
    assert online(store, 1001) == 10
    store.materialize_incremental(T0, feature_views=["driver_stats"])
    assert online(store, 1001) == 30


def test_a_first_incremental_run_with_an_end_in_the_future_loads_what_lives_now(store, repository):
    now = pd.Timestamp.now(tz="UTC")
    pq.write_table(
        pa.Table.from_pandas(row(7, now - 20 * HOUR), preserve_index=False),
        repository / "stats.parquet",
    )
    store.materialize_incremental(now + 48 * HOUR, feature_views=["driver_stats"])
    assert online(store, 1001) == 7


def test_a_changed_view_that_is_not_promoted_stays_as_it_is(store):
    store.materialize(T0 - 100 * HOUR, T0, feature_views=["driver_stats"])
    view = definitions()["driver_stats"]
    view.features = [field for field in view.features if field.name != "trips"]
    store.apply([view], no_promote=True)
    assert online(store, 1001) == 30
    versions = store.registry.list_feature_view_versions("driver_stats", "proj")
    assert [version["version"] for version in versions] == ["v0", "v1"]
    store.apply([view], no_promote=True)
    assert len(store.registry.list_feature_view_versions("driver_stats", "proj")) == 2
    view.version = "v1"
    service = definitions()["model"]
    service.feature_view_projections[0].features.pop()
    store.apply([view, service])
    assert [field.name for field in store.get_feature_view("driver_stats").features] == [
        "conv_rate",
        "city",
    ]
    assert store.get_feature_view("driver_stats").current_version_number == 1


def test_a_pin_and_a_change_at_once_are_a_conflict(store):
    view = definitions()["driver_stats"]
    view.features = view.features[:2]
    store.apply([view])
    view.features = view.features[:1]
    view.version = "v0"
    with pytest.raises(FeatureViewPinConflict, match="is pinned to `v0`"):
        store.apply([view])
    clash = FeatureView(name="Driver_Stats", source=view.batch_source, schema=view.features)
    with pytest.raises(ConflictingFeatureViewNames):
        store.apply([clash])


def test_materializing_backwards_or_an_unknown_view_is_refused(store):
    with pytest.raises(ValueError, match="is after"):
        store.materialize(T0, T0 - HOUR)
    with pytest.raises(FeatureViewNotFoundException):
        store.materialize(T0 - HOUR, T0, feature_views=["nope"])


def row(trips: int, time=T0 + HOUR) -> pd.DataFrame:
    columns = {
        "driver_id": 1001,
        "event_timestamp": time,
        "created": time,
        "conv_rate": 0.9,
        "trips": trips,
        "city": "z",
    }
    return pd.DataFrame({name: [value] for name, value in columns.items()})


def test_pushed_rows_are_online_and_offline(store):
    store.push("push", row(99), to=PushMode.ONLINE_AND_OFFLINE)

    assert online(store, 1001, "driver_push:trips") == 99
    ask = pd.DataFrame({"driver_id": [1001], "event_timestamp": [T0 + 2 * HOUR]})
    assert store.get_historical_features(ask, ["driver_push:trips"]).to_df()["trips"].tolist() == [
        99
    ]


def test_a_push_goes_by_the_files_as_they_are(store, repository):
    # What files ask of rows is remembered for a second: what is remembered may neither refuse rows nor let them in.
    path = repository / "pushed.parquet"
    both = PushMode.ONLINE_AND_OFFLINE
    narrow = pq.read_table(path)
    wide = narrow.append_column("extra", pa.array(["x"] * narrow.num_rows))
    store.push("push", row(99), to=both)
    pq.write_table(wide, path)
    with pytest.raises(FeastError, match="extra"):
        store.push("push", row(100), to=both)
    assert pq.read_table(path).num_rows == wide.num_rows
    store.push("push", row(101).assign(extra="y"), to=both)
    assert pq.read_table(path)["extra"].to_pylist()[-1] == "y"
    pq.write_table(narrow, path)
    store.push("push", row(102), to=both)
    assert pq.read_table(path)["trips"].to_pylist()[-1] == 102
    assert online(store, 1001, "driver_push:trips") == 102


def test_an_older_row_does_not_replace_a_newer_one(store):
    asyncio.run(store.push_async("push", row(99)))
    store.push("push", row(1, T0))

    assert online(store, 1001, "driver_push:trips") == 99


def test_rows_can_be_written_directly(store):
    store.write_to_online_store("driver_stats", row(77))
    assert online(store, 1001) == 77
    values = {name: list(column) for name, column in row(78, T0 + 2 * HOUR).items()}
    asyncio.run(store.write_to_online_store_async("driver_stats", inputs=values))
    assert online(store, 1001) == 78
    store.write_to_offline_store("driver_stats", row(79, T0 + 3 * HOUR))
    ask = pd.DataFrame({"driver_id": [1001], "event_timestamp": [T0 + 4 * HOUR]})
    assert store.get_historical_features(ask, FEATURES).to_df()["trips"].tolist() == [79]


def test_wrong_writes_are_refused(store):
    with pytest.raises(PushSourceNotFoundException, match="nope"):
        store.push("nope", row(1))
    with pytest.raises(ValueError, match="PushMode.ONLINE"):
        store.push("push", row(1), to="online")
    with pytest.raises(ValueError, match="takes `df` or `inputs`, but neither is given"):
        store.write_to_online_store("driver_stats")
    with pytest.raises(FeastError, match="trips"):
        store.write_to_online_store("driver_stats", row(1).drop(columns="trips"))


def test_wrong_entity_rows_are_refused(store):
    for rows, message in [
        ([], "`entity_rows` is empty"),
        ([{"driver_id": 1}, {"driver": 1}], "All entity_rows must have the same keys"),
        ("driver", "must be a list of mappings"),
        ([{"rider_id": 1}], "driver_id"),
        ([{"driver_id": None}], "driver_id"),
    ]:
        with pytest.raises(Exception, match=message):
            store.get_online_features(FEATURES, rows)


# The process.


def test_a_store_survives_a_fork(store):
    store.materialize(T0 - 100 * HOUR, T0)
    assert online(store, 1001) == 30
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", DeprecationWarning
        )  # Python 3.12 warns of forks among threads
        child = os.fork()
    if child == 0:
        try:
            os._exit(0 if online(store, 1001) == 30 else 1)
        except BaseException:
            os._exit(2)

    assert os.waitpid(child, 0)[1] == 0
    assert online(store, 1002) == 40


def test_what_is_not_here_yet_says_so(store):
    with pytest.raises(NotImplementedError, match="searching for similar vectors is not available"):
        store.retrieve_online_documents([0.1], 3, ["driver_stats:trips"])


def test_join_keys_that_no_view_needs_come_back(repository):
    store = FeatureStore(repo_path=str(repository))
    source = FileSource(name="fleet_stats", path="stats.parquet", timestamp_field="event_timestamp")
    fields = [Field(name="trips", dtype=Int64)]
    fleet = FeatureView(name="fleet", entities=[], schema=fields, source=source, ttl=timedelta(0))
    store.apply([*definitions().values(), fleet])
    store.materialize(T0 - HOUR, T0, ["fleet"])
    rows = [{"driver_id": 1001, "note": "x"}, {"driver_id": 9, "note": "y"}]
    answer = store.get_online_features(["fleet:trips"], rows).to_dict()
    # What is no join key of the project is not theirs.
    assert sorted(answer) == ["driver_id", "trips"]
    assert answer["driver_id"] == [1001, 9]
    assert len(set(answer["trips"])) == 1
