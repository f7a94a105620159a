"""Compute engines that a team wrote in Python: in the SDK and on the command line."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from drivers import HOUR, T0, definitions

from feast import FeatureStore

EXAMPLE = Path(__file__).parents[3] / "examples" / "compute_engine"

ENGINES = '''
import threading
from feast.infra.common.materialization_job import MaterializationJob, MaterializationJobStatus
from feast.infra.compute_engines.base import ComputeEngine


class Job(MaterializationJob):
    def __init__(self, failure=None):
        self.failure, self.asked = failure, 0

    def status(self):
        self.asked += 1
        if self.asked < 3:
            return MaterializationJobStatus.RUNNING
        return MaterializationJobStatus.ERROR if self.failure else MaterializationJobStatus.SUCCEEDED

    def error(self):
        return self.failure

    def should_be_retried(self):
        return False

    def job_id(self):
        return "job"

    def url(self):
        return None


class Base(ComputeEngine):
    def update(self, project, views_to_delete, views_to_keep, entities_to_delete, entities_to_keep):
        pass

    def teardown_infra(self, project, fvs, entities):
        pass


class DoublingEngine(Base):
    """Reads and writes by the stores that it is given, as Feast's engines do."""

    def _materialize_one(self, registry, task, **kwargs):
        from feast.protos.feast.types.EntityKey_pb2 import EntityKey
        from feast.protos.feast.types.Value_pb2 import Value

        view = task.feature_view
        assert registry.get_entity("driver", task.project).join_key == "driver_id"
        source = view.batch_source
        rows = self.offline_store.pull_latest_from_table_or_query(
            config=self.repo_config,
            data_source=source,
            join_key_columns=["driver_id"],
            feature_name_columns=["trips"],
            timestamp_field=source.timestamp_field,
            created_timestamp_column=source.created_timestamp_column,
            start_date=task.start_time,
            end_date=task.end_time,
        ).to_arrow()
        data = [
            (
                EntityKey(join_keys=["driver_id"], entity_values=[Value(int64_val=row["driver_id"])]),
                {"trips": Value(int64_val=2 * row["trips"])},
                row["event_timestamp"],
                row["created"],
            )
            for row in rows.to_pylist()
        ]
        self.online_store.online_write_batch(self.repo_config, view, data, lambda n: None)
        return Job()


class FailingEngine(Base):
    def _materialize_one(self, registry, task, **kwargs):
        return Job(OSError("the cluster is gone"))


class NoEngine:
    pass
'''


def with_engine(repository: Path, engine: str) -> FeatureStore:
    """The store of the drivers with an engine of the repository."""
    configuration = repository / "feature_store.yaml"
    configuration.write_text(f"{configuration.read_text()}batch_engine:\n  type: {engine}\n")
    (repository / "my_engines.py").write_text(ENGINES)
    store = FeatureStore(repo_path=str(repository))
    store.apply(list(definitions().values()))
    return store


def trips(store: FeatureStore, driver: int) -> int | None:
    """What is served of one driver."""
    answer = store.get_online_features(["driver_stats:trips"], [{"driver_id": driver}]).to_dict()
    return answer["trips"][0]


@pytest.fixture(autouse=True)
def fresh_module() -> None:
    """Each test has a module of its own."""
    sys.modules.pop("my_engines", None)


def test_an_engine_reads_and_writes_by_the_stores_it_is_given(repository: Path) -> None:
    store = with_engine(repository, "my_engines.DoublingEngine")
    store.materialize(T0 - 2 * HOUR, T0, ["driver_stats"])
    assert trips(store, 1001) == 60
    assert trips(store, 1002) == 80
    assert trips(store, 1003) is None
    assert store.get_feature_view("driver_stats").materialization_intervals == [(T0 - 2 * HOUR, T0)]


def test_a_failed_job_is_an_error_and_nothing_is_recorded(repository: Path) -> None:
    store = with_engine(repository, "my_engines.FailingEngine")
    with pytest.raises(Exception, match=r"`my_engines.FailingEngine` .*: the cluster is gone"):
        store.materialize(T0 - HOUR, T0, ["driver_stats"])
    assert store.get_feature_view("driver_stats").materialization_intervals == []


@pytest.mark.parametrize(
    ("engine", "reason"),
    [
        ("my_engines.NoEngine", "is not a subclass of"),
        ("my_engines.Missing", "is not a subclass of"),
        ("no_such_module.Engine", "there is no module `no_such_module`"),
    ],
)
def test_a_wrong_class_is_told(repository: Path, engine: str, reason: str) -> None:
    store = with_engine(repository, engine)
    with pytest.raises(Exception, match=reason):
        store.materialize(T0 - HOUR, T0, ["driver_stats"])


def test_an_unknown_engine_is_told_with_those_there_are(repository: Path) -> None:
    with pytest.raises(Exception, match="`batch_engine` has the type `locl`, which does not exist"):
        with_engine(repository, "locl")


def test_an_engine_cannot_be_split(repository: Path) -> None:
    store = with_engine(repository, "my_engines.DoublingEngine")
    with pytest.raises(Exception, match="cannot work on shard 1/2"):
        store.materialize(T0 - HOUR, T0, ["driver_stats"], shard="1/2")


def test_shards_together_are_one_run(store: FeatureStore) -> None:
    for number in (2, 1, 3):
        assert store.get_feature_view("driver_stats").materialization_intervals == []
        store.materialize(T0 - HOUR, T0, ["driver_stats"], shard=f"{number}/3")
    assert store.get_feature_view("driver_stats").materialization_intervals == [(T0 - HOUR, T0)]
    assert [trips(store, driver) for driver in (1001, 1002)] == [30, 40]


def test_the_example(tmp_path: Path) -> None:
    folder = tmp_path / "example"
    shutil.copytree(EXAMPLE, folder)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}

    def run(*command: str) -> str:
        done = subprocess.run(
            [sys.executable, *command],
            check=False,
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    run("make_data.py")
    run("-m", "feast._cli", "apply")
    assert "driver_trips" in run("-m", "feast._cli", "materialize", "2026-11-01", "2026-11-02")
    store = FeatureStore(repo_path=str(folder))
    store.materialize_incremental(T0)
    lines = [json.loads(line) for line in (folder / "report.jsonl").read_text().splitlines()]
    assert [(line["feature_view"], line["status"]) for line in lines] == [
        ("driver_trips", "SUCCEEDED")
    ] * 2
    assert lines[0]["rows"] == 5
    answer = store.get_online_features(["driver_trips:trips"], [{"driver_id": 3}]).to_dict()
    assert answer["trips"] == [323]
