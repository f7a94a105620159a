"""CONFIGURATION.md names every key of `feature_store.yaml` that the program takes, and no other."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest

from feast import FeatureStore

TEXT = (Path(__file__).resolve().parents[3] / "CONFIGURATION.md").read_text()
NAME = re.compile(r"`([a-z][a-z0-9_]*)`")
WRONG = "zzzzzzzz"


def section(title: str) -> list[list[str]]:
    """The cells of the first table below a heading, without its head."""
    after = TEXT.split(f"\n## {title}\n")[1].split("\n## ")[0]
    rows = [line.strip()[1:-1].split("|") for line in after.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row] for row in rows[2:]]


def keys(cell: str) -> set[str]:
    """The names in a cell, without the values that stand in brackets."""
    return set(NAME.findall(re.sub(r" \((?:[^()]|\(\))*\)", "", cell)))


def complaint(configuration: dict[str, Any], folder: Path) -> str:
    """What is said about a configuration."""
    (folder / "feature_store.yaml").write_text(json.dumps({"project": "p"} | configuration))
    with pytest.raises(Exception, match=WRONG) as told:
        FeatureStore(repo_path=str(folder)).list_entities()
    return str(told.value)


def valid(told: str) -> set[str]:
    """The keys that an error lists as valid."""
    assert " more" not in told, told
    return set(NAME.findall(told.split("; ", 1)[1]))


def test_the_top_level(tmp_path: Path) -> None:
    names = [name for row in section("The top level") for name in NAME.findall(row[0])]
    assert len(names) == len(set(names)) > 18
    required = {"project": "p", "registry": "r.db"}
    everything = {name: None for name in names} | required
    (tmp_path / "feature_store.yaml").write_text(json.dumps(everything))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        FeatureStore(repo_path=str(tmp_path))
    # What the program shows is documented, too.
    feast = Path(sys.executable).with_name("feast")
    command = [str(feast), "-c", str(tmp_path), "configuration", "--output", "json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert set(json.loads(done.stdout)) <= set(names)


@pytest.mark.parametrize(
    ("kind", "path"), [("file", "r.db"), ("sql", "sqlite:///r.db"), ("remote", "localhost:1")]
)
def test_the_registry(kind: str, path: str, tmp_path: Path) -> None:
    documented = set()
    for names, _, meaning in section("`registry`"):
        if not (of := re.match(r"`(file|sql|remote)`( in S3)?:", meaning)) or of[1] == kind:
            documented |= keys(names)
    registry = {"registry_type": kind, "path": path, WRONG: 1}
    assert valid(complaint({"registry": registry}, tmp_path)) == documented


def test_the_connections_of_a_sql_registry(tmp_path: Path) -> None:
    (meaning,) = (row[2] for row in section("`registry`") if "sqlalchemy_config_kwargs" in row[0])
    registry = {"registry_type": "sql", "path": "sqlite:///r.db"}
    registry["sqlalchemy_config_kwargs"] = {WRONG: 1}
    documented = keys(meaning) - {"sql"}
    assert valid(complaint({"registry": registry}, tmp_path)) == documented


@pytest.mark.parametrize("part", ["online_store", "offline_store"])
def test_the_stores(part: str, tmp_path: Path) -> None:
    rows = section(f"`{part}`")
    assert len(rows) == {"online_store": 8, "offline_store": 2}[part]
    for types, meaning in rows:
        for kind in NAME.findall(types):
            if kind == "memory":
                continue
            told = complaint({"registry": "r.db", part: {"type": kind, WRONG: 1}}, tmp_path)
            assert valid(told) - {"type"} == keys(meaning), kind


@pytest.mark.parametrize("part", ["online_serving", "materialization"])
def test_sections_of_keys(part: str, tmp_path: Path) -> None:
    if part == "materialization":
        (meaning,) = (row[2] for row in section("The top level") if part in row[0])
        documented = keys(meaning)
    else:
        documented = {name for row in section(f"`{part}`") for name in keys(row[0])}
    assert valid(complaint({"registry": "r.db", part: {WRONG: 1}}, tmp_path)) == documented


def test_transformations(tmp_path: Path) -> None:
    configuration = {"project": "p", "registry": "r.db", "transformations": {WRONG: 1}}
    (tmp_path / "feature_store.yaml").write_text(json.dumps(configuration))
    feast = Path(sys.executable).with_name("feast")
    done = subprocess.run(
        [str(feast), "-c", str(tmp_path), "serve", "--port", "0"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    documented = {name for row in section("`transformations`") for name in keys(row[0])}
    assert set(NAME.findall(done.stderr.split("hint: ")[1])) == documented


def test_links_lead_somewhere() -> None:
    root = Path(__file__).resolve().parents[3]
    for document in sorted([*root.glob("*.md"), *root.glob("examples/*/README.md")]):
        for link in re.findall(r"\]\(([^)#\s]+)\)", document.read_text()):
            if "://" not in link:
                assert (document.parent / link).exists(), f"{document.name}: {link}"
