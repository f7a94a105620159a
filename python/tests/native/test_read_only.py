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
NOON = "2026-11-20T12:00:00Z"
ONLINE = {"feature_service": "model", "entities": {"driver_id": [1001, 1002]}}
FRESH = {
    "driver_id": [1001],
    "conv_rate": [0.9],
    "trips": [99],
    "city": ["z"],
    "event_timestamp": [NOON],
    "created": [NOON],
}

# What the Python API does with a repository: its answer to each name on the command line, an error as its class and text.
PROGRAM = """
import json, sys
from datetime import UTC, datetime
import pyarrow as pa
from feast import Entity, FeatureStore

noon = datetime(2026, 11, 20, 12, tzinfo=UTC)
rows = pa.table({"driver_id": [1001, 1002], "event_timestamp": [noon, noon]})
fresh = {"driver_id": 1001, "conv_rate": 0.9, "trips": 99, "city": "z", "event_timestamp": noon, "created": noon}
store = FeatureStore(repo_path=sys.argv[1])
verbs = {
    "train": lambda: store.get_historical_features(rows, store.get_feature_service("model")).to_arrow()["trips"].to_pylist(),
    "serve": lambda: store.get_online_features(
        features=store.get_feature_service("model"), entity_rows=[{"driver_id": 1001}, {"driver_id": 1002}]
    ).to_dict()["trips"],
    "list": lambda: [
        one.name for kind in ("entities", "feature_views", "feature_services") for one in getattr(store, f"list_{kind}")()
    ],
    "push": lambda: store.push("push", pa.Table.from_pylist([fresh])),
    "apply": lambda: store.apply(Entity(name="rider", join_keys=["rider_id"])),
    "delete": lambda: store.delete_feature_service("model"),
    "materialize": lambda: store.materialize(datetime(2026, 11, 1, tzinfo=UTC), noon),
    "materialize_incremental": lambda: store.materialize_incremental(noon),
    "teardown": lambda: store.teardown(),
}

def answer(verb):
    try:
        return verbs[verb]()
    except Exception as error:
        return {type(error).__name__: str(error)}

print(json.dumps({verb: answer(verb) for verb in sys.argv[2:]}))
"""


@dataclass
class Place:
    """A feature store that its owner has filled, and how others reach it who may only read."""

    owner: Path
    # Keys of `feature_store.yaml` that differ for readers.
    reader: dict[str, Any]
    # What the registry says to those who want to change it, and the right that they lack.
    refusal: str
    missing: str
    # Puts the rights in place.
    close: Callable[[], None] = lambda: None
    environment: dict[str, str] = field(default_factory=dict)

    def repository(self, tmp_path: Path, **other: Any) -> Path:
        """A reader's copy of the repository."""
        folder = tmp_path / "reader"
        folder.mkdir()
        for name in ("definitions.py", "stats.parquet"):
            shutil.copy(self.owner / name, folder)
        configure(folder, self.reader | other)
        return folder

    def run(self, command: list[str], check: bool = True) -> subprocess.CompletedProcess[str]:
        """A command of a reader."""
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
        """What the Python API answers."""
        return json.loads(self.run([sys.executable, "-c", PROGRAM, str(repository), *verbs]).stdout)


def configure(folder: Path, keys: dict[str, Any]) -> None:
    """Writes `feature_store.yaml`."""
    keys = {"project": "rides", "provider": "local", **keys}
    (folder / "feature_store.yaml").write_text(json.dumps(keys))


def command(repository: Path, *arguments: str) -> list[str]:
    """The command line of the package under test."""
    return [str(Path(sys.executable).with_name("feast")), "-c", str(repository), *arguments]


def fill(owner: Path, registry: Any, online_store: Any, source: str = "stats.parquet") -> Path:
    """Writes, applies and materializes the owner's repository."""
    owner.mkdir(exist_ok=True)
    write_repository(owner)
    (owner / "definitions.py").write_text(DEFINITIONS.format(path=source))
    configure(owner, {"registry": registry, "online_store": online_store})
    for arguments in (["apply"], ["materialize", *SPAN]):
        subprocess.run(command(owner, *arguments), check=True, capture_output=True, timeout=120)
    return owner


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


@pytest.fixture(params=["PostgreSQL", "file", "S3"])
def place(request: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """A filled feature store whose registry is of each kind."""
    if request.param == "PostgreSQL":
        yield in_postgres(tmp_path, request.getfixturevalue("postgres"))
    elif request.param == "file":
        yield in_files(tmp_path)
    else:
        address = request.getfixturevalue("amazon")
        try:
            yield in_bucket(tmp_path, address, monkeypatch)
        finally:
            enforce_rights(address, enforced=False)


def sql(url: str) -> dict[str, str]:
    """A registry in a database."""
    return {"registry_type": "sql", "path": url}


def in_postgres(tmp_path: Path, database: servers.Database) -> Place:
    """The reader may `SELECT`, and nothing else."""
    name = database.create()
    online = database.options(name)
    owner = fill(tmp_path / "owner", sql(database.url(name)), online)
    grant = (
        f"DROP ROLE IF EXISTS reader; CREATE ROLE reader LOGIN PASSWORD '{servers.PASSWORD}';"
        "GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader"
    )
    # A role belongs to the server, what it may do to a database.
    database.execute(name, grant.replace("reader", f"reader_of_{name}"))
    url = database.url(name).replace("postgres:", f"reader_of_{name}:", 1)
    return Place(
        owner,
        {"registry": sql(url), "online_store": online | {"user": f"reader_of_{name}"}},
        "may only be read by this user",
        "give the user of the registry's `path` the right to change its tables",
    )


def in_files(tmp_path: Path) -> Place:
    """The reader finds files and folders that nobody may write."""
    (tmp_path / "shared").mkdir()
    keys = {
        "registry": f"{tmp_path}/shared/registry.db",
        "online_store": {"type": "sqlite", "path": f"{tmp_path}/shared/online.db"},
    }
    owner = fill(tmp_path / "owner", **keys)

    def close() -> None:
        for file in (tmp_path / "shared").iterdir():
            file.chmod(0o444)
        (tmp_path / "shared").chmod(0o555)

    return Place(owner, keys, "is read-only", "make the file and its folder writable", close)


def enforce_rights(address: str, enforced: bool) -> None:
    """Lets the server look at who asks, or not."""
    number = b"0" if enforced else b"inf"
    urllib.request.urlopen(f"{address}/moto-api/reset-auth", data=number, timeout=10).close()


def in_bucket(tmp_path: Path, address: str, monkeypatch: pytest.MonkeyPatch) -> Place:
    """The reader may get objects, and neither put, delete nor list them."""
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", address)
    monkeypatch.setenv("FEAST_S3_ENDPOINT_URL", address)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "owner")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "owner")
    bucket = f"features-{tmp_path.name.replace('_', '-').lower()}"
    objects = boto3.client("s3")
    objects.create_bucket(Bucket=bucket)
    write_repository(tmp_path)
    objects.upload_file(str(tmp_path / "stats.parquet"), bucket, "stats.parquet")
    online = {"type": "sqlite", "path": f"{tmp_path}/online.db"}
    registry = f"s3://{bucket}/registry.db"
    owner = fill(tmp_path / "owner", registry, online, f"s3://{bucket}/stats.parquet")
    users = boto3.client("iam")
    users.create_user(UserName=bucket)
    may = {"Effect": "Allow", "Action": "s3:GetObject", "Resource": f"arn:aws:s3:::{bucket}/*"}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [may]})
    users.put_user_policy(UserName=bucket, PolicyName="read", PolicyDocument=policy)
    key = users.create_access_key(UserName=bucket)["AccessKey"]

    def close() -> None:
        (tmp_path / "online.db").chmod(0o444)
        enforce_rights(address, enforced=True)

    return Place(
        owner,
        {"registry": registry, "online_store": online},
        "is read-only for these credentials",
        "give them the right to put and delete objects",
        close,
        {
            "AWS_ACCESS_KEY_ID": key["AccessKeyId"],
            "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"],
        },
    )


def assert_refused(place: Place, message: str, what: Any) -> None:
    """One sentence says that the registry may only be read, and one what is missing."""
    lines = message.strip().splitlines()
    assert place.refusal in lines[0], (what, message)
    assert place.missing in message, (what, message)
    assert len(lines) <= 3 and "Traceback" not in message, (what, message)


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
        return error.code, error.read().decode()


def test_a_reader_trains_and_serves(place: Place, tmp_path: Path) -> None:
    repository = place.repository(tmp_path)
    place.close()
    answers = place.python(repository, "train", "serve", "list")
    assert answers == {
        "train": [30, 40],
        "serve": [30, 40],
        "list": ["driver", "driver_stats", "model"],
    }


def test_the_command_line_of_a_reader(place: Place, tmp_path: Path) -> None:
    repository = place.repository(tmp_path)
    place.close()
    for arguments in READS:
        place.run(command(repository, *arguments))
    entity_rows = '[{"driver_id": 1002, "event_timestamp": "2026-11-20T12:00:00Z"}]'
    read = ["get-historical-features", "-d", entity_rows, "-f", "driver_stats:trips"]
    assert '"trips":40' in place.run(command(repository, *read)).stdout
    read = ["get-online-features", "-e", "driver_id=1002", "-f", "driver_stats:trips"]
    assert "40" in place.run(command(repository, *read)).stdout
    assert "No changes" in place.run(command(repository, "plan")).stdout
    # A change can be looked at, and is not made.
    with (repository / "definitions.py").open("a") as definitions:
        definitions.write('rider = Entity(name="rider", join_keys=["rider_id"])\n')
    assert "+ entity rider" in place.run(command(repository, "plan")).stdout
    for arguments in (["apply"], ["delete", "model"], ["teardown", "--yes"]):
        done = place.run(command(repository, *arguments), check=False)
        assert done.returncode == 1, (arguments, done.stdout, done.stderr)
        assert_refused(place, done.stderr, arguments)
    assert place.python(place.owner, "list")["list"] == ["driver", "driver_stats", "model"]


def test_a_reader_runs_a_server(place: Place, tmp_path: Path) -> None:
    repository = place.repository(tmp_path)
    place.close()
    binary = os.environ.get("FEAST_BINARY", "")
    assert binary, "FEAST_BINARY must name the standalone program"
    port = servers.free_port()
    serve = servers.without_privileges([binary, "-c", str(repository), "serve", "-p", str(port)])
    environment = {**os.environ, **place.environment}
    with servers.server(serve, tmp_path / "log", lambda: servers.listens(port), env=environment):
        status, answer = post(port, "get-online-features", ONLINE)
        assert (status, answer["results"][1]["values"]) == (200, [30, 40])
        status, answer = post(
            port, "push", {"push_source_name": "push", "df": FRESH, "to": "online"}
        )
        assert status == 403, answer
        status, answer = post(port, "get-online-features", ONLINE)
        assert (status, answer["results"][1]["values"]) == (200, [30, 40])


def test_what_a_reader_may_not_do(place: Place, tmp_path: Path) -> None:
    # The online store may be written, so that the registry is what refuses.
    online = {"type": "sqlite", "path": f"{tmp_path}/reader/online.db"}
    repository = place.repository(tmp_path, online_store=online)
    place.close()
    changes = ["apply", "delete", "materialize", "materialize_incremental", "teardown"]
    answers = place.python(repository, *changes)
    for verb in changes:
        assert list(answers[verb]) == ["ReadOnlyRegistryException"], (verb, answers[verb])
        assert_refused(place, answers[verb]["ReadOnlyRegistryException"], verb)
    assert place.python(place.owner, "list")["list"] == ["driver", "driver_stats", "model"]
