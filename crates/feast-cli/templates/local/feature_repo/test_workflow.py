"""A tour of this repository: `python test_workflow.py` (it needs pandas)."""

import subprocess
from datetime import datetime, timedelta, timezone
from pathlib import Path

from feast import FeatureStore
from feast.data_source import PushMode

HERE = Path(__file__).resolve().parent
FEATURES = [
    "driver_hourly_stats:conv_rate",
    "driver_hourly_stats:acc_rate",
    "driver_hourly_stats:avg_daily_trips",
]
FRESH_FEATURES = [feature.replace("driver_hourly_stats:", "driver_hourly_stats_fresh:") for feature in FEATURES]
# Computed when they are asked for, from the features above and from values that the request brings.
COMPUTED = ["transformed_conv_rate:conv_rate_plus_val1", "transformed_conv_rate:conv_rate_plus_val2"]
FRESH_COMPUTED = [feature.replace("conv_rate:", "conv_rate_fresh:") for feature in COMPUTED]


def run_demo() -> None:
    import pandas as pd

    now = datetime.now(timezone.utc).replace(microsecond=0)

    print("--- apply the definitions ---")
    subprocess.run(["feast", "apply"], cwd=HERE, check=True)
    store = FeatureStore(repo_path=str(HERE))

    print("\n--- training data: the values as they were known at each time ---")
    trips = pd.DataFrame(
        {
            "driver_id": [1001, 1002, 1003],
            "event_timestamp": [now - timedelta(hours=hours) for hours in (30, 20, 10)],
            "trip_completed": [1, 0, 1],
            "val_to_add": [1, 2, 3],
            "val_to_add_2": [10, 20, 30],
        }
    )
    print(store.get_historical_features(entity_df=trips, features=FEATURES + COMPUTED).to_df().to_string())

    print("\n--- load the newest values into the online store ---")
    store.materialize_incremental(end_date=now)

    print("\n--- read them as a model server would ---")
    drivers = [
        {"driver_id": 1001, "val_to_add": 1000, "val_to_add_2": 2000},
        {"driver_id": 1002, "val_to_add": 1001, "val_to_add_2": 2002},
    ]
    print_rows(store.get_online_features(features=FEATURES + COMPUTED, entity_rows=drivers).to_dict())

    print("\n--- the same by the name of a feature service ---")
    service = store.get_feature_service("driver_activity_v1")
    print_rows(store.get_online_features(features=service, entity_rows=drivers).to_dict())

    print("\n--- push a fresh row for driver 1001, and read it back ---")
    fresh = pd.DataFrame(
        {
            "driver_id": [1001],
            "event_timestamp": [now],
            "created": [now],
            "conv_rate": [0.99],
            "acc_rate": [0.98],
            "avg_daily_trips": [1000],
        }
    )
    store.push("driver_stats_push_source", fresh, to=PushMode.ONLINE)
    print_rows(store.get_online_features(features=FRESH_FEATURES + FRESH_COMPUTED, entity_rows=drivers).to_dict())

    print("\nDone. `feast teardown` removes the registry and the online store again.")


def print_rows(columns: dict[str, list]) -> None:
    for name, values in columns.items():
        print(f"{name:20} {values}")


# The files of a repository are imported by every `feast` command: only definitions may run then.
if __name__ == "__main__":
    run_demo()
