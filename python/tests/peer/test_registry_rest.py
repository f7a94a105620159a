"""Our REST registry server and that of Feast 0.67.0 on the same registry file, route by route."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from every_type import make_data
from servers import free_port, listens, server
from test_registry_server import HERE
from test_remote_registry import feasts_server
from test_stores import command

# What differs for a reason, by key: Feast adds definitions as Python code, which we do not; leaves out which class a
# source is of, and the code of functions; and counts relations without those of saved datasets, which it forgets.
IGNORED = {
    "featureDefinition",
    "dataSourceClassType",
    "userDefinedFunction",
    "featureTransformation",
    "registryLastUpdated",
    "relationships_pagination",
}
ROUTES = [
    "/projects",
    "/projects/remote",
    "/projects/nobody",
    "/entities?project=remote",
    "/entities?project=remote&include_relationships=true",
    "/entities?project=remote&page=1&limit=2&sort_by=name&sort_order=desc",
    "/entities?project=remote&page=2&limit=2&sort_by=name",
    "/entities?project=nobody",
    "/entities",
    "/entities?project=remote&limit=1000",
    "/entities/all",
    "/entities/all?page=2&limit=1&include_relationships=true",
    "/entities/driver?project=remote&include_relationships=true",
    "/entities/nobody?project=remote",
    "/data_sources?project=remote&sort_by=name&include_relationships=true",
    "/data_sources?project=remote&tags=no:such",
    "/data_sources/all?sort_by=name&limit=3",
    "/feature_views?project=remote",
    "/feature_views?project=remote&include_relationships=true&sort_by=name&page=1&limit=3",
    "/feature_views?project=remote&entity=driver",
    "/feature_views?project=remote&feature_service=plain",
    "/feature_views?project=remote&updated_since=2020-01-01T00:00:00Z",
    "/feature_views?project=remote&updated_since=2999-01-01",
    "/feature_views?project=remote&updated_since=nonsense",
    "/feature_views/all?limit=100",
    "/feature_views/driver_stats?project=remote&include_relationships=true",
    "/feature_views/scaled_rate?project=remote",
    "/feature_views/nobody?project=remote",
    "/label_views?project=remote&include_relationships=true",
    "/label_views/all",
    "/label_views/labels?project=remote",
    "/feature_services?project=remote&include_relationships=true",
    "/feature_services?project=remote&feature_view=driver_stats",
    "/feature_services/all",
    "/feature_services/plain?project=remote",
    "/features?project=remote",
    "/features?project=remote&feature_view=driver_stats&include_relationships=true",
    "/features?project=remote&sort_by=name&page=1&limit=4",
    "/features/all?sort_by=name&limit=5",
    "/features/driver_stats/nobody?project=remote",
    "/labels?project=remote",
    "/labels/all",
    "/saved_datasets?project=remote&include_relationships=true",
    "/saved_datasets/all",
    "/saved_datasets/file?project=remote",
    "/permissions?project=remote&include_relationships=true",
    "/permissions/some?project=remote",
    "/lineage/registry?project=remote",
    "/lineage/registry?project=remote&filter_object_type=entity&filter_object_name=driver",
    "/lineage/registry?project=remote&filter_object_type=featureService&filter_object_name=plain&page=1&limit=1",
    "/lineage/registry/all",
    "/lineage/objects/entity/driver?project=remote&include_indirect=true",
    "/lineage/objects/entity/nobody?project=remote",
    "/lineage/objects/nonsense/driver?project=remote",
    "/lineage/complete?project=remote",
    "/lineage/complete/all",
    "/search?query=driver&limit=100",
    "/search?query=driver&sort_by=name&sort_order=asc&page=1&limit=3",
    "/search?query=Rate&projects=remote&projects=nobody",
    "/search?query=x&sort_by=nonsense",
    "/search?query=x&limit=1000",
    "/search?query=&limit=100&sort_by=name",
    "/metrics/resource_counts",
    "/metrics/resource_counts?project=remote",
    "/metrics/popular_tags?limit=2",
    "/compute_engines",
    "/compute_engines?project=remote",
    "/compute_engines?project=nobody",
    "/compute_engines/all",
    "/compute_engines/all?page=2&limit=1",
    "/materialization_jobs",
    "/materialization_jobs?project=remote&page=1&limit=5",
    "/saved_datasets/jobs",
    "/saved_datasets/jobs?project=remote&status=failed",
    "/saved_datasets/jobs/nobody",
    "/monitoring/metrics/features?project=remote",
    "/monitoring/metrics/feature_views?project=remote",
    "/monitoring/metrics/feature_services?project=remote",
    "/monitoring/metrics/baseline?project=remote",
    "/monitoring/metrics/timeseries?project=remote",
    "/nonsense",
]


def ask(address: str, route: str, method: str = "GET", body: Any = None) -> tuple[int, Any]:
    """Status and body of an answer."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{address}/api/v1{route}", data=data, method=method)
    request.add_header("content-type", "application/json")
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.loads(answer.read() or "null")
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read() or "null")


@contextmanager
def rest_servers(peer: str, ours: Path, feasts: Path) -> Iterator[tuple[str, str]]:
    """The addresses of our server in one folder and of Feast's in another."""
    options = ["serve_registry", "--no-grpc", "--rest-api", "--host", "127.0.0.1", "--rest-port"]
    commands = [
        (ours, [os.environ["FEAST_BINARY"], "-c", str(ours), *options]),
        (feasts, [peer, str(HERE / "rest_registry.py"), str(feasts)]),
    ]
    environment = {**os.environ, "PYTHONPATH": os.environ["FEAST_PEER_EXTRAS"]}
    with ExitStack() as stack:
        addresses = []
        for folder, command in commands:
            port = free_port()
            ready = lambda port=port: listens(port)
            stack.enter_context(
                server([*command, str(port)], folder / "log", ready, env=environment)
            )
            addresses.append(f"http://127.0.0.1:{port}")
        yield addresses[0], addresses[1]


@pytest.fixture(scope="module")
def sides(peer: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """The addresses of our server and of Feast's, each with the registry that Feast's client has written."""
    folder = tmp_path_factory.mktemp("rest")
    os.environ["PYTHONPATH"] = os.environ["FEAST_PEER_EXTRAS"]
    with feasts_server(folder) as address:
        arguments = [peer, str(HERE / "remote_registry.py"), "write", address]
        subprocess.run(arguments, cwd=HERE, check=True, capture_output=True, timeout=300)
    del os.environ["PYTHONPATH"]
    ours, feasts = folder / "ours", folder / "feasts"
    for copy in (ours, feasts):
        copy.mkdir()
        shutil.copy(folder / "feature_store.yaml", copy)
        shutil.copytree(folder / "data", copy / "data")
    with rest_servers(peer, ours, feasts) as addresses:
        # Feast finds the storage of a dataset only when it has met a source of the same kind.
        assert ask(addresses[1], "/data_sources?project=remote")[0] == 200
        yield addresses


def plain(value: Any, key: str = "") -> Any:
    """An answer without what may differ. Relations have no order, and neither have the features of stream views."""
    if isinstance(value, dict):
        # Feast makes the source of a request anew, and now, whenever it is read.
        gone = IGNORED | ({"meta"} if key in ("requestDataSource", "batchSource") else set())
        if key == "pagination":
            gone = {"relationships"}
        return {name: plain(one, name) for name, one in value.items() if name not in gone}
    if isinstance(value, list):
        # Feast takes the page of feature views for one of them.
        strange = ("totalCount", "totalPages")
        found = [
            one
            for one in value
            if not (isinstance(one, dict) and (of_dataset(one) or any(k in one for k in strange)))
        ]
        cleaned = [plain(one) for one in found]
        if key in (
            "relationships",
            "indirectRelationships",
            "indirect_relationships",
            "features",
        ) or all(isinstance(one, dict) and {"source", "target"} <= one.keys() for one in cleaned):
            cleaned.sort(key=lambda one: json.dumps(one, sort_keys=True))
        return cleaned
    return value


def of_dataset(relation: dict[str, Any]) -> bool:
    """Whether this is a relation of a saved dataset."""
    target = relation.get("target")
    return isinstance(target, dict) and target.get("type") == "savedDataset"


def differences(ours: Any, theirs: Any, path: str = "") -> list[str]:
    """Where two answers differ."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        keys = sorted(ours.keys() | theirs.keys())
        return [
            one
            for key in keys
            for one in differences(ours.get(key), theirs.get(key), f"{path}/{key}")
        ]
    if isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        pairs = enumerate(zip(ours, theirs, strict=True))
        return [one for at, pair in pairs for one in differences(*pair, f"{path}/{at}")]
    return [] if ours == theirs else [f"{path}: {ours!r} against {theirs!r}"]


@pytest.mark.parametrize("route", ROUTES)
def test_a_route_answers_as_feasts_does(sides: tuple[str, str], route: str) -> None:
    (status, ours), (expected, theirs) = (ask(address, route) for address in sides)
    assert status == expected, (ours, theirs)
    if route.startswith("/compute_engines") and status == 200:
        # Feast takes every view for one that is served online.
        for side in (ours, theirs):
            for view in side.get("featureViews", []):
                view.pop("online")
    if status == 200:
        assert differences(plain(ours), plain(theirs)) == []
    elif "error_type" in theirs:
        assert (ours["status_code"], ours["error_type"]) == (
            theirs["status_code"],
            theirs["error_type"],
        )


def test_forms_make_objects_and_routes_delete_them(sides: tuple[str, str]) -> None:
    forms = [
        ("entities", {"name": "e", "join_key": "id", "value_type": 4, "tags": {"a": "b"}}),
        (
            "data_sources",
            {
                "name": "d",
                "type": 1,
                "timestamp_field": "t",
                "file_options": {"uri": "d.parquet"},
                "data_source_class_type": "feast.infra.offline_stores.file_source.FileSource",
            },
        ),
        (
            "feature_views",
            {
                "name": "v",
                "entities": ["e"],
                "features": [{"name": "f", "value_type": 4}],
                "batch_source": "d",
                "ttl_seconds": 60,
            },
        ),
        ("feature_services", {"name": "s", "features": [{"feature_view_name": "v"}], "owner": "o"}),
        (
            "permissions",
            {
                "name": "p",
                "types": ["ENTITY"],
                "actions": ["DESCRIBE"],
                "policy": {"role_based_policy": {"roles": ["r"]}},
            },
        ),
    ]
    for path, form in forms:
        answers = [
            ask(address, f"/{path}", "POST", {**form, "project": "forms"}) for address in sides
        ]
        assert (
            answers[0]
            == answers[1]
            == (201, {"name": form["name"], "project": "forms", "status": "applied"})
        ), path
        ours, theirs = (
            ask(address, f"/{path}/{form['name']}?project=forms")[1] for address in sides
        )
        for side in (ours, theirs):
            side.pop("meta", None)
            for source in [
                side,
                *side.get("dataSources", []),
                side.get("spec", {}).get("batchSource", {}),
            ]:
                source.pop("meta", None)
        assert differences(plain(ours), plain(theirs)) == [], path
    dataset = {
        "name": "t",
        "project": "forms",
        "storage_path": "t.parquet",
        "feature_service_name": "s",
        "namespace": "n",
    }
    for expected in (200, 409):
        answers = [ask(address, "/saved_datasets", "POST", dataset) for address in sides]
        assert [status for status, _ in answers] == [expected, expected], answers
    forms.append(("saved_datasets", dataset))
    ours, theirs = (ask(address, "/saved_datasets/t?project=forms")[1] for address in sides)
    assert (
        ours["spec"]["features"] == ["v:f"] and ours["spec"]["storage"] == theirs["spec"]["storage"]
    )
    assert {k: ours["spec"][k] for k in ("features", "namespace")} == {
        k: theirs["spec"][k] for k in ("features", "namespace")
    }
    for path, form in reversed(forms):
        route = f"/{path}/{form['name']}?project=forms"
        answers = [ask(address, route, "DELETE") for address in sides]
        assert answers[0] == answers[1] and answers[0][0] == 200, path
        assert [ask(address, route, "DELETE")[0] for address in sides] == [404, 404]
    assert ask(sides[0], "/entities", "POST", {"name": "e"})[0] == 422


def test_datasets_are_made_and_looked_into(
    peer: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folders = [tmp_path_factory.mktemp(name) for name in ("ours", "feasts")]
    for folder in folders:
        for name in ("definitions.py", "feature_store.yaml"):
            shutil.copy(HERE / "every_type" / name, folder)
        make_data.write(folder)
        command("ours", folder, "apply")
    form = {
        "name": "kept",
        "project": "interop",
        "entity_keys": ["thing_id"],
        "entity_values": "1, 2\n3",
        "tags": {"a": "b"},
        "start_date": "2026-11-20T13:00:00Z",
        "end_date": "2026-11-20T15:00:00Z",
        "extra_columns": "label=7",
        "features": ["every_type:an_int32", "every_type:a_string", "every_type:a_bool"],
    }

    def made(address: str, form: dict[str, Any]) -> dict[str, Any]:
        status, started = ask(address, "/saved_datasets/create", "POST", form)
        assert status == 200 and set(started) == {"job_id", "status"}, started
        deadline = time.monotonic() + 60
        while (job := ask(address, f"/saved_datasets/jobs/{started['job_id']}")[1])["status"] in (
            "pending",
            "running",
        ):
            assert time.monotonic() < deadline, job
            time.sleep(0.1)
        assert job in ask(address, "/saved_datasets/jobs?project=interop")[1]["jobs"]
        return job

    with rest_servers(peer, *folders) as addresses:
        answers = []
        for folder, address in zip(folders, addresses, strict=True):
            job = made(address, {**form, "storage_path": str(folder / "data/kept.parquet")})
            assert (job["status"], job["error"], job["dataset_name"]) == (
                "completed",
                "",
                "kept",
            ), job
            kept = ask(address, "/saved_datasets/kept?project=interop")[1]["spec"]
            status, data = ask(address, "/saved_datasets/data/kept?project=interop&limit=2")
            assert status == 200 and (data["total_rows"], data["sample_size"]) == (2, 2), data
            # Feast forgets the columns that are neither keys nor features when it reads a dataset.
            chosen = ["thing_id", "an_int32", "a_string", "a_bool"]
            rows = [{name: row[name] for name in chosen} for row in data["rows"]]
            assert set(chosen) <= set(data["columns"]) <= {*chosen, "label", "event_timestamp"}
            answers.append((rows, sorted(kept["features"]), kept["joinKeys"], kept["tags"]))
            # What cannot be made is told by the job.
            job = made(
                address, {**form, "features": ["nobody:nothing"], "storage_path": "x.parquet"}
            )
            assert job["status"] == "failed" and "nobody" in job["error"], job
        assert answers[0] == answers[1]
        ours = ask(addresses[0], "/saved_datasets/data/kept?project=interop")[1]
        assert [row["label"] for row in ours["rows"]] == [7, 7, 7]
        for wrong in ({}, {"storage_path": "x"}, {"storage_path": "x", "features": ["a:b"]}):
            wrong = {"name": "n", "project": "interop", **wrong}
            statuses = [
                ask(address, "/saved_datasets/create", "POST", wrong)[0] for address in addresses
            ]
            assert statuses == [400, 400], wrong
        assert ask(addresses[0], "/saved_datasets/data/nobody?project=interop")[0] == 404
