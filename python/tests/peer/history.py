"""Random questions about history, as data, and how to ask them of a feature store: of ours in the tests' process, of
Feast's in its own interpreter.

    python history.py CASES.json > ANSWERS.json
"""

from __future__ import annotations

import json
import math
import random
import sys
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

START = datetime(2026, 1, 1, tzinfo=UTC)
HOUR = 3_600_000_000
"""All times are microseconds since `START`."""

KEYS = {"driver_id": "Int64", "city": "String"}
TYPES = {
    "Int64": [0, -7, 2**40],
    "Float64": [0.5, -1.25, 1e10],
    "String": ["", "x", "é"],
    "Bool": [True, False],
}


@dataclass
class View:
    """A feature view and its rows."""

    name: str
    keys: list[str]
    ttl: int | None
    created: bool
    features: dict[str, str]
    rows: list[dict[str, Any]] = field(default_factory=list)
    mapping: dict[str, str] = field(default_factory=dict)
    """Column of the source -> name in the view."""
    alias: str = ""
    join_key_map: dict[str, str] = field(default_factory=dict)

    def column_of(self, key: str) -> str:
        """The entity rows' column that holds a join key."""
        return self.join_key_map.get(key, key)

    @property
    def shown(self) -> str:
        """The name before `__`."""
        return self.alias or self.name


@dataclass
class Case:
    """Views, entity rows, and how to ask."""

    views: list[View]
    entity_rows: list[dict[str, Any]]
    known: bool
    """Count a feature row only from its created time on."""
    full_names: bool

    @property
    def outputs(self) -> list[tuple[View, str, str]]:
        """View, feature and name of each output column."""
        return [
            (view, feature, f"{view.shown}__{feature}" if self.full_names else feature)
            for view in self.views
            for feature in view.features
        ]


def case_from(values: dict[str, Any]) -> Case:
    """The inverse of `asdict`."""
    return Case(**{**values, "views": [View(**view) for view in values["views"]]})


def random_case(seed: int, for_feast: bool) -> Case:
    """A few views over few keys and times, so that ties and ends of windows are met often.

    For Feast, what it leaves open is left out: which of two rows with all times equal wins, and what null keys match.
    """
    pick = random.Random(seed)
    n_views = pick.randint(1, 4)
    aliased = pick.random() < 0.3
    views = [_random_view(pick, number, aliased, for_feast) for number in range(n_views)]
    known = pick.random() < 0.25 and all(view.created for view in views)
    columns = {view.column_of(key): KEYS[key] for view in views for key in view.keys}
    entity_rows = []
    for number in range(pick.randint(1, 150)):
        at = pick.randrange(48) * HOUR + pick.choice([0, 0, 0, 1, -1])
        row: dict[str, Any] = {"row": number, "event_timestamp": at}
        for column, kind in columns.items():
            row[column] = _random_key(pick, kind, nulls=not for_feast, known=6)
        entity_rows.append(row)
        if pick.random() < 0.1:
            entity_rows.append({**row, "row": number + 1000})
    pick.shuffle(entity_rows)
    return Case(views, entity_rows, known, full_names=aliased or pick.random() < 0.3)


def _random_view(pick: random.Random, number: int, aliased: bool, for_feast: bool) -> View:
    keys = pick.choice([["driver_id"], ["driver_id"], ["city"], ["driver_id", "city"], []])
    kinds = pick.sample(list(TYPES), pick.randint(1, 3))
    view = View(
        name=f"view_{number}",
        keys=keys,
        ttl=pick.choice([None, 0, HOUR, 6 * HOUR, 24 * HOUR]),
        created=pick.random() < 0.7,
        features={f"f{number}_{position}": kind for position, kind in enumerate(kinds)},
    )
    if aliased:
        view.alias = f"as_{number}"
        view.join_key_map = {key: f"{key}_{pick.randrange(2)}" for key in keys}
    if pick.random() < 0.2:
        renamed = pick.choice(list(view.features))
        view.mapping = {f"source_of_{renamed}": renamed}
    seen = set()
    for _ in range(pick.randint(0 if not for_feast else 1, 120)):
        at = pick.randrange(48) * HOUR
        row: dict[str, Any] = {"at": at}
        if view.created:
            row["made"] = at + pick.choice([0, 1, HOUR, 5 * HOUR])
        for key in keys:
            row[key] = _random_key(pick, KEYS[key], nulls=not for_feast, known=4)
        if for_feast and (tie := tuple(row.values())) in seen:
            continue
        elif for_feast:
            seen.add(tie)
        for feature, kind in view.features.items():
            row[feature] = pick.choice([*TYPES[kind], None])
        view.rows.append(row)
    return view


def _random_key(pick: random.Random, kind: str, nulls: bool, known: int) -> Any:
    if nulls and pick.random() < 0.05:
        return None
    number = pick.randrange(known)
    return number if kind == "Int64" else f"c{number}"


def time(at: int) -> datetime:
    """The moment of a number."""
    return START + timedelta(microseconds=at)


def write_sources(case: Case, folder: Path) -> None:
    """Writes the rows of all views as Parquet."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = {
        "Int64": pa.int64(),
        "Float64": pa.float64(),
        "String": pa.string(),
        "Bool": pa.bool_(),
    }
    folder.mkdir(parents=True)
    for view in case.views:
        source_names = {name: column for column, name in view.mapping.items()}
        columns = {key: kinds[KEYS[key]] for key in view.keys} | {
            feature: kinds[kind] for feature, kind in view.features.items()
        }
        arrays = {
            source_names.get(name, name): pa.array([row[name] for row in view.rows], kind)
            for name, kind in columns.items()
        }
        arrays["at"] = pa.array([time(row["at"]) for row in view.rows], pa.timestamp("us", "UTC"))
        if view.created:
            arrays["made"] = pa.array(
                [time(row["made"]) for row in view.rows], pa.timestamp("us", "UTC")
            )
        pq.write_table(pa.table(arrays), folder / f"{view.name}.parquet")


def entity_frame(case: Case) -> Any:
    """The entity rows as pandas frame."""
    import pandas as pd

    frame = pd.DataFrame(case.entity_rows)
    frame["event_timestamp"] = pd.to_datetime(
        [time(at) for at in frame["event_timestamp"]], utc=True
    )
    for column in frame.columns:
        if frame[column].dtype == "float64":  # integers of which one is missing
            frame[column] = frame[column].astype("Int64")
    return frame


def ask(case: Case, folder: Path, offline_store: str, frame: Any) -> dict[int, list[Any]]:
    """What a feature store answers: the features of each entity row, by its number, in the order of the answer."""
    import feast
    import feast.types
    from feast import (
        Entity,
        FeatureService,
        FeatureStore,
        FeatureView,
        Field,
        FileSource,
        RepoConfig,
    )

    entities = {
        key: Entity(name=key, join_keys=[key], value_type=getattr(feast.ValueType, kind.upper()))
        for key, kind in KEYS.items()
    }
    views = []
    for view in case.views:
        columns = {key: KEYS[key] for key in view.keys} | view.features
        views.append(
            FeatureView(
                name=view.name,
                entities=[entities[key] for key in view.keys],
                ttl=None if view.ttl is None else timedelta(microseconds=view.ttl),
                schema=[
                    Field(name=name, dtype=getattr(feast.types, kind))
                    for name, kind in columns.items()
                ],
                source=FileSource(
                    name=f"{view.name}_source",
                    path=str(folder / f"{view.name}.parquet"),
                    timestamp_field="at",
                    created_timestamp_column="made" if view.created else "",
                    field_mapping=view.mapping,
                ),
            )
        )
    config = RepoConfig(
        project="history",
        provider="local",
        registry=str(folder / f"{offline_store}.db"),
        offline_store={"type": offline_store},
        online_store={"type": "sqlite", "path": str(folder / f"{offline_store}_online.db")},
        entity_key_serialization_version=3,
    )
    store = FeatureStore(config=config)
    store.apply([*entities.values(), *views])
    asked: Any = [f"{view.name}:{feature}" for view, feature, _ in case.outputs]
    if any(view.alias for view in case.views):
        projections = [
            declared.with_name(view.alias).with_join_key_map(view.join_key_map)
            for declared, view in zip(views, case.views, strict=True)
        ]
        asked = FeatureService(name="asked", features=projections)
        store.apply(asked)
    answer = store.get_historical_features(
        entity_df=frame,
        features=asked,
        full_feature_names=case.full_names,
        filter_by_created_timestamp=case.known,
    ).to_df()
    names = [name for _, _, name in case.outputs]
    columns = [[plain(value) for value in answer[name].tolist()] for name in names]
    return dict(zip(answer["row"].tolist(), map(list, zip(*columns, strict=True)), strict=True))


def plain(value: Any) -> Any:
    """A value as JSON, whatever stands for a missing one."""
    if (
        value is None
        or type(value).__name__ == "NAType"
        or (isinstance(value, float) and math.isnan(value))
    ):
        return None
    return value.item() if hasattr(value, "item") else value


def main() -> None:
    """Answers a list of [folder, offline store, case] as a list of [[row, values]] or of the text of an error."""
    asked = json.loads(Path(sys.argv[1]).read_text())
    sys.stdout, stdout = sys.stderr, sys.stdout
    answers: list[Any] = []
    for folder, offline_store, values in asked:
        case = case_from(values)
        try:
            answers.append(list(ask(case, Path(folder), offline_store, entity_frame(case)).items()))
        except Exception as error:
            answers.append(f"{type(error).__name__}: {error}")
    stdout.write(json.dumps(answers))


if __name__ == "__main__":
    main()
