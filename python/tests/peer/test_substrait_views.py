"""On-demand views in mode `substrait`: plans that Feast 0.67.0 compiles run here, without Python, to Feast's values."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from test_on_demand_views import CONFIGURATION

PLANS = """
import sys, warnings
warnings.simplefilter("ignore")
from datetime import datetime, timedelta, timezone
import pandas as pd
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RequestSource
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Bool, Float64, Int64, String

driver = Entity(name="driver", join_keys=["driver_id"])
stats = FeatureView(
    name="stats",
    entities=[driver],
    ttl=timedelta(days=3650),
    schema=[
        Field(name="driver_id", dtype=Int64),
        Field(name="rate", dtype=Float64),
        Field(name="trips", dtype=Int64),
        Field(name="city", dtype=String),
    ],
    source=FileSource(name="src", path="stats.parquet", timestamp_field="event_timestamp"),
)
request = RequestSource(name="vals", schema=[Field(name="val", dtype=Int64)])
TYPES = dict(plus=Float64, scaled=Float64, busy=Bool, level=String, both=Bool, unknown=Bool, ratio=Float64, twice=Int64, listed=Bool)

@on_demand_feature_view(
    sources=[stats, request], mode="substrait", schema=[Field(name=name, dtype=dtype) for name, dtype in TYPES.items()]
)
def planned(t):
    return t.select(
        plus=t.rate + t.val,
        scaled=t.rate * 2.5 - 1,
        busy=t.trips > 15,
        level=(t.trips > 15).ifelse("high", "low"),
        both=(t.trips >= 10) & (t.rate < 0.6),
        unknown=t.city.isnull(),
        ratio=t.trips.cast("float64") / 3,
        twice=t.trips * 2,
        listed=t.trips.isin([10, 30]),
    )

if __name__ == "__main__":
    t = datetime(2026, 1, 1, 12, 30, tzinfo=timezone.utc)
    pd.DataFrame({
        "driver_id": [1, 2, 3, 4],
        "event_timestamp": [t] * 4,
        "rate": [0.1, None, 0.7, 0.5],
        "trips": pd.array([10, None, 30, 15], dtype="Int64"),
        "city": ["A", None, "C", "D"],
    }).to_parquet("stats.parquet")
    store = FeatureStore(repo_path=".")
    store.apply([driver, stats, planned] if "plain" in sys.argv else [driver, request, stats, planned])
    store.materialize(datetime(2025, 1, 1), datetime(2026, 6, 1))
"""
NAMES = ["plus", "scaled", "busy", "level", "both", "unknown", "ratio", "twice", "listed"]
ASK = """
import json, sys, warnings
warnings.simplefilter("ignore")
from datetime import datetime, timezone
import pandas as pd
from feast import FeatureStore
names = json.loads(sys.argv[1])
store = FeatureStore(repo_path=".")
features = [f"planned:{name}" for name in names]
rows = [{"driver_id": driver, "val": 10 * driver} for driver in (3, 1, 2, 99, 4)]
online = store.get_online_features(features=features, entity_rows=rows).to_dict()
entity = pd.DataFrame(rows)
entity["event_timestamp"] = [datetime(2026, 3, 1, tzinfo=timezone.utc)] * len(rows)
table = store.get_historical_features(entity_df=entity, features=features).to_arrow().to_pylist()
table = sorted(table, key=lambda row: row["driver_id"])
offline = {name: [row[name] for row in table] for name in ["driver_id", *names]}
print("ANSWER" + json.dumps([online, offline]))
"""


@pytest.fixture(scope="module")
def environment() -> dict[str, str]:
    """Feast with the releases of Ibis and Substrait that work together."""
    extras = os.environ.get("FEAST_PEER_SUBSTRAIT", "")
    assert extras, "FEAST_PEER_SUBSTRAIT must name the folder that `make peer` fills beside Feast"
    return {**os.environ, "PYTHONPATH": extras}


def run(python: str, folder: Path, environment: dict[str, str], *arguments: str) -> str:
    done = subprocess.run(
        [python, *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def answers(python: str, folder: Path, environment: dict[str, str]) -> list[dict[str, Any]]:
    return json.loads(
        run(python, folder, environment, "-c", ASK, json.dumps(NAMES)).rpartition("ANSWER")[2]
    )


def test_plans_of_feast_give_the_values_of_feast(
    peer: str, environment: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "feature_store.yaml").write_text(CONFIGURATION)
    (tmp_path / "plans.py").write_text(PLANS)
    run(peer, tmp_path, environment, "plans.py")
    theirs = answers(peer, tmp_path, environment)
    ours = answers(sys.executable, tmp_path, dict(os.environ))
    # Where one condition is unknown, Ibis promises the other value (its documentation of `ifelse`). The engine behind
    # Feast gives null there, and only where there is no second condition.
    for mine, other in zip(ours, theirs):
        unknown = [at for at, trips in enumerate(other["twice"]) if trips is None]
        assert unknown
        assert [other["level"][at] for at in unknown] == [None] * len(unknown)
        assert [mine["level"][at] for at in unknown] == ["low"] * len(unknown)
        for at in unknown:
            other["level"][at] = "low"
    assert ours == theirs
    # A program without any Python computes the same.
    binary = os.environ.get("FEAST_BINARY", "")
    assert binary, "FEAST_BINARY must name the standalone program"
    command = [
        binary,
        "get-online-features",
        "-e",
        "driver_id=3,1,2,99,4",
        "-e",
        "val=30,10,20,990,40",
    ]
    command += [part for name in NAMES for part in ("-f", f"planned:{name}")]
    without = {"PATH": "/nowhere", "HOME": str(tmp_path)}
    told = json.loads(run(command[0], tmp_path, without, *command[1:], "--output", "json"))
    assert {name: told[name] for name in NAMES} == {name: ours[0][name] for name in NAMES}


def test_views_declared_here_are_the_views_of_feast(
    peer: str, environment: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "feature_store.yaml").write_text(CONFIGURATION)
    (tmp_path / "plans.py").write_text(PLANS)
    # Our classes in the interpreter that has Ibis.
    with_us = {
        **environment,
        "PYTHONPATH": f"{Path(__file__).parents[2]}:{environment['PYTHONPATH']}",
    }
    run(peer, tmp_path, with_us, "plans.py", "plain")
    ours = answers(sys.executable, tmp_path, dict(os.environ))
    theirs = answers(peer, tmp_path, environment)
    for mine, other in zip(ours, theirs):
        for name in NAMES:
            if name != "level":
                assert mine[name] == other[name], name


def test_plans_that_change_which_rows_there_are_are_refused_at_apply(
    peer: str, environment: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "feature_store.yaml").write_text(CONFIGURATION)
    filtered = PLANS.replace("return t.select(", "return t.filter(t.trips > 10).select(")
    (tmp_path / "plans.py").write_text(filtered)
    with_us = {
        **environment,
        "PYTHONPATH": f"{Path(__file__).parents[2]}:{environment['PYTHONPATH']}",
    }
    done = subprocess.run(
        [peer, "plans.py"], cwd=tmp_path, env=with_us, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert (
        "its substrait plan filters rows, but an on-demand view has one row per row" in done.stderr
    )
