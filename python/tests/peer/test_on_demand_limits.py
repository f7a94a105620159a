"""What Feast 0.67.0 accepts for on-demand views and does not compute, and what neither accepts."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from test_on_demand_views import CONFIGURATION, run

AGGREGATED = """
import sys, warnings
warnings.simplefilter("ignore")
from datetime import datetime, timedelta, timezone
import pandas as pd
from feast import Entity, FeatureStore, FeatureView, Field, FileSource
from feast.aggregation import Aggregation
from feast.on_demand_feature_view import OnDemandFeatureView
from feast.types import Int64

driver = Entity(name="driver_id", join_keys=["driver_id"])
stats = FeatureView(
    name="stats",
    entities=[driver],
    ttl=timedelta(days=3650),
    schema=[Field(name="driver_id", dtype=Int64), Field(name="trips", dtype=Int64)],
    source=FileSource(name="src", path="stats.parquet", timestamp_field="event_timestamp"),
)
sums = OnDemandFeatureView(
    name="sums",
    entities=[driver],
    sources=[stats],
    mode="python",
    schema=[Field(name="sum_trips", dtype=Int64)],
    aggregations=[Aggregation(column="trips", function="sum")],
)
t = datetime(2026, 1, 1, 12, 30, tzinfo=timezone.utc)
pd.DataFrame({"driver_id": [1, 2], "event_timestamp": [t] * 2, "trips": [10, 20]}).to_parquet("stats.parquet")
store = FeatureStore(repo_path=".")
store.apply([driver, stats, sums])
store.materialize(datetime(2025, 1, 1), datetime(2026, 6, 1))
"""
ASK = """
import json, warnings
warnings.simplefilter("ignore")
from datetime import datetime, timezone
import pandas as pd
from feast import FeatureStore
store = FeatureStore(repo_path=".")
told = []
try:
    rows = [{"driver_id": 1}, {"driver_id": 1}, {"driver_id": 2}]
    told.append(store.get_online_features(features=["sums:sum_trips"], entity_rows=rows).to_dict())
except Exception as error:
    told.append(f"{type(error).__name__}: {error}")
entity = pd.DataFrame({"driver_id": [1], "event_timestamp": [datetime(2026, 3, 1, tzinfo=timezone.utc)]})
try:
    told.append(store.get_historical_features(entity_df=entity, features=["sums:sum_trips"]).to_df().to_dict("list"))
except Exception as error:
    told.append(f"{type(error).__name__}: {error}")
print("ANSWER" + json.dumps(told, default=str))
"""
OTHER_MODE = """
import warnings
warnings.simplefilter("ignore")
from feast import Field, RequestSource
from feast.on_demand_feature_view import OnDemandFeatureView
from feast.types import Int64
source = RequestSource(name="vals", schema=[Field(name="val", dtype=Int64)])
def query(inputs):
    return "SELECT val FROM vals"
for mode in ("sql", "spark", "spark_sql", "ray", "flink", "trino_sql"):
    try:
        OnDemandFeatureView(name="v", sources=[source], schema=[Field(name="x", dtype=Int64)], udf=query, udf_string="q", mode=mode)
        print("ANSWER accepted", mode)
    except Exception as error:
        pass
"""


def test_aggregations_have_no_values_in_feast_and_some_here(peer: str, tmp_path: Path) -> None:
    (tmp_path / "feature_store.yaml").write_text(CONFIGURATION)
    run(peer, tmp_path, AGGREGATED)
    online, offline = json.loads(run(peer, tmp_path, ASK).rpartition("ANSWER")[2])
    assert online == {"driver_id": [1, 1, 2]}
    assert offline == "AssertionError: "
    # From the registry that Feast wrote.
    online, offline = json.loads(run(sys.executable, tmp_path, ASK).rpartition("ANSWER")[2])
    assert online == {"driver_id": [1, 1, 2], "sum_trips": [20, 20, 20]}
    assert offline["sum_trips"] == [10]


def test_other_modes_are_refused_by_both(peer: str, tmp_path: Path) -> None:
    (tmp_path / "feature_store.yaml").write_text(CONFIGURATION)
    assert "ANSWER" not in run(peer, tmp_path, OTHER_MODE)
    assert "ANSWER" not in run(sys.executable, tmp_path, OTHER_MODE)
