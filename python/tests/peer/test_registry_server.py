"""Feast 0.67.0's client of a registry server against our server."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from servers import free_port, listens, server

HERE = Path(__file__).parent
CONFIGURATION = "project: owner\nregistry: data/registry.db\nprovider: local\nonline_store: null\n"


@pytest.fixture(scope="module")
def environment() -> dict[str, str]:
    """Feast, with the gRPC library that its registry client needs and its package does not bring."""
    extras = os.environ.get("FEAST_PEER_EXTRAS", "")
    assert extras, "FEAST_PEER_EXTRAS must name the folder that `make peer` fills beside Feast"
    return {**os.environ, "PYTHONPATH": extras}


@contextmanager
def our_server(folder: Path, configuration: str = CONFIGURATION, *options: str) -> Iterator[str]:
    """Our registry server in a repository; gives its address."""
    binary = os.environ.get("FEAST_BINARY", "")
    assert binary, "FEAST_BINARY must name the standalone program"
    (folder / "feature_store.yaml").write_text(configuration)
    port = free_port()
    command = [binary, "-c", str(folder), "serve_registry", "--port", str(port), *options]
    with server(command, folder / "log", lambda: listens(port)):
        yield f"127.0.0.1:{port}"


def ask(peer: str, environment: dict[str, str], verb: str, address: str) -> Any:
    """What Feast's client finds."""
    done = subprocess.run(
        [peer, str(HERE / "remote_registry.py"), verb, address],
        cwd=HERE,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout) if done.stdout else None


def test_feasts_client_changes_every_kind_of_object(
    peer: str, environment: dict[str, str], tmp_path: Path
) -> None:
    with our_server(tmp_path) as address:
        report = ask(peer, environment, "changes", address)
    assert report["intervals"] == [["2026-01-01 00:00:00+00:00", "2026-01-04 00:00:00+00:00"]]
    assert report["state"] == "AVAILABLE_ONLINE"
    assert report["any"] == "OnDemandFeatureView"
    views = [kind for kind in report["applied"] if kind.endswith("_view") and kind != "label_view"]
    assert report["all"] == sorted(name for kind in views for name in report["applied"][kind])
    assert report["new"] == ["driver_stats"]
    assert report["datasets"] == 0
    direct, _ = report["lineage"]
    assert ["entity", "driver", "featureView", "driver_stats"] in direct
    assert ["entity", "driver", "featureView", "driver_stats"] in report["relations"]
    assert report["metadata"] == ["remote"]
    assert report["infra"] == ["remote_driver_stats"]
    assert report["gone"] == {
        "entity": "EntityNotFoundException",
        "data_source": "DataSourceObjectNotFoundException",
        "feature_view": "FeatureViewNotFoundException",
        "stream_feature_view": "FeatureViewNotFoundException",
        "on_demand_feature_view": "OnDemandFeatureViewNotFoundException",
        "label_view": "FeatureViewNotFoundException",
        "feature_service": "FeatureServiceNotFoundException",
        "saved_dataset": "SavedDatasetNotFound",
        "validation_reference": "ValidationReferenceNotFound",
        "permission": "PermissionObjectNotFoundException",
    }
    assert report["projects"] == []


def test_unknown_names_are_told_as_feast_does(
    peer: str, environment: dict[str, str], tmp_path: Path
) -> None:
    with our_server(tmp_path) as address:
        told = ask(peer, environment, "missing", address)
    kinds = {name: kind for name, (kind, _) in told.items()}
    assert kinds["project"] == "ProjectObjectNotFoundException"
    assert kinds["validation_reference"] == "ValidationReferenceNotFound"
    assert kinds["any"] == "FeatureViewNotFoundException"
    assert kinds["same name"] == "ConflictingFeatureViewNames"
    assert "label view `same` and feature view `same`" in told["same name"][1]
    assert "entity `nobody` does not exist in project `remote`" in told["entity"][1]
    assert kinds["relations"] == kinds["unnamed project"] == "FeastError"
    assert "`nonsense` is not a kind of object" in told["relations"][1]


def test_feasts_client_trusts_our_certificate(
    peer: str, environment: dict[str, str], tmp_path: Path
) -> None:
    files = [
        "-keyout",
        "key.pem",
        "-out",
        "cert.pem",
        "-subj",
        "/CN=localhost",
        "-addext",
        "subjectAltName=IP:127.0.0.1",
    ]
    make = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        *files,
    ]
    subprocess.run(make, cwd=tmp_path, check=True, capture_output=True)
    secured = ["--key", str(tmp_path / "key.pem"), "--cert", str(tmp_path / "cert.pem")]
    with our_server(tmp_path, CONFIGURATION, *secured) as address:
        told = ask(
            peer,
            {**environment, "REGISTRY_CERTIFICATE": str(tmp_path / "cert.pem")},
            "missing",
            address,
        )
    assert told["entity"][0] == "EntityNotFoundException"
