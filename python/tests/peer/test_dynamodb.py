"""DynamoDB, as moto implements it, used by our package and by Feast 0.67 in turn."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import servers
from sides import SIDES, attempt, command, run
from test_sql_stores import FORK, make_repository
from test_stores import NAMES, SPAN, THINGS

REQUEST = {"features": [f"every_type:{name}" for name in NAMES], "rows": THINGS}


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The server of these tests."""
    with servers.moto(tmp_path_factory.mktemp("moto") / "log") as address:
        yield address


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Credentials in the profile that both sides read, and the library of AWS for Feast."""
    extras = os.environ.get("FEAST_PEER_EXTRAS", "")
    assert extras, "FEAST_PEER_EXTRAS must name the folder that `make peer` fills beside Feast"
    monkeypatch.setenv("PYTHONPATH", extras)
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    credentials = tmp_path / "credentials"
    credentials.write_text(
        "[features]\naws_access_key_id = AKIDEXAMPLE\naws_secret_access_key = s3cret\n"
    )
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(credentials))
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("AWS_PROFILE", "features")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


def ask(address: str, operation: str, **request: Any) -> dict[str, Any]:
    """Asks the server, apart from both sides."""
    headers = {
        "X-Amz-Target": f"DynamoDB_20120810.{operation}",
        "Content-Type": "application/x-amz-json-1.0",
        "Authorization": "AWS4-HMAC-SHA256 Credential=a/20261120/eu-west-1/dynamodb/aws4_request",
    }
    asked = urllib.request.Request(f"{address}/", json.dumps(request).encode(), headers)
    with urllib.request.urlopen(asked, timeout=60) as answer:
        return dict(json.loads(answer.read()))


@pytest.fixture
def store(address: str) -> Iterator[dict[str, Any]]:
    """The options of a store without tables."""
    yield {"type": "dynamodb", "region": "eu-west-1", "endpoint_url": address}
    clear(address)


def clear(address: str) -> None:
    """Deletes all tables."""
    for name in ask(address, "ListTables")["TableNames"]:
        ask(address, "DeleteTable", TableName=name)


def dump(address: str) -> dict[str, Any]:
    """The definitions and items of all tables, without the times and numbers of the server."""
    tables = {}
    for name in ask(address, "ListTables")["TableNames"]:
        described = ask(address, "DescribeTable", TableName=name)["Table"]
        labels = ask(address, "ListTagsOfResource", ResourceArn=described["TableArn"])["Tags"]
        items = ask(address, "Scan", TableName=name)["Items"]
        tables[name] = {
            "keys": described["KeySchema"],
            "attributes": described["AttributeDefinitions"],
            "billing": described["BillingModeSummary"]["BillingMode"],
            "tags": sorted((label["Key"], label["Value"]) for label in labels),
            "items": sorted(items, key=lambda item: item["entity_id"]["S"]),
        }
    return tables


@pytest.mark.parametrize(("writer", "reader"), [("ours", "feast"), ("feast", "ours")])
def test_values_of_every_type_are_shared(
    tmp_path: Path, store: dict[str, Any], writer: str, reader: str
) -> None:
    repository = make_repository(tmp_path / "repository", store)
    command(writer, repository, "apply")
    command(writer, repository, "materialize", *SPAN)
    written, read = (run(side, "online", repository, REQUEST) for side in (writer, reader))
    assert set(read) == set(written)
    for name in sorted(written):
        assert read[name] == written[name], name
    assert read["a_string"] == ["abc", "é", None, None]


# What the values of maps, structs and sets start with: they have no order in bytes, and Feast makes floats of integers
# inside of structs. Their values are compared above.
UNORDERED = ("a201", "9202", "ba01", "ca01")
# Feast writes a missing time as the smallest number, we as nothing, like every other missing value.
MISSING_TIME = "4080808080808080808001"


def test_both_make_the_same_tables_and_items(
    tmp_path: Path, address: str, store: dict[str, Any]
) -> None:
    store |= {
        "tags": {"team": "risk", "stage": "test"},
        "table_name_template": "prod-{project}.{table_name}",
    }
    dumps = {}
    for side in SIDES:
        repository = make_repository(tmp_path / side, store)
        command(side, repository, "apply")
        command(side, repository, "materialize", *SPAN)
        tables = dump(address)
        for item in (item for table in tables.values() for item in table["items"]):
            values = {
                name: base64.b64decode(cell["B"]).hex()
                for name, cell in item["values"]["M"].items()
            }
            item["values"] = {
                name: "" if value == MISSING_TIME else value
                for name, value in values.items()
                if not value.startswith(UNORDERED)
            }
        dumps[side] = tables
        clear(address)
    assert dumps["ours"] == dumps["feast"]
    table = dumps["ours"]["prod-interop.every_type"]
    assert (len(table["items"]), table["tags"]) == (3, [("stage", "test"), ("team", "interop")])


def test_each_side_reads_what_the_other_pushed(tmp_path: Path, store: dict[str, Any]) -> None:
    repository = make_repository(tmp_path / "repository", store)
    command("ours", repository, "apply")
    request = {"features": ["pushed:an_int64", "pushed:a_string"], "rows": [{"thing_id": 7}]}

    def push(side: str, at: str, number: int) -> None:
        row = {
            "thing_id": 7,
            "an_int64": number,
            "a_string": side,
            "event_timestamp": at,
            "created": at,
        }
        run(side, "push", repository, {"source": "fresh", "rows": [row]})

    for number, side in enumerate(("ours", "feast", "ours", "feast")):
        push(side, f"2026-11-21T0{number}:00:00.000001Z", number)
        for reader in SIDES:
            answer = run(reader, "online", repository, request)
            assert (answer["an_int64"], answer["a_string"]) == ([number], [side]), reader
    # Older rows lose when we write them; a correction lands.
    push("ours", "2026-11-21T03:00:00Z", 8)
    assert run("feast", "online", repository, request)["an_int64"] == [3]
    push("ours", "2026-11-21T03:00:00.000001Z", 9)
    assert run("feast", "online", repository, request)["an_int64"] == [9]


def test_each_side_deletes_what_the_other_made(
    tmp_path: Path, address: str, store: dict[str, Any]
) -> None:
    ask(address, "CreateTable", **OTHER)
    for writer, remover in (("ours", "feast"), ("feast", "ours")):
        repository = make_repository(tmp_path / writer, store)
        command(writer, repository, "apply")
        assert len(dump(address)) > 1
        command(remover, repository, "teardown", *([] if remover == "feast" else ["--yes"]))
        assert list(dump(address)) == ["interop.of_somebody_else"], (writer, remover)


OTHER: dict[str, Any] = {
    "TableName": "interop.of_somebody_else",
    "KeySchema": [{"AttributeName": "id", "KeyType": "HASH"}],
    "AttributeDefinitions": [{"AttributeName": "id", "AttributeType": "S"}],
    "BillingMode": "PAY_PER_REQUEST",
}


def test_a_forked_process_has_connections_of_its_own(tmp_path: Path, store: dict[str, Any]) -> None:
    repository = make_repository(tmp_path / "repository", store)
    command("ours", repository, "apply")
    command("ours", repository, "materialize", *SPAN)
    done = subprocess.run(
        [SIDES["ours"], "-c", FORK, str(repository)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
    )
    assert done.returncode == 0, done.stderr


def test_the_check_tells_what_is_wrong(
    tmp_path: Path, address: str, store: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = make_repository(tmp_path / "repository", store)

    command("ours", repository, "apply")
    done = attempt("ours", repository, "online-store", "check")
    assert done.returncode == 0, done
    ask(address, "DeleteTable", TableName="interop.pushed")
    ask(address, "CreateTable", **OTHER)
    done = attempt("ours", repository, "online-store", "check")
    said = done.stdout + done.stderr
    assert done.returncode != 0 and "interop_pushed" in said, said
    assert "interop_of_somebody_else" in said, said
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    monkeypatch.delenv("AWS_PROFILE")
    done = attempt("ours", repository, "online-store", "check")
    assert done.returncode != 0, done
    assert "there are no AWS credentials" in done.stderr and "AWS_ACCESS_KEY_ID" in done.stderr, (
        done
    )
