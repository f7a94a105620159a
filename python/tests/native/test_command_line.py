"""The command line on repositories as users have them."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import boto3
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import servers

CONFIGURATION = (
    "project: rides\nregistry: registry.db\nonline_store:\n  type: sqlite\n  path: online.db\n"
)
DEFINITIONS = """
from datetime import timedelta
from feast import Entity, FeatureView, Field, FileSource, ValueType
from feast.types import Int64

driver = Entity(name="driver", join_keys=["driver_id"], value_type=ValueType.INT64)
stats = FeatureView(
    name="stats",
    entities=[driver],
    ttl=timedelta(0),
    schema=[Field(name="trips", dtype=Int64)],
    source=FileSource(name="trips", path="{path}", timestamp_field="event_timestamp"),
)
"""


def feast(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs a command in a repository."""
    command = [str(Path(sys.executable).with_name("feast")), "-c", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_a_configuration_may_begin_with_a_byte_order_mark(repository: Path) -> None:
    (repository / "feature_store.yaml").write_text(CONFIGURATION, encoding="utf-8-sig")
    (repository / "definitions.py").write_text(DEFINITIONS.format(path="stats.parquet"))
    done = feast(repository, "apply")
    assert done.returncode == 0, done.stderr


def test_sources_are_left_alone_where_nothing_is_open(tmp_path: Path) -> None:
    (tmp_path / "feature_store.yaml").write_text(CONFIGURATION)
    (tmp_path / "definitions.py").write_text(DEFINITIONS.format(path="nowhere.parquet"))
    refused = feast(tmp_path, "apply")
    assert refused.returncode == 1
    assert "or use `--skip-source-validation`" in refused.stderr
    done = feast(tmp_path, "apply", "--skip-source-validation")
    assert done.returncode == 0, done.stderr


def test_a_source_that_is_only_asked_for_a_type_is_not_checked(repository: Path) -> None:
    (repository / "feature_store.yaml").write_text(CONFIGURATION)
    untyped = DEFINITIONS.replace(", value_type=ValueType.INT64", "").replace(
        '"trips", d', '"soon", d'
    )
    assert untyped.count("soon") == 1 and "value_type" not in untyped
    (repository / "definitions.py").write_text(untyped.format(path="stats.parquet"))
    refused = feast(repository, "plan")
    assert "takes feature `soon` from source `trips`, which has no such column" in refused.stderr
    done = feast(repository, "plan", "--skip-source-validation")
    assert done.returncode == 0, done.stderr


def test_sources_in_a_bucket_are_read_with_the_profile_of_the_user(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(variable)
    credentials = tmp_path / "credentials"
    credentials.write_text("[rides]\naws_access_key_id = owner\naws_secret_access_key = owner\n")
    settings = tmp_path / "config"
    settings.write_text("[profile rides]\nregion = us-east-1\n")
    with servers.moto(tmp_path / "log") as address:
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(credentials))
        monkeypatch.setenv("AWS_CONFIG_FILE", str(settings))
        monkeypatch.setenv("AWS_PROFILE", "rides")
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        objects = boto3.client("s3")
        objects.create_bucket(Bucket="rides")
        objects.upload_file(str(repository / "stats.parquet"), "rides", "stats.parquet")
        (repository / "definitions.py").write_text(
            DEFINITIONS.format(path="s3://rides/stats.parquet")
        )
        done = feast(repository, "apply")
        assert done.returncode == 0, done.stderr
        rows = json.dumps([{"driver_id": 1002, "event_timestamp": "2026-11-20T12:00:00Z"}])
        done = feast(repository, "get-historical-features", "-d", rows, "-f", "stats:trips")
        assert "40" in done.stdout, done.stderr


def test_structured_output_is_data_alone(repository: Path) -> None:
    (repository / "definitions.py").write_text(DEFINITIONS.format(path="stats.parquet"))
    assert feast(repository, "apply").returncode == 0
    done = feast(repository, "feature-views", "disable", "stats", "--output", "json")
    assert (done.returncode, done.stdout) == (0, "")
    assert "feature view `stats` is disabled" in done.stderr


def test_a_table_as_feast_makes_it_is_no_defect(repository: Path) -> None:
    (repository / "definitions.py").write_text(DEFINITIONS.format(path="stats.parquet"))
    assert feast(repository, "apply").returncode == 0
    with sqlite3.connect(repository / "online.db") as database:
        for column in ("event_ts_micros", "created_ts_micros"):
            database.execute(f"ALTER TABLE proj_stats DROP COLUMN {column}")
    checked = feast(repository, "online-store", "check")
    assert checked.returncode == 0, checked.stderr
    assert "keeps whole seconds only" in checked.stdout
    found = json.loads(feast(repository, "doctor", "--output", "json").stdout)
    notes = [one for one in found if "whole seconds" in json.dumps(one)]
    assert [one["severity"] for one in notes] == ["note"], found


def test_columns_without_a_feature_type_are_named(repository: Path) -> None:
    rows = pa.table(
        {
            "driver_id": [1001],
            "event_timestamp": [datetime(2026, 11, 20, tzinfo=UTC)],
            "trips": [1],
            "waited": pa.array([5], pa.duration("us")),
        }
    )
    pq.write_table(rows, repository / "stats.parquet")
    (repository / "feature_store.yaml").write_text(CONFIGURATION)
    lines = [line for line in DEFINITIONS.splitlines() if "schema=" not in line]
    (repository / "definitions.py").write_text("\n".join(lines).format(path="stats.parquet"))
    done = feast(repository, "apply")
    assert done.returncode == 0, done.stderr
    assert (
        "definitions.py:7: feature view `stats` has no schema, and gets no feature of the column `waited` (Duration"
        in done.stderr
    )
    assert (
        "of its source `trips`: no feature type is like it (declare it with `schema=[Field(...)]`"
        in done.stderr
    )
    pq.write_table(rows.drop_columns(["trips"]), repository / "stats.parquet")
    (repository / "registry.db").unlink()
    refused = feast(repository, "apply")
    assert refused.returncode == 1
    assert (
        "has no schema, and no feature type is like the column `waited` (Duration" in refused.stderr
    )


def test_the_command_is_where_feast_has_it(repository: Path) -> None:
    module = [sys.executable, "-m", "feast.cli.cli", "-c", str(repository), "version"]
    done = subprocess.run(module, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == feast(repository, "version").stdout
    call = f"from feast.cli.cli import cli; cli(['-c', {str(repository)!r}, 'nonsense'])"
    refused = subprocess.run(
        [sys.executable, "-c", call], capture_output=True, text=True, timeout=120, check=False
    )
    assert refused.returncode == 2
    assert "unrecognized subcommand 'nonsense'" in refused.stderr
