"""The life of objects: listed, tagged, changed, disabled, deleted; and stores that cannot be opened."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from drivers import HOUR, T0, definitions

from feast import (
    Entity,
    FeatureService,
    FeatureStore,
    FeatureView,
    FeatureViewState,
    Field,
    FileSource,
    LabelView,
    OnDemandFeatureView,
    Project,
    RepoConfig,
    RequestSource,
    StreamFeatureView,
)
from feast.data_format import JsonFormat
from feast.data_source import KafkaSource, PushMode
from feast.errors import (
    DataSourceObjectNotFoundException,
    EntityNotFoundException,
    FeastError,
    FeatureServiceNotFoundException,
    FeatureViewNotFoundException,
    OnDemandFeatureViewNotFoundException,
    PermissionObjectNotFoundException,
    ProjectObjectNotFoundException,
    SavedDatasetNotFound,
    ValidationReferenceNotFound,
)
from feast.infra.online_stores.dynamodb import DynamoDBOnlineStoreConfig
from feast.permissions.action import READ
from feast.permissions.permission import Permission
from feast.permissions.policy import RoleBasedPolicy
from feast.repo_config import RegistryConfig
from feast.types import Float64, Int64

TAGGED = {"owner": "ada"}


def online(store: FeatureStore, view: str = "driver_stats") -> Any:
    return store.get_online_features([f"{view}:trips"], [{"driver_id": 1001}]).to_dict()["trips"][0]


def tables(store: FeatureStore) -> list[str]:
    """The tables of the online store, seen from another process: SQLite's locks belong to processes."""
    query = "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name"
    lines = f"import sqlite3, sys; [print(name) for name, in sqlite3.connect(sys.argv[1]).execute({query!r})]"
    command = [sys.executable, "-c", lines, str(store.repo_path / "online.db")]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()


def every_kind(repository: Path) -> dict[str, Any]:
    """One tagged object of each kind."""
    drivers = definitions()
    source = FileSource(
        name="calls", path="stats.parquet", timestamp_field="event_timestamp", tags=TAGGED
    )
    stream = KafkaSource(
        name="calls_stream",
        timestamp_field="event_timestamp",
        kafka_bootstrap_servers="kafka:9092",
        topic="calls",
        message_format=JsonFormat(schema_json="trips integer"),
        batch_source=source,
        tags=TAGGED,
    )
    fields = [Field(name="trips", dtype=Int64)]
    stats: Any = drivers["driver_stats"]
    return {
        "project": Project(name="proj", tags=TAGGED),
        "entity": Entity(name="caller", join_keys=["caller_id"], tags=TAGGED),
        "data_source": stream,
        "feature_view": FeatureView(
            name="calls_view",
            entities=[drivers["driver"]],
            schema=fields,
            source=source,
            tags=TAGGED,
        ),
        "stream_feature_view": StreamFeatureView(
            name="live",
            entities=[drivers["driver"]],
            schema=fields,
            source=stream,
            timestamp_field="event_timestamp",
            tags=TAGGED,
        ),
        "on_demand_feature_view": OnDemandFeatureView(
            name="doubled",
            sources=[
                stats[["trips"]],
                RequestSource(name="request", schema=[Field(name="factor", dtype=Int64)]),
            ],
            schema=[Field(name="double_trips", dtype=Float64)],
            mode="python",
            udf=double,
            tags=TAGGED,
        ),
        "label_view": LabelView(
            name="verdicts", entities=[drivers["driver"]], schema=fields, source=source, tags=TAGGED
        ),
        "feature_service": FeatureService(
            name="calls_service", features=[stats[["trips"]]], tags=TAGGED
        ),
        "permission": Permission(
            name="readers",
            types=[FeatureView],
            policy=RoleBasedPolicy(roles=["reader"]),
            actions=READ,
            tags=TAGGED,
        ),
    }


def double(inputs: dict[str, Any]) -> dict[str, Any]:
    return {"double_trips": [float(trips) for trips in inputs["trips"]]}


LISTS = {
    "entity": ("list_entities", "get_entity"),
    "data_source": ("list_data_sources", "get_data_source"),
    "feature_view": ("list_batch_feature_views", "get_feature_view"),
    "stream_feature_view": ("list_stream_feature_views", "get_stream_feature_view"),
    "on_demand_feature_view": ("list_on_demand_feature_views", "get_on_demand_feature_view"),
    "label_view": ("list_label_views", "get_label_view"),
    "feature_service": ("list_feature_services", "get_feature_service"),
    "permission": ("list_permissions", "get_permission"),
}


def test_every_kind_is_listed_and_found(store: FeatureStore) -> None:
    objects = every_kind(store.repo_path)
    store.apply(list(objects.values()))

    for kind, (list_all, get) in LISTS.items():
        declared = objects[kind]
        found = getattr(store, list_all)(tags=TAGGED)
        assert declared.name in [each.name for each in found], kind
        assert all(each.tags["owner"] == "ada" for each in found), kind
        assert getattr(store, list_all)(tags={"owner": "grace"}) == [], kind
        read = getattr(store, get)(declared.name)
        assert type(read) is type(declared), kind
        assert read.name == declared.name
        message = read.to_proto()
        assert getattr(message, "spec", message).tags == TAGGED, kind
    assert [each.name for each in store.list_projects(tags=TAGGED)] == ["proj"]
    assert sorted(each.name for each in store.list_all_feature_views(tags=TAGGED)) == [
        "calls_view",
        "doubled",
        "live",
        "verdicts",
    ]
    # Another process sees the same; a change of tags changes the lists.
    other = FeatureStore(repo_path=str(store.repo_path))
    store.apply(Entity(name="caller", join_keys=["caller_id"], tags={"owner": "grace"}))
    other.refresh_registry()
    assert [each.name for each in other.list_entities(tags={"owner": "grace"})] == ["caller"]


def test_objects_of_the_registry_are_what_users_of_feast_know(store: FeatureStore) -> None:
    source = FileSource(name="stats", path="stats.parquet", timestamp_field="event_timestamp")
    fields = [Field(name="trips", dtype=Int64)]
    plain = FeatureView(name="plain", entities=[], schema=fields, source=source, ttl=None)
    store.apply([plain])
    view = store.get_feature_view("plain")
    # Feast gives no limit as zero, and times of all objects but projects and sources without zone.
    assert view.ttl == timedelta(0)
    assert view.to_proto().spec.HasField("ttl") is False
    assert view == plain
    driver = store.get_entity("driver")
    for one in (view, driver, store.get_feature_service("model")):
        assert one.created_timestamp.tzinfo is None, one.name
        assert datetime.now(UTC).replace(tzinfo=None) - one.created_timestamp < timedelta(hours=1)
    for each in (store.get_data_source("stats"), store.get_project("proj")):
        assert each.created_timestamp.tzinfo is UTC, each.name
    # Applied again, it is no change.
    store.apply([view])
    assert store.get_feature_view("plain").last_updated_timestamp == view.last_updated_timestamp


def test_what_apply_finds_out_is_written_back(repository: Path) -> None:
    driver = Entity(name="driver", join_keys=["driver_id"])
    source = FileSource(path="stats.parquet", created_timestamp_column="created")
    view = FeatureView(name="open", entities=[driver], source=source)
    service = FeatureService(name="whole", features=[view])
    store = FeatureStore(repo_path=str(repository))
    store.apply([driver, view, service])
    names = ["conv_rate", "trips", "city"]
    assert [field.name for field in view.features] == names
    assert view.join_keys == ["driver_id"]
    assert [field.name for field in view[["trips"]].projection.features] == ["trips"]
    assert source.timestamp_field == "event_timestamp"
    assert view.created_timestamp is not None
    for one in (service, FeatureService(name="later", features=[view])):
        (projection,) = one.feature_view_projections
        assert [field.name for field in projection.features] == names
    assert store.get_feature_view("open") == view


def test_services_name_views_of_the_registry(store: FeatureStore) -> None:
    # The views are another team's: only their names are known here.
    store.apply([FeatureService(name="named", features=["driver_stats:trips", "driver_push"])])
    stats, push = store.get_feature_service("named").feature_view_projections
    assert [(field.name, field.dtype) for field in stats.features] == [("trips", Int64)]
    assert [field.name for field in push.features] == ["conv_rate", "trips", "city"]
    with pytest.raises(
        ValueError, match="refers to feature view `driver_stat`, which does not exist"
    ):
        store.apply([FeatureService(name="wrong", features=["driver_stat"])])
    with pytest.raises(
        ValueError,
        match="takes feature `trip` of feature view `driver_stats`(.|\n)*did you mean `trips`",
    ):
        store.apply([FeatureService(name="wrong", features=["driver_stats:trip"])])


def test_views_are_found_by_when_they_changed(store: FeatureStore) -> None:
    every = store.registry.list_all_feature_views(store.project)
    last = max(view.last_updated_timestamp for view in every)
    assert last is not None

    def changed(since: datetime) -> list[str]:
        views = store.registry.list_all_feature_views(store.project, updated_since=since)
        return [view.name for view in views]

    assert changed(last) == [view.name for view in every if view.last_updated_timestamp == last]
    assert changed(last.replace(tzinfo=UTC)) == changed(last)
    assert changed(last + timedelta(microseconds=1)) == []


def test_what_is_not_there_has_its_own_exception(store: FeatureStore) -> None:
    for get, expected in {
        store.get_entity: EntityNotFoundException,
        store.get_data_source: DataSourceObjectNotFoundException,
        store.get_feature_view: FeatureViewNotFoundException,
        store.get_stream_feature_view: FeatureViewNotFoundException,
        store.get_label_view: FeatureViewNotFoundException,
        store.get_on_demand_feature_view: OnDemandFeatureViewNotFoundException,
        store.get_feature_service: FeatureServiceNotFoundException,
        store.get_saved_dataset: SavedDatasetNotFound,
        store.get_validation_reference: ValidationReferenceNotFound,
        store.get_permission: PermissionObjectNotFoundException,
        store.get_project: ProjectObjectNotFoundException,
        store.delete_feature_view: FeatureViewNotFoundException,
        store.delete_feature_service: FeatureServiceNotFoundException,
        store.enable_feature_view: FeatureViewNotFoundException,
        store.disable_feature_view: FeatureViewNotFoundException,
    }.items():
        with pytest.raises(expected, match="`nothing`"):
            get("nothing")


def test_deleted_views_lose_their_tables(store: FeatureStore) -> None:
    store.materialize(T0 - 100 * HOUR, T0)
    assert tables(store) == ["proj_driver_push", "proj_driver_stats"]
    store.delete_feature_service("model")
    store.delete_feature_view("driver_stats")

    assert tables(store) == ["proj_driver_push"]
    assert [each.name for each in store.list_feature_views()] == ["driver_push"]
    with pytest.raises(FeatureViewNotFoundException):
        online(store)
    # Applied again, the view starts empty.
    store.apply(list(definitions().values()))
    assert online(store) is None
    assert store.get_feature_view("driver_stats").materialization_intervals == []


def test_disabled_views_are_neither_filled_nor_served(store: FeatureStore) -> None:
    store.materialize(T0 - 100 * HOUR, T0 - HOUR)
    store.disable_feature_view("driver_stats")

    with pytest.raises(ValueError, match="`driver_stats` is disabled"):
        online(store)
    with pytest.raises(ValueError, match="`driver_stats` is disabled"):
        store.materialize(T0 - HOUR, T0, feature_views=["driver_stats"])
    store.materialize(T0 - 100 * HOUR, T0)
    store.enable_feature_view("driver_stats")
    assert online(store) == 10
    store.materialize_incremental(T0)
    assert online(store) == 30


def test_switching_a_view_loses_nothing_that_is_applied_meanwhile(
    store: FeatureStore, repository: Path
) -> None:
    other = FeatureStore(repo_path=str(repository))
    view, lost = definitions()["driver_stats"], []
    ended = threading.Event()

    def switch() -> None:
        while not ended.is_set():
            other.disable_feature_view("driver_stats")
            other.enable_feature_view("driver_stats")

    switching = threading.Thread(target=switch)
    switching.start()
    for number in range(25):
        view.description = str(number)
        # Whoever applies is told when somebody else was faster.
        while store.get_feature_view("driver_stats").description != view.description:
            with suppress(FeastError):
                store.apply([view])
                lost += [each for each in seen(store) if each != view.description]
    ended.set()
    switching.join()
    assert not lost


def seen(store: FeatureStore) -> list[str]:
    """The description of the drivers' view, several times."""
    return [store.get_feature_view("driver_stats").description for _ in range(5)]


def test_materialization_moves_the_state(store: FeatureStore) -> None:
    store.materialize(T0 - 2 * HOUR, T0 - HOUR)
    store.materialize(T0 - HOUR, T0)

    view = store.get_feature_view("driver_stats")
    assert view.state == FeatureViewState.AVAILABLE_ONLINE
    # Intervals that touch are one.
    assert view.materialization_intervals == [(T0 - 2 * HOUR, T0)]
    assert view.most_recent_end_time == T0


def test_torn_down_everything_is_gone(store: FeatureStore) -> None:
    store.materialize(T0 - 100 * HOUR, T0)
    store.teardown()

    assert (
        store.list_all_feature_views() == store.list_entities() == store.list_data_sources() == []
    )
    assert not (store.repo_path / "online.db").exists() or tables(store) == []
    store.apply(list(definitions().values()))
    store.materialize(T0 - 100 * HOUR, T0)
    assert online(store) == 30


def test_a_project_is_deleted_unless_it_is_protected(store: FeatureStore) -> None:
    store.apply(Project(name="proj", tags={"feast.dev/protected-project": "true"}))
    for delete in (lambda: store.delete_project("proj"), store.teardown):
        with pytest.raises(ValueError, match="`proj` is protected"):
            delete()
    assert online(store) is None
    store.apply(Project(name="proj"))
    store.delete_project("proj")
    assert store.list_projects() == []


def test_two_projects_share_a_registry(store: FeatureStore) -> None:
    place = store.repo_path
    config = RepoConfig(
        project="other",
        registry=str(place / "registry.db"),
        online_store={"type": "sqlite", "path": str(place / "online.db")},
        repo_path=place,
    )
    other = FeatureStore(config=config)
    other.apply(list(definitions().values()))
    other.materialize(T0 - 100 * HOUR, T0 - HOUR)
    store.materialize(T0 - 100 * HOUR, T0)

    assert (online(store), online(other)) == (30, 10)
    assert sorted(each.name for each in store.list_projects()) == ["other", "proj"]
    token = store.set_current_project("elsewhere")
    assert store.list_entities() == []
    store.reset_current_project(token)
    other.teardown()
    assert online(store) == 30
    assert [each.name for each in store.list_projects()] == ["proj"]


def test_arguments_of_feast_are_taken(store: FeatureStore) -> None:
    row = pa.Table.from_pylist(
        [
            {
                "driver_id": 1001,
                "event_timestamp": T0,
                "created": T0,
                "conv_rate": 0.5,
                "trips": 7,
                "city": "x",
            }
        ]
    ).to_pandas()
    store.push(
        "push", row, allow_registry_cache=False, to=PushMode.ONLINE, transform_on_write=False
    )
    store.write_to_online_store(
        "driver_push", df=row, allow_registry_cache=True, transform_on_write=True
    )
    store.write_to_online_store("driver_push", inputs=row.to_dict("list"))
    store.write_to_offline_store(
        "driver_push", row, allow_registry_cache=False, reorder_columns=False
    )
    store.materialize(T0 - HOUR, T0, ["driver_stats"], False, False, None, False, False)
    store.materialize_incremental(T0, feature_views=["driver_stats"], version=None, force=False)
    store.apply(
        [], objects_to_delete=[], partial=False, skip_feature_view_validation=True, no_promote=True
    )
    answer = store.get_online_features(
        features=["driver_push:trips"],
        entity_rows=[{"driver_id": 1001}],
        full_feature_names=False,
        include_feature_view_version_metadata=False,
    )
    assert answer.to_dict()["trips"] == [7]
    assert store.list_feature_views(True) == store.list_feature_views(allow_cache=False)


# Stores that cannot be opened yet.


def airflow(**stores: Any) -> FeatureStore:
    """What Feast's guide to production has an Airflow task do."""
    settings: dict[str, Any] = {
        "registry": RegistryConfig(path="s3://[YOUR BUCKET]/registry.pb"),
        "project": "feast_demo_aws",
        "provider": "aws",
        "offline_store": "file",
        "online_store": DynamoDBOnlineStoreConfig(region="us-west-2"),
        "entity_key_serialization_version": 3,
    }
    return FeatureStore(config=RepoConfig(**(settings | stores)))


def test_a_store_in_the_cloud_says_what_is_missing(tmp_path: Path) -> None:
    # Nothing is opened before it is needed.
    assert airflow().project == "feast_demo_aws"
    with pytest.raises(
        NotImplementedError, match="^online store `bigtable` is not built yet[^\n]*$"
    ):
        airflow(
            registry=RegistryConfig(path=str(tmp_path / "registry.db")),
            online_store={"type": "bigtable", "project_id": "p", "instance": "i"},
        )


def test_the_airflow_task_runs_on_this_machine(store: FeatureStore) -> None:
    place = store.repo_path
    same = airflow(
        registry=RegistryConfig(path=str(place / "registry.db")),
        project="proj",
        provider="local",
        online_store={"type": "sqlite", "path": str(place / "online.db")},
        repo_path=place,
    )
    start, end = T0 - timedelta(days=10), T0
    same.materialize(start - HOUR, end)
    same.materialize_incremental(end, feature_views=["driver_stats"])
    assert online(same) == 30
    # Feature references may come from a file, as in the guide's service.
    (place / "references.json").write_text('["driver_stats:trips"]')
    references = json.loads((place / "references.json").read_text())
    assert same.get_online_features(references, [{"driver_id": 1001}]).to_dict() == {
        "driver_id": [1001],
        "trips": [30],
    }
