"""Whoever may only read trains and serves. What would change something fails with one sentence, and changes nothing."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import pytest
import servers
from drivers import write_repository

DEFINITIONS = """
from datetime import timedelta

from feast import Entity, FeatureService, FeatureView, Field, FileSource, PushSource
from feast.types import Float32, Int64, String

driver = Entity(name="driver", join_keys=["driver_id"])
stats = FileSource(
    name="stats",
    path="{path}",
    s3_endpoint_override="{endpoint}",
    timestamp_field="event_timestamp",
    created_timestamp_column="created",
)
driver_stats = FeatureView(
    name="driver_stats",
    entities=[driver],
    ttl=timedelta(days=1),
    schema=[
        Field(name="conv_rate", dtype=Float32),
        Field(name="trips", dtype=Int64),
        Field(name="city", dtype=String),
    ],
    source=PushSource(name="push", batch_source=stats),
)
model = FeatureService(name="model", features=[driver_stats[["trips", "city"]]])
"""
SPAN = ["2026-11-01T00:00:00", "2026-11-20T12:00:00"]
NOON = "2026-11-20T12:00:00Z"

# The answers of the Python API to what the command line names; an error is its class and its text.
PROGRAM = """
import json, sys
from datetime import UTC, datetime
import pyarrow as pa
from feast import Entity, FeatureStore

noon = datetime(2026, 11, 20, 12, tzinfo=UTC)
drivers = [{"driver_id": 1001}, {"driver_id": 1002}]
rows = pa.table({"driver_id": [1001, 1002], "event_timestamp": [noon, noon]})
fresh = {"driver_id": 1001, "conv_rate": 0.9, "trips": 99, "city": "z", "event_timestamp": noon, "created": noon}
store = FeatureStore(repo_path=sys.argv[1])
service = store.get_feature_service("model")
verbs = {
    "train": lambda: store.get_historical_features(rows, service).to_arrow()["trips"].to_pylist(),
    "serve": lambda: store.get_online_features(service, drivers).to_dict()["trips"],
    "list": lambda: [
        one.name
        for kind in ("entities", "feature_views", "feature_services")
        for one in getattr(store, f"list_{kind}")()
    ],
    "push": lambda: store.push("push", pa.Table.from_pylist([fresh])),
    "apply": lambda: store.apply(Entity(name="rider", join_keys=["rider_id"])),
    "delete": lambda: store.delete_feature_service("model"),
    "materialize": lambda: store.materialize(datetime(2026, 11, 1, tzinfo=UTC), noon),
    "materialize_incremental": lambda: store.materialize_incremental(datetime.now(UTC)),
    "teardown": lambda: store.teardown(),
}

def answer(verb):
    try:
        return verbs[verb]()
    except Exception as error:
        return {type(error).__name__: str(error)}

print(json.dumps({verb: answer(verb) for verb in sys.argv[2:]}))
"""
READS = [
    ["projects", "list"],
    ["entities", "list"],
    ["data-sources", "list"],
    ["feature-views", "list"],
    ["feature-views", "describe", "driver_stats"],
    ["feature-services", "list"],
    ["features", "list"],
    ["permissions", "list"],
    ["registry-dump"],
    ["freshness"],
    ["doctor"],
    ["configuration"],
    ["online-store", "check"],
]
OBJECTS = ["driver", "driver_stats", "model"]
CHANGES = ["apply", "delete", "materialize", "materialize_incremental", "teardown"]


@dataclass
class Place:
    """A feature store that its owner has filled, and how others reach it who may only read."""

    owner: Path
    # Parts of `feature_store.yaml`: by which the registry and the online store may only be read, and the owner's.
    registry: Any
    online_store: dict[str, Any]
    writable_online_store: dict[str, Any]
    # What the registry says to those who want to change it, and the right that they lack.
    refusal: str
    missing: str
    environment: dict[str, str] = field(default_factory=dict)
    # From here on, rights count.
    close: Callable[[], None] = lambda: None

    def repository(self, folder: Path, online_store: dict[str, Any]) -> Path:
        """A reader's copy of the repository."""
        folder.mkdir()
        for name in ("definitions.py", "stats.parquet"):
            shutil.copy(self.owner / name, folder)
        configure(folder, self.registry, online_store)
        self.close()
        return folder

    def run(self, command: list[str], check: bool = True) -> subprocess.CompletedProcess[str]:
        """Runs a command as a reader."""
        done = subprocess.run(
            servers.without_privileges(command),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            env={**os.environ, **self.environment},
        )
        assert not check or done.returncode == 0, f"{command}: {done.stdout}\n{done.stderr}"
        return done

    def python(self, repository: Path, *verbs: str) -> dict[str, Any]:
        """What the Python API answers to a reader."""
        return json.loads(self.run([sys.executable, "-c", PROGRAM, str(repository), *verbs]).stdout)


def configure(folder: Path, registry: Any, online_store: dict[str, Any]) -> None:
    """Writes `feature_store.yaml`."""
    keys = {"project": "rides", "registry": registry, "online_store": online_store}
    (folder / "feature_store.yaml").write_text(json.dumps(keys))


def feast(repository: Path, *arguments: str) -> list[str]:
    """The command line of the package under test."""
    return [str(Path(sys.executable).with_name("feast")), "-c", str(repository), *arguments]


def fill(
    owner: Path, registry: Any, online_store: dict[str, Any], path: str, endpoint: str = ""
) -> None:
    """Writes, applies and materializes the owner's repository."""
    configure(owner, registry, online_store)
    (owner / "definitions.py").write_text(DEFINITIONS.format(path=path, endpoint=endpoint))
    for arguments in (["apply"], ["materialize", *SPAN]):
        done = subprocess.run(
            feast(owner, *arguments), capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stderr


def protect(folder: Path) -> None:
    """Lets nobody write a folder and its files."""
    for file in folder.iterdir():
        file.chmod(0o444)
    folder.chmod(0o555)


@pytest.fixture(scope="module")
def postgres() -> Iterator[servers.Database]:
    """The server of these tests."""
    with servers.postgres() as database:
        yield database


@pytest.fixture(scope="module")
def amazon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of what stands in for AWS."""
    with servers.moto(tmp_path_factory.mktemp("moto") / "log") as address:
        yield address


@pytest.fixture
def owner(tmp_path: Path) -> Path:
    """The folder of the owner, with data."""
    (tmp_path / "owner").mkdir()
    return write_repository(tmp_path / "owner")


@pytest.fixture(params=["PostgreSQL", "file", "S3"])
def place(
    request: Any, owner: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Place]:
    """A filled feature store, with each kind of registry."""
    if request.param == "PostgreSQL":
        yield in_postgres(owner, request.getfixturevalue("postgres"))
    elif request.param == "file":
        yield in_files(owner, tmp_path)
    else:
        address = request.getfixturevalue("amazon")
        yield in_bucket(owner, tmp_path, address, monkeypatch)
        enforce_rights(address, enforced=False)


def in_postgres(owner: Path, database: servers.Database) -> Place:
    """The reader may `SELECT`, and nothing else."""
    name = database.create()
    # Roles belong to the server, what they may do to a database.
    reader = f"reader_of_{name}"
    online_store = database.options(name)
    registry = {"registry_type": "sql", "path": database.url(name)}
    fill(owner, registry, online_store, "stats.parquet")
    database.execute(
        name,
        f"CREATE ROLE {reader} LOGIN PASSWORD '{servers.PASSWORD}';"
        f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {reader}",
    )
    return Place(
        owner,
        registry | {"path": database.url(name).replace("//postgres:", f"//{reader}:")},
        online_store | {"user": reader},
        online_store,
        "may only be read by this user",
        "give the user of the registry's `path` the right to change its tables",
    )


def in_files(owner: Path, tmp_path: Path) -> Place:
    """The reader finds a file and a folder that nobody may write."""
    registry = str(tmp_path / "registry/registry.db")
    online_store = {"type": "sqlite", "path": str(tmp_path / "online/online.db")}
    fill(owner, registry, online_store, "stats.parquet")
    return Place(
        owner,
        registry,
        copied(online_store, tmp_path),
        online_store,
        "is read-only",
        "make the file and its folder writable",
        close=lambda: protect(tmp_path / "registry"),
    )


def copied(online_store: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    """A copy of a SQLite store that nobody may write."""
    shutil.copytree(tmp_path / "online", tmp_path / "online_to_read")
    protect(tmp_path / "online_to_read")
    return online_store | {"path": str(tmp_path / "online_to_read/online.db")}


def in_bucket(owner: Path, tmp_path: Path, address: str, monkeypatch: pytest.MonkeyPatch) -> Place:
    """The reader may get objects, and neither put, delete nor list them."""
    for variable, value in {
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": address,
        "AWS_ACCESS_KEY_ID": "owner",
        "AWS_SECRET_ACCESS_KEY": "owner",
    }.items():
        monkeypatch.setenv(variable, value)
    bucket = tmp_path.name.replace("_", "-").lower()
    objects = boto3.client("s3")
    objects.create_bucket(Bucket=bucket)
    objects.upload_file(str(owner / "stats.parquet"), bucket, "stats.parquet")
    registry = f"s3://{bucket}/registry.db"
    online_store = {"type": "sqlite", "path": str(tmp_path / "online/online.db")}
    fill(owner, registry, online_store, f"s3://{bucket}/stats.parquet", address)
    users = boto3.client("iam")
    users.create_user(UserName=bucket)
    get = {"Effect": "Allow", "Action": "s3:GetObject", "Resource": f"arn:aws:s3:::{bucket}/*"}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [get]})
    users.put_user_policy(UserName=bucket, PolicyName="read", PolicyDocument=policy)
    key = users.create_access_key(UserName=bucket)["AccessKey"]
    return Place(
        owner,
        registry,
        copied(online_store, tmp_path),
        online_store,
        "is read-only for these credentials",
        "give them the right to put and delete objects",
        {
            "AWS_ACCESS_KEY_ID": key["AccessKeyId"],
            "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"],
        },
        lambda: enforce_rights(address, enforced=True),
    )


def enforce_rights(address: str, enforced: bool) -> None:
    """Lets the stand-in look at who asks, or not."""
    number = b"0" if enforced else b"inf"
    request = urllib.request.Request(
        f"{address}/moto-api/reset-auth", number, {"content-type": "text/plain"}
    )
    urllib.request.urlopen(request, timeout=10).close()


def assert_refused(place: Place, message: str, what: Any) -> None:
    """One sentence says that the registry may only be read, another which right is missing."""
    assert place.refusal in message, (what, message)
    assert place.missing in message, (what, message)
    assert len(message.strip().splitlines()) <= 2, (what, message)


def post(port: int, route: str, body: Any) -> tuple[int, Any]:
    """The status and the answer of a request."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/{route}",
        json.dumps(body).encode(),
        {"content-type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def test_a_reader_trains_and_serves(place: Place, tmp_path: Path) -> None:
    repository = place.repository(tmp_path / "reader", place.online_store)
    answers = place.python(repository, "train", "serve", "list", "push", "serve")
    (refused,) = answers.pop("push").items()
    assert refused[0] == "FeastPermissionError" and "online store" in refused[1]
    assert answers == {"train": [30, 40], "serve": [30, 40], "list": OBJECTS}


def test_what_would_change_the_registry_fails(place: Place, tmp_path: Path) -> None:
    # Values could be written; the registry is what refuses.
    repository = place.repository(tmp_path / "reader", place.writable_online_store)
    answers = place.python(repository, *CHANGES, "list", "serve")
    for verb in CHANGES:
        assert list(answers[verb]) == ["ReadOnlyRegistryException"], (verb, answers[verb])
        assert_refused(place, answers[verb]["ReadOnlyRegistryException"], verb)
    assert (answers["list"], answers["serve"]) == (OBJECTS, [30, 40])


def test_the_command_line_of_a_reader(place: Place, tmp_path: Path) -> None:
    repository = place.repository(tmp_path / "reader", place.online_store)
    for arguments in READS:
        place.run(feast(repository, *arguments))
    # In a bucket, the history needs the right to list objects.
    log = place.run(
        feast(repository, "registry", "log"), check="AWS_ACCESS_KEY_ID" not in place.environment
    )
    assert log.returncode == 0 or log.stderr.startswith("error: ")
    rows = json.dumps([{"driver_id": 1002, "event_timestamp": NOON}])
    of_driver = ["-e", "driver_id=1002", "-f", "driver_stats:trips", "--output", "json"]
    for arguments in (
        ["get-historical-features", "-d", rows, "-f", "driver_stats:trips"],
        ["get-online-features", *of_driver],
    ):
        assert "40" in place.run(feast(repository, *arguments)).stdout
    place.run(feast(repository, "plan", "--exit-code"))
    # A change can be looked at; making it is refused.
    with (repository / "definitions.py").open("a") as definitions:
        definitions.write('rider = Entity(name="rider", join_keys=["rider_id"])\n')
    assert "+ entity rider" in place.run(feast(repository, "plan")).stdout
    for arguments in (["apply"], ["delete", "model"], ["teardown", "--yes"]):
        done = place.run(feast(repository, *arguments), check=False)
        assert done.returncode == 1, (arguments, done.stdout, done.stderr)
        # A bucket does not tell beforehand who may write: there the tables of the online store come first.
        if "could not open the online store" in done.stderr and place.environment:
            assert "make the file and its folder writable" in done.stderr
        else:
            assert_refused(place, done.stderr, arguments)
    done = place.run(feast(repository, "materialize", *SPAN), check=False)
    assert done.returncode == 1 and done.stderr.count("error: ") == 1, done.stderr
    assert place.python(repository, "list")["list"] == OBJECTS


def test_a_reader_runs_a_server(place: Place, tmp_path: Path) -> None:
    repository = place.repository(tmp_path / "reader", place.online_store)
    binary = os.environ.get("FEAST_BINARY", "")
    assert binary, "FEAST_BINARY must name the standalone program"
    port = servers.free_port()
    serve = servers.without_privileges([binary, "-c", str(repository), "serve", "-p", str(port)])
    environment = {**os.environ, **place.environment}
    columns = {"conv_rate": [0.9], "trips": [99], "city": ["z"], "driver_id": [1001]}
    fresh = {**columns, "event_timestamp": [NOON], "created": [NOON]}
    span = {"start_ts": SPAN[0], "end_ts": SPAN[1]}
    request = {"feature_service": "model", "entities": {"driver_id": [1001, 1002]}}
    with servers.server(serve, tmp_path / "log", lambda: servers.listens(port), env=environment):
        for route, body in (
            ("push", {"push_source_name": "push", "df": fresh, "to": "online"}),
            ("materialize", span),
        ):
            status, message = post(port, route, body)
            assert status == 403, (route, message)
            status, answer = post(port, "get-online-features", request)
            assert (status, answer["results"][1]["values"]) == (200, [30, 40])
