"""The template's on-demand views, and one view of each mode, give the values that Feast 0.67.0 gives."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).resolve().parent
TEMPLATE = HERE.parents[2] / "crates/feast-cli/templates/local/feature_repo"

DRIVERS = [
    {"driver_id": 1001, "val_to_add": 1000, "val_to_add_2": 2000},
    {"driver_id": 1002, "val_to_add": 1001, "val_to_add_2": 2002},
]
STORED = ["driver_hourly_stats:conv_rate", "driver_hourly_stats:avg_daily_trips"]
COMPUTED = [
    "transformed_conv_rate:conv_rate_plus_val1",
    "transformed_conv_rate:conv_rate_plus_val2",
]

SCRIPT = """
import json, sys, warnings
warnings.simplefilter("ignore")
from datetime import datetime, timezone
import pandas as pd
from feast import FeatureStore
ask = json.loads(sys.argv[1])
store = FeatureStore(repo_path=".")
answer = store.get_online_features(features=ask["features"], entity_rows=ask["rows"])
frame = answer.to_df()
result = {
    "online": answer.to_dict(include_event_timestamps=True),
    "columns": {name: str(dtype) for name, dtype in frame.dtypes.items() if name in ask["computed"]},
    "statuses": {
        name: [list(result.statuses), [time.seconds for time in result.event_timestamps]]
        for name, result in zip(answer.proto.metadata.feature_names.val, answer.proto.results)
    },
}
entity = pd.DataFrame(ask["rows"])
entity["event_timestamp"] = [datetime(2026, 11, 20, 12, tzinfo=timezone.utc)] * len(entity)
history = store.get_historical_features(entity_df=entity, features=ask["features"]).to_df()
history = history.sort_values("driver_id")
result["offline"] = {name: history[name].tolist() for name in ask["names"]}
print("ANSWER" + json.dumps(result))
"""


def write(folder: Path) -> None:
    """The template with data of known drivers, loaded by Feast."""
    for file in TEMPLATE.iterdir():
        text = file.read_text().replace("__PROJECT__", "peer")
        (folder / file.name).write_text(text)
    (folder / "test_workflow.py").unlink()
    (folder / "data").mkdir()


DATA = """
from datetime import datetime, timedelta, timezone
import pandas as pd
noon = datetime(2026, 11, 20, 12, tzinfo=timezone.utc)
times = [noon - timedelta(hours=hours) for hours in (3, 2, 1)]
pd.DataFrame({
    "driver_id": [1001, 1002, 1001],
    "event_timestamp": times,
    "created": times,
    "conv_rate": pd.array([0.1, 0.7, 0.3], dtype="float32"),
    "acc_rate": pd.array([0.5, 0.6, 0.7], dtype="float32"),
    "avg_daily_trips": [10, 20, 30],
}).to_parquet("data/driver_stats.parquet")
from feast import FeatureStore
from feast.repo_operations import apply_total, cli_check_repo
"""


def run(python: str, folder: Path, script: str, *arguments: str) -> str:
    environment = {
        name: value
        for name, value in os.environ.items()
        if name != "PYTHONPATH" or python == sys.executable
    }
    done = subprocess.run(
        [python, "-c", script, *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory, peer: str) -> Path:
    """The template, applied and loaded by Feast itself."""
    folder = tmp_path_factory.mktemp("template")
    write(folder)
    run(peer, folder, DATA.partition("from feast")[0])
    feast = Path(peer).with_name("feast")
    for command in (["apply"], ["materialize", "2026-11-01T00:00:00", "2026-11-21T00:00:00"]):
        done = subprocess.run(
            [str(feast), *command],
            cwd=folder,
            env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert done.returncode == 0, done.stderr + done.stdout
    return folder


def ask(python: str, folder: Path, features: list[str], names: list[str]) -> dict[str, Any]:
    computed = [
        feature.partition(":")[2] for feature in features if feature.startswith("transformed")
    ]
    question = {"features": features, "rows": DRIVERS, "names": names, "computed": computed}
    return json.loads(run(python, folder, SCRIPT, json.dumps(question)).rpartition("ANSWER")[2])


@pytest.mark.parametrize("features", [COMPUTED, [*STORED, *COMPUTED]], ids=["computed", "both"])
def test_values_statuses_and_times_are_those_of_feast(
    repository: Path, peer: str, tmp_path: Path, features: list[str]
) -> None:
    names = [feature.partition(":")[2] for feature in features]
    theirs = ask(peer, repository, features, names)
    # The same registry, written by Feast: the function comes from its source text.
    ours = ask(sys.executable, repository, features, names)
    assert ours == theirs
    # And applied by us.
    copy = tmp_path / "copy"
    shutil.copytree(repository, copy)
    (copy / "data/registry.db").unlink()
    done = subprocess.run(
        [sys.executable, "-m", "feast._cli", "-c", str(copy), "apply"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert ask(sys.executable, copy, features, names) == theirs
    # What we applied, Feast computes.
    assert ask(peer, copy, features, names) == theirs


MODES = """
import sys, warnings
warnings.simplefilter("ignore")
from datetime import datetime, timedelta, timezone
import pandas as pd
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RequestSource
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Array, Bool, Float32, Float64, Int64, String, UnixTimestamp

driver = Entity(name="driver", join_keys=["driver_id"])
source = FileSource(
    name="src", path="stats.parquet", timestamp_field="event_timestamp", created_timestamp_column="created"
)
stats = FeatureView(
    name="stats",
    entities=[driver],
    ttl=timedelta(days=3650),
    schema=[
        Field(name="driver_id", dtype=Int64),
        Field(name="rate", dtype=Float32),
        Field(name="trips", dtype=Int64),
        Field(name="city", dtype=String),
        Field(name="at", dtype=UnixTimestamp),
        Field(name="tags", dtype=Array(String)),
    ],
    source=source,
)
request = RequestSource(name="vals", schema=[Field(name="val", dtype=Int64)])
OUT = [
    Field(name="plus", dtype=Float64),
    Field(name="known", dtype=Bool),
    Field(name="where", dtype=String),
]

def fields(prefix):
    return [Field(name=prefix + one.name, dtype=one.dtype) for one in OUT]

@on_demand_feature_view(sources=[stats, request], schema=fields("c_"), mode="python")
def by_columns(inputs):
    rows = list(zip(inputs["rate"], inputs["val"], inputs["city"], inputs["at"], inputs["stats__tags"], inputs["trips"]))
    return {
        "c_plus": [None if rate is None else rate * 3 + val for rate, val, *_ in rows],
        "c_known": [trips is not None for *_, trips in rows],
        "c_where": [f"{city} {at} {tags}" for _, _, city, at, tags, _ in rows],
    }

@on_demand_feature_view(sources=[stats, request], schema=fields("r_"), mode="python", singleton=True)
def by_rows(inputs):
    rate = inputs["rate"]
    return {
        "r_plus": None if rate is None else rate * 3 + inputs["val"],
        "r_known": inputs["trips"] is not None,
        "r_where": f"{inputs['city']} {inputs['at']} {inputs['tags']}",
    }

@on_demand_feature_view(sources=[stats, request], schema=fields("f_"), mode="pandas")
def by_frame(df: pd.DataFrame) -> pd.DataFrame:
    out = pd.DataFrame()
    out["f_plus"] = df["rate"] * 3 + df["val"]
    out["f_known"] = df["stats__trips"].notna()
    out["f_where"] = [f"{city} {at}" for city, at in zip(df["city"].fillna("?"), df["at"])]
    return out

if __name__ == "__main__":
    t = datetime(2026, 1, 1, 12, 30, tzinfo=timezone.utc)
    pd.DataFrame({
        "driver_id": [1, 2, 3],
        "event_timestamp": [t] * 3,
        "created": [t] * 3,
        "rate": pd.array([0.1, None, 0.7], dtype="Float32"),
        "trips": pd.array([10, None, 2**53 - 1], dtype="Int64"),
        "city": ["A", None, "Ä"],
        "at": [t, None, t + timedelta(seconds=1)],
        "tags": [["x", "y"], None, []],
    }).to_parquet("stats.parquet")
    store = FeatureStore(repo_path=".")
    store.apply([driver, source, request, stats, by_columns, by_rows, by_frame])
    store.materialize(datetime(2025, 1, 1), datetime(2026, 6, 1))
"""
ASK_MODES = """
import json, sys, warnings
warnings.simplefilter("ignore")
from feast import FeatureStore
store = FeatureStore(repo_path=".")
answers = []
for view, prefix, drivers in json.loads(sys.argv[1]):
    answer = store.get_online_features(
        features=[f"{view}:{prefix}{name}" for name in ("where", "plus", "known")],
        entity_rows=[{"driver_id": driver, "val": 10 * driver} for driver in drivers],
    )
    answers.append(answer.to_dict())
print("ANSWER" + json.dumps(answers))
"""
CONFIGURATION = (
    "project: p\nregistry: registry.db\nprovider: local\nonline_store: {type: sqlite, path: online.db}\n"
    "entity_key_serialization_version: 3\n"
)


def test_every_mode_gives_the_values_of_feast_nulls_included(peer: str, tmp_path: Path) -> None:
    (tmp_path / "feature_store.yaml").write_text(CONFIGURATION)
    (tmp_path / "modes.py").write_text(MODES)
    subprocess.run(
        [peer, "modes.py"],
        cwd=tmp_path,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        check=True,
        timeout=600,
        capture_output=True,
    )
    # In the mode of single rows, Feast computes one row only.
    cases: list[list[Any]] = [
        ["by_columns", "c_", [1, 2, 3, 99]],
        ["by_frame", "f_", [3, 1, 99, 2, 1]],
    ]
    cases += [["by_rows", "r_", [driver]] for driver in (1, 2, 3, 99)]
    theirs = json.loads(run(peer, tmp_path, ASK_MODES, json.dumps(cases)).rpartition("ANSWER")[2])
    ours = json.loads(
        run(sys.executable, tmp_path, ASK_MODES, json.dumps(cases)).rpartition("ANSWER")[2]
    )
    for case, mine, other in zip(cases, ours, theirs):
        assert mine == other, case
    assert [list(one) for one in ours] == [
        ["driver_id", *(f"{prefix}{name}" for name in ("where", "plus", "known"))]
        for _, prefix, _ in cases
    ]


HELPED = """
import warnings
warnings.simplefilter("ignore")
from feast import FeatureStore, Field, RequestSource
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Int64

FACTOR = 3

def times_factor(value):
    return FACTOR * value

@on_demand_feature_view(
    sources=[RequestSource(name="vals", schema=[Field(name="val", dtype=Int64)])],
    schema=[Field(name="helped", dtype=Int64)],
    mode="python",
)
def uses_helper(inputs):
    return {"helped": [times_factor(value) for value in inputs["val"]]}

if __name__ == "__main__":
    FeatureStore(repo_path=".").apply([uses_helper.source_request_sources["vals"], uses_helper])
"""
ASK_HELPED = """
import sys
sys.path[:0] = sys.argv[1:]
from feast import FeatureStore
store = FeatureStore(repo_path=".")
try:
    print("ANSWER", store.get_online_features(features=["uses_helper:helped"], entity_rows=[{"val": 2}]).to_dict()["helped"])
except Exception as error:
    print("ANSWER", error)
"""


def test_pickled_bodies_are_loaded_where_the_text_does_not_suffice_and_dill_is_there(
    peer: str, tmp_path: Path
) -> None:
    (tmp_path / "feature_store.yaml").write_text(CONFIGURATION)
    (tmp_path / "helped.py").write_text(HELPED)
    subprocess.run(
        [peer, "helped.py"],
        cwd=tmp_path,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        check=True,
        timeout=600,
        capture_output=True,
    )
    without = run(sys.executable, tmp_path, ASK_HELPED).rpartition("ANSWER")[2]
    assert "its source text uses `times_factor`, which it neither defines nor imports" in without
    assert "its pickled body needs dill, which is not installed" in without

    # Feast's own dill, and nothing else of its environment.
    find = "import dill, pathlib; print('ANSWER' + str(pathlib.Path(dill.__file__).parent))"
    dill = Path(run(peer, tmp_path, find).rpartition("ANSWER")[2].strip())
    (tmp_path / "packages").mkdir()
    shutil.copytree(dill, tmp_path / "packages/dill")
    assert (
        run(sys.executable, tmp_path, ASK_HELPED, "packages").rpartition("ANSWER")[2].strip()
        == "[6]"
    )

    # Applied by us, the helpers go with the function, and no pickle is needed.
    (tmp_path / "registry.db").unlink()
    subprocess.run([sys.executable, "helped.py"], cwd=tmp_path, check=True, timeout=600)
    assert run(sys.executable, tmp_path, ASK_HELPED).rpartition("ANSWER")[2].strip() == "[6]"
