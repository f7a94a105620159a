"""Does one thing with a feature store and prints the result as JSON; run by our package and by Feast's.

python stores.py ACTION REPOSITORY [ARGUMENT as JSON]
"""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from typing import Any

from feast import FeatureStore


def plain(value: Any) -> Any:
    """A value as JSON that is the same for both packages."""
    if isinstance(value, bytes):
        return {"bytes": value.hex()}
    if isinstance(value, datetime):
        value = value if value.tzinfo else value.replace(tzinfo=UTC)
        return {"time": value.astimezone(UTC).isoformat()}
    if isinstance(value, (set, frozenset)):
        return {"set": sorted(plain(item) for item in value)}
    if isinstance(value, dict):
        return {key: plain(item) for key, item in sorted(value.items())}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return {type(value).__name__: str(value)}


def main() -> None:
    """Runs the action."""
    action, repository = sys.argv[1], sys.argv[2]
    argument = json.loads(sys.argv[3]) if len(sys.argv) > 3 else {}
    store = FeatureStore(repo_path=repository)
    if action == "online":
        response = store.get_online_features(
            features=argument["features"], entity_rows=argument["rows"]
        )
        answer = response.to_dict(include_event_timestamps=True)
        result: Any = {name: plain(values) for name, values in answer.items()}
    elif action == "objects":
        result = {
            "entities": sorted(entity.name for entity in store.list_entities()),
            "feature_views": {
                view.name: {field.name: str(field.dtype) for field in view.features}
                for view in store.list_feature_views()
            },
            "join_keys": {
                view.name: {column.name: str(column.dtype) for column in view.entity_columns}
                for view in store.list_feature_views()
            },
            "feature_services": sorted(service.name for service in store.list_feature_services()),
            "data_sources": sorted(source.name for source in store.list_data_sources()),
            "intervals": {
                view.name: [
                    [plain(start), plain(end)] for start, end in view.materialization_intervals
                ]
                for view in store.list_feature_views()
            },
        }
    elif action == "historical":
        import pandas as pd

        frame = pd.DataFrame(argument["rows"])
        frame["event_timestamp"] = pd.to_datetime(frame["event_timestamp"], utc=True)
        answer = store.get_historical_features(
            entity_df=frame, features=argument["features"]
        ).to_df()
        result = json.loads(answer.to_json(orient="records", date_format="iso", date_unit="us"))
    elif action == "push":
        import pandas as pd

        frame = pd.DataFrame(argument["rows"])
        for column in ("event_timestamp", "created"):
            frame[column] = pd.to_datetime(frame[column], utc=True)
        store.push(argument["source"], frame)
        result = None
    else:
        raise SystemExit(f"unknown action {action}")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
