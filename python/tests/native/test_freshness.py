"""How old the newest values are: of every view, online and offline, and who says so."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from drivers import HOUR, T0, definitions
from test_workers import Server

from feast import FeatureStore, FeatureView, Field, FileSource
from feast.data_source import PushMode
from feast.freshness import FeatureViewFreshness
from feast.types import Int64


def by_name(store: FeatureStore, quick: bool = False) -> dict[str, FeatureViewFreshness]:
    return {one.feature_view: one for one in store.freshness(quick)}


def row(time: datetime) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "driver_id": [1001],
            "event_timestamp": [time],
            "created": [time],
            "conv_rate": [0.5],
            "trips": [1],
            "city": ["a"],
        }
    )


def test_every_age_names_its_witness(store: FeatureStore) -> None:
    nothing = by_name(store)["driver_stats"]
    assert nothing.online is not None and nothing.online.told_by == "store"
    assert (nothing.online.time, nothing.online.age_seconds) == (None, None)
    assert nothing.offline is not None
    assert (nothing.offline.time, nothing.offline.told_by) == (T0, "statistics")

    store.materialize(T0 - timedelta(days=30), T0 + HOUR / 2)
    full, quick = by_name(store), by_name(store, quick=True)
    # The store knows the values; the registry knows until when they were looked for.
    assert full["driver_stats"].online.time == T0  # type: ignore[union-attr]
    assert quick["driver_stats"].online.time == T0 + HOUR / 2  # type: ignore[union-attr]
    assert quick["driver_stats"].online.told_by == "materialization"  # type: ignore[union-attr]
    age = (datetime.now(UTC) - T0).total_seconds()
    assert full["driver_stats"].online.age_seconds == pytest.approx(age, abs=120)  # type: ignore[union-attr]

    # A push is seen where it went.
    pushed = T0 + 3 * HOUR + timedelta(microseconds=250)
    store.push("push", row(pushed), to=PushMode.ONLINE)
    now = by_name(store)["driver_push"]
    assert (now.online.time, now.offline.time) == (pushed, T0)  # type: ignore[union-attr]
    store.push("push", row(pushed), to=PushMode.OFFLINE)
    assert by_name(store, quick=True)["driver_push"].offline.time == pushed  # type: ignore[union-attr]
    # Values to come are less than nothing old.
    ahead = datetime.now(UTC) + timedelta(days=1)
    store.push("push", row(ahead))
    assert by_name(store)["driver_push"].online.age_seconds < -80_000  # type: ignore[union-attr,operator]


def test_rows_are_read_where_no_statistics_tell(repository: Path) -> None:
    drivers: Any = definitions()
    table = pq.read_table(repository / "stats.parquet")
    pyarrow.csv.write_csv(table, repository / "stats.csv")
    times = table["event_timestamp"].cast(pa.string())
    text = table.set_column(1, "event_timestamp", times)
    pq.write_table(text, repository / "text.parquet")
    pq.write_table(table, repository / "bare.parquet", write_statistics=False)
    (repository / "mixed").mkdir()
    pq.write_table(table, repository / "mixed/a.parquet")
    later = table.set_column(
        1, "event_timestamp", pa.array([T0 + HOUR] * 5, table["event_timestamp"].type)
    )
    pq.write_table(later, repository / "mixed/b.parquet", write_statistics=False)
    names = ["stats.csv", "text.parquet", "bare.parquet", "mixed", "gone.parquet"]
    views = [
        FeatureView(
            name=name.replace(".", "_"),
            entities=[drivers["driver"]],
            schema=[Field(name="driver_id", dtype=Int64), Field(name="trips", dtype=Int64)],
            source=FileSource(name=name, path=name, timestamp_field="event_timestamp"),
        )
        for name in names
    ]
    pq.write_table(table, repository / "gone.parquet")
    store = FeatureStore(repo_path=str(repository))
    store.apply([drivers["driver"], *views])
    (repository / "gone.parquet").unlink()
    full, quick = by_name(store), by_name(store, quick=True)
    for name, newest in [
        ("stats_csv", T0),
        ("text_parquet", T0),
        ("bare_parquet", T0),
        ("mixed", T0 + HOUR),
    ]:
        found = full[name].offline
        assert found is not None and (found.time, found.told_by) == (newest, "rows"), name
        found = quick[name].offline
        assert found is not None and (found.time, found.told_by) == (None, "nobody"), name
    # One view that cannot be told does not hide the others.
    gone = full["gone_parquet"].offline
    assert gone is not None and gone.told_by == "nobody" and "gone.parquet" in (gone.problem or "")


def command(repository: Path, *arguments: str) -> str:
    binary = os.environ.get("FEAST_BINARY_UNDER_TEST")
    program = [binary] if binary else [sys.executable, "-m", "feast._cli"]
    done = subprocess.run(
        [*program, "-c", str(repository), "freshness", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_command_line_shows_a_table_json_and_yaml(
    store: FeatureStore, repository: Path
) -> None:
    import yaml

    store.materialize(T0 - timedelta(days=30), T0)
    lines = command(repository).splitlines()
    assert lines[0].split("  ")[0] == "FEATURE VIEW" or lines[0].startswith("Feature View")
    stats = next(line for line in lines if line.startswith("driver_stats"))
    assert stats.count("2026-11-20 12:00:00+00:00") == 2
    assert "store" in stats and "statistics" in stats
    told = json.loads(command(repository, "--output", "json"))
    assert [view["feature_view"] for view in told] == ["driver_push", "driver_stats"]
    assert told[1]["online"]["told_by"] == "store"
    assert datetime.fromisoformat(told[1]["online"]["newest"]) == T0
    told = yaml.safe_load(command(repository, "--quick", "--output", "yaml"))
    assert told[1]["online"]["told_by"] == "materialization"


def gauges(port: int, name: str) -> dict[str, float]:
    """The values of a gauge by feature view."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        lines = answer.read().decode().splitlines()
    found = {}
    for line in lines:
        if line.startswith(name + "{"):
            labels, _, value = line.rpartition(" ")
            assert 'project="proj"' in labels
            found[labels.partition('feature_view="')[2].partition('"')[0]] = float(value)
    return found


def test_the_server_tells_ages_as_metrics(store: FeatureStore, repository: Path) -> None:
    store.materialize(T0 - timedelta(days=30), T0)
    server = Server(repository)
    try:
        age = (datetime.now(UTC) - T0).total_seconds()
        online = gauges(server.port, "feast_feature_freshness_seconds")
        assert online == {
            "driver_push": pytest.approx(age, abs=60),
            "driver_stats": pytest.approx(age, abs=60),
        }
        # What goes through the server counts at once, though the registry does not know it.
        body = {
            "push_source_name": "push",
            "df": {
                "driver_id": [1001],
                "event_timestamp": [datetime.now(UTC).isoformat()],
                "created": [datetime.now(UTC).isoformat()],
                "conv_rate": [0.5],
                "trips": [1],
                "city": ["a"],
            },
        }
        request = urllib.request.Request(
            f"http://127.0.0.1:{server.port}/push",
            json.dumps(body).encode(),
            {"content-type": "application/json"},
        )
        urllib.request.urlopen(request).close()
        online = gauges(server.port, "feast_feature_freshness_seconds")
        assert -1 < online["driver_push"] < 60
        assert online["driver_stats"] == pytest.approx(age, abs=60)
        offline: dict[str, float] = {}
        while not offline:
            offline = gauges(server.port, "feast_feature_offline_freshness_seconds")
        assert offline == {
            "driver_push": pytest.approx(age, abs=60),
            "driver_stats": pytest.approx(age, abs=60),
        }
    finally:
        server.stop()
