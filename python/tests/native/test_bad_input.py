"""What is wrong is said in one sentence, with the fix, and nothing is half done: a table per kind of input."""

from __future__ import annotations

import decimal
import math
import os
import random
import re
import signal
import sqlite3
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from drivers import HOUR, T0, definitions, write_repository

from feast import Entity, FeatureService, FeatureStore, FeatureView, FileSource, Project, RepoConfig
from feast._feast import cli_main
from feast.data_source import PushMode
from feast.errors import (
    EntityDFNotDateTime,
    EntityNotFoundException,
    FeastEntityDFMissingColumnsError,
    FeastOnlineStoreInvalidName,
    FeastRegistryNotSetError,
    FeatureNameCollisionError,
    FeatureServiceNotFoundException,
    FeatureViewNotFoundException,
    InvalidFeaturesParameterType,
    PushSourceNotFoundException,
)
from feast.repo_config import FeastConfigError

SECRET = "hunter2"
NEVER = ("Traceback", "panicked", "RUST_BACKTRACE", SECRET)

ONLINE = ["get-online-features", "-e", "driver_id=1001", "-f", "driver_stats:trips"]
MATERIALIZE = ["materialize", "2026-01-01", "2026-12-01"]
TRIPS = ["driver_stats:trips"]


def is_clear(text: str, *fragments: str) -> None:
    for fragment in fragments:
        assert fragment in text, text
    for word in NEVER:
        assert word not in text, text


class CommandLine:
    """The command line in this process: what it prints and how it ends."""

    def __init__(self, capfd: pytest.CaptureFixture[str]) -> None:
        self.capfd = capfd

    def run(self, folder: Path, *arguments: str) -> tuple[int, str]:
        self.capfd.readouterr()
        code = cli_main(["feast", "-c", str(folder), *arguments])
        out, err = self.capfd.readouterr()
        return code, out + err

    def refuses(self, folder: Path, arguments: list[str], *fragments: str) -> str:
        code, text = self.run(folder, *arguments)
        assert code in (1, 2), text
        is_clear(text, *fragments)
        # Wrong definitions are a list, each with its hint; wrong usage is followed by where to read on.
        assert "hint: " in text or (code == 2 and "--help" in text), text
        sentence = next(line for line in text.splitlines() if line.startswith("error: "))
        assert len(sentence) < 600, sentence
        return text


@pytest.fixture
def feast(capfd) -> CommandLine:
    return CommandLine(capfd)


@pytest.fixture(scope="module")
def applied(tmp_path_factory) -> Path:
    """A repository that is applied and materialized; no test of this module changes it."""
    folder = write_repository(tmp_path_factory.mktemp("applied"))
    store = FeatureStore(repo_path=str(folder))
    store.apply(list(definitions().values()))
    store.materialize(T0 - 100 * HOUR, T0 + HOUR)
    return folder


@pytest.fixture(scope="module")
def shared(applied) -> FeatureStore:
    return FeatureStore(repo_path=str(applied))


def contents(folder: Path) -> dict[str, bytes]:
    """All files by name, to see that nothing changed."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


# feature_store.yaml

PLAIN = {"project": "proj", "registry": "registry.db"}


def keys(**changed: str) -> str:
    return "".join(f"{key}: {value}\n" for key, value in (PLAIN | changed).items())


CONFIGURATIONS: dict[str, tuple[str | bytes | None, str]] = {
    "missing": (None, "there is no configuration file"),
    "empty": ("", "the configuration is empty"),
    "only comments": ("# nothing\n", "the configuration is empty"),
    "list": ("- a\n", "the configuration is a list"),
    "text": ("hello", "the configuration is text"),
    "binary": (b"\x00\xff\xfePK", "is not UTF-8 text"),
    "UTF-16": ("project: p\n".encode("utf-16"), "is not UTF-8 text"),
    "open bracket": ("project: [\n", "not valid YAML"),
    "tab": ("project: p\n\tregistry: r\n", "not valid YAML: found a tab"),
    "key twice": ("project: p\nproject: q\nregistry: r\n", "not valid YAML: duplicate entry"),
    "two documents": ("project: p\n---\nproject: q\n", "more than one document"),
    "deep": ("project: " + "[" * 5000 + "]" * 5000, "recursion limit"),
    "no end of aliases": (
        "".join(f"k{i}: &k{i} [{','.join([f'*k{i - 1}'] * 9) if i else 'x'}]\n" for i in range(9)),
        "repetition limit",
    ),
    "NUL": (keys(registry='"a\\0b"'), "`registry` contains a NUL character"),
    "huge": ("#" * (2 << 20), "larger than 1 MiB"),
    "no project": ("registry: r\n", "`project` is missing"),
    "no registry": ("project: p\n", "`registry` is missing"),
    "misspelt key": (keys(onlinestore="x"), "did you mean `online_store`?"),
    "variable": (keys(registry="${NOT_SET_ANYWHERE}"), "environment variable `NOT_SET_ANYWHERE`"),
    "no variable": (keys(registry="${A B}"), "which is not the name of an environment variable"),
    "infinite": (keys(registry=".inf"), "expected a finite number"),
    "registry type": (
        keys(registry="{registry_type: fil, path: r}"),
        "there is no registry of type `fil`",
    ),
    "registry key": (
        keys(registry=f"{{path: r, password: {SECRET}, pth: 1}}"),
        "`registry.pth` is not a key",
    ),
    "registry path": (
        keys(registry="{path: 5}"),
        "`registry.path` is a number, expected text",
    ),
    "registry ttl": (
        keys(registry="{path: r, cache_ttl_seconds: -1}"),
        "`registry.cache_ttl_seconds` is -1, expected a whole number of seconds",
    ),
    "registry on a server": (
        keys(registry=f"postgresql://me:{SECRET}@host/db"),
        "there are no registry files in `postgresql://`",
    ),
    "registry is a folder": (keys(registry="."), "Is a directory"),
    "registry below a file": (keys(registry="/dev/null/r.db"), "Not a directory"),
    "registry is something else": (keys(registry="/etc/passwd"), "is not a registry file"),
    "online store": (keys(online_store="{type: sqllite}"), "did you mean `sqlite`?"),
    "online store later": (
        keys(online_store=f'{{type: bigtable, instance: "{SECRET}"}}'),
        "online store `bigtable` is not built yet",
    ),
    "online store key": (
        keys(online_store="{type: sqlite, pth: x}"),
        "`online_store.pth` is not a key",
    ),
    "online store path": (
        keys(online_store="{type: sqlite, path: 5}"),
        "`online_store.path` is wrong",
    ),
    "online store no path": (
        keys(online_store='{type: sqlite, path: ""}'),
        "`online_store.path` is empty",
    ),
    "online store switch": (
        keys(online_store="{vector_enabled: maybe}"),
        "`online_store.vector_enabled` is wrong",
    ),
    "offline store": (keys(offline_store="dusk"), "there is no offline store `dusk`"),
    "offline store later": (
        keys(offline_store=f"{{type: snowflake.offline, password: {SECRET}}}"),
        "the offline store `snowflake.offline` is not available yet",
    ),
    "offline store key": (
        keys(offline_store="{type: file, memory_limt: 1}"),
        "has no key `memory_limt`",
    ),
    "memory": (keys(offline_store="{type: file, memory_limit: lots}"), "a size such as `512MiB`"),
    "engine": (keys(batch_engine="sparc.engine"), "did you mean `spark.engine`?"),
    "authentication": (keys(auth="{type: oidk}"), "`auth` has the type `oidk`"),
    "server": (keys(feature_server="{type: x}"), "`feature_server` has the type `x`"),
    "key version": (keys(entity_key_serialization_version="9"), "expected a number up to 3"),
    "batch size": (
        keys(materialization="{online_write_batch_size: 0}"),
        "expected a positive number of rows",
    ),
    "materialization key": (keys(materialization="{a: 1}"), "`materialization.a` is not a key"),
    "materialization flag": (
        keys(materialization="{pull_latest_features: x}"),
        "expected true or false",
    ),
}
for _key, _kind in {
    "project": "expected text",
    "project_description": "expected text",
    "provider": "expected text",
    "repo_path": "expected text",
    "registry": "expected a path or a mapping",
    "online_store": "expected a name or a mapping",
    "offline_store": "expected a name or a mapping",
    "batch_engine": "expected a name or a mapping",
    "auth": "expected a name or a mapping",
    "feature_server": "expected a name or a mapping",
    "materialization": "expected a mapping",
    "openlineage": "expected a mapping",
    "mlflow": "expected a mapping",
    "data_quality_monitoring": "expected a mapping",
    "embedding_model": "expected a mapping",
    "entity_key_serialization_version": "expected a number",
    "coerce_tz_aware": "expected true or false",
}.items():
    CONFIGURATIONS[f"list as {_key}"] = (
        keys(**{_key: "[a, b]"}),
        f"`{_key}` is a list, {_kind}",
    )
    if "text" in _kind or "name" in _kind or "path" in _kind:
        CONFIGURATIONS[f"number as {_key}"] = (
            keys(**{_key: "3.5"}),
            f"`{_key}` is a number, {_kind}",
        )
for _name in ("a b", "-p", "ü", "a;drop", "a/b", "../x", "a:b", "", "'", "🙂"):
    CONFIGURATIONS[f"project {_name!r}"] = (
        keys(project=f'"{_name}"'),
        "which is not a valid project name",
    )


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_a_wrong_configuration_is_refused(name, feast, tmp_path):
    text, expected = CONFIGURATIONS[name]
    if text is not None:
        data = text if isinstance(text, bytes) else text.encode()
        (tmp_path / "feature_store.yaml").write_bytes(data)
    before = contents(tmp_path)

    feast.refuses(tmp_path, ["entities", "list"], expected)

    assert contents(tmp_path) == before
    with pytest.raises(Exception) as caught:
        FeatureStore(repo_path=str(tmp_path)).list_entities()
    is_clear(str(caught.value), *([expected] if text is not None else []))
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"auth": "{type: oidc}"}, "`auth` of type `oidc` is not enforced yet"),
        ({"batch_engine": "spark.engine"}, "`batch_engine` `spark.engine` is not there yet"),
        ({"entity_key_serialization_version": "2"}, "version 2 is outdated"),
        ({"zzz": "1"}, "`zzz` is not a key of the configuration and is ignored"),
    ],
)
def test_what_a_configuration_says_in_vain_is_told(changed, expected, feast, tmp_path):
    (tmp_path / "feature_store.yaml").write_text(keys(**changed))
    code, text = feast.run(tmp_path, "configuration")
    assert code == 0, text
    is_clear(text, "warning: ", expected)
    with pytest.warns(UserWarning, match=re.escape(expected)):
        FeatureStore(repo_path=str(tmp_path))


CONFIGURATIONS_IN_PYTHON: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "nothing": (RepoConfig, FeastRegistryNotSetError, "registry: data/registry.db"),
    "no project": (lambda: RepoConfig(registry="r"), FeastConfigError, "needs a `project`"),
    "project": (
        lambda: FeatureStore(config=RepoConfig(project=5, registry="r")),
        FeastConfigError,
        "`project` is a number",
    ),
    "registry": (
        lambda: FeatureStore(config=RepoConfig(project="p", registry=5)),
        FeastConfigError,
        "`registry` is a number",
    ),
    "unknown key": (
        lambda: FeatureStore(config=RepoConfig(project="p", registry="r", provder="x")),
        FeastConfigError,
        "did you mean `provider`?",
    ),
    "online store": (
        lambda: RepoConfig(project="p", registry="r", online_store="nope"),
        FeastOnlineStoreInvalidName,
        "there is no online store `nope`",
    ),
    "a dictionary": (
        lambda: FeatureStore(config={"project": "p"}),
        TypeError,
        "must be a RepoConfig, but is of class dict",
    ),
    "a number as path": (
        lambda: FeatureStore(repo_path=5),
        TypeError,
        "`repo_path` must be a path, but is 5",
    ),
    "a folder as file": (
        lambda: FeatureStore(fs_yaml_file=Path(os.sep)),
        FeastConfigError,
        "the file cannot be read: Is a directory",
    ),
    "two configurations": (
        lambda: FeatureStore(config=RepoConfig(project="p", registry="r"), fs_yaml_file=Path("x")),
        ValueError,
        "not both",
    ),
}


@pytest.mark.parametrize("name", CONFIGURATIONS_IN_PYTHON)
def test_a_wrong_configuration_in_python_is_refused(name):
    make, kind, expected = CONFIGURATIONS_IN_PYTHON[name]
    with pytest.raises(kind) as caught:
        make()
    is_clear(str(caught.value), expected)


# Definitions

PRELUDE = """\
from datetime import timedelta
from feast import *
from feast.types import *
driver = Entity(name="driver", join_keys=["driver_id"])
source = FileSource(name="stats", path="stats.parquet", timestamp_field="event_timestamp", created_timestamp_column="created")
schema = [Field(name="driver_id", dtype=Int64), Field(name="trips", dtype=Int64), Field(name="city", dtype=String)]
"""
VIEW = 'view = FeatureView(name="v", entities=[driver], ttl=timedelta(days=1), schema=schema, source=source)\n'


def view(**changed: str) -> str:
    arguments = {
        "name": '"v"',
        "entities": "[driver]",
        "ttl": "timedelta(days=1)",
        "schema": "schema",
        "source": "source",
    } | changed
    return PRELUDE + f"view = FeatureView({', '.join(f'{k}={v}' for k, v in arguments.items())})\n"


def file_source(path: str, **arguments: str) -> str:
    first, _, rest = (PRELUDE + VIEW).partition('path="stats.parquet"')
    extra = "".join(f", {name}={value}" for name, value in arguments.items())
    return f'{first}path="{path}"{extra}{rest}'


def service(features: str, name: str = '"s"') -> str:
    return PRELUDE + VIEW + f"service = FeatureService(name={name}, features={features})\n"


HEADER = "driver_id,event_timestamp,created,trips,city\n"
Files = dict[str, "str | bytes"]

# What is in the repository (text alone is `defs.py`), and what is said of it.
DEFINITIONS: dict[str, tuple[str | Files, str | tuple[str, ...]]] = {
    "syntax": ("x = = 3\n", "defs.py:1: file `defs.py` is not valid Python"),
    "indentation": ("def f():\nreturn 1\n", "defs.py:2: file `defs.py` is not valid Python"),
    "NUL bytes": ({"defs.py": b"x = 1\0\n"}, "is not valid Python"),
    "not UTF-8": ({"defs.py": b'x = "\xff"\n'}, "is not valid Python"),
    "no such module": ("import nosuchmodule\n", "module `nosuchmodule`, which does not exist"),
    "no such name": ("from feast import FeatureVew\n", "did you mean `FeatureView`?"),
    "imports in a circle": (
        {"a.py": "from b import y\nx = 1\n", "b.py": "from a import x\ny = 1\n"},
        "imports `x` from `a`, which imports this file itself",
    ),
    "exception": ('raise RuntimeError("boom")\n', "cannot be imported: RuntimeError: boom"),
    "exception with a secret": (
        f'raise RuntimeError("no access to postgresql://me:{SECRET}@host")\n',
        "postgresql://me:***@host",
    ),
    "exception of many lines": (
        'raise RuntimeError("first\\nsecond\\n\\nTraceback (most recent call last):\\n ...")\n',
        "RuntimeError: first second",
    ),
    "assertion": ("assert 1 == 2\n", "cannot be imported: AssertionError"),
    "endless": ("def f(): f()\nf()\n", "RecursionError"),
    "exit": ("import sys\nsys.exit(3)\n", "ends the program (exit code 3)"),
    "exit at once": ("import os\nos._exit(3)\n", "ends the program (exit code 3)"),
    "misspelt name": (PRELUDE + "x = Int32x\n", "did you mean `Int32`?"),
    "field without type": (PRELUDE + 'Field(name="a")\n', "declares a `Field` without `dtype`"),
    "field without name": (PRELUDE + "Field(dtype=Int64)\n", "declares a `Field` without `name`"),
    "type as text": (PRELUDE + 'Field(name="a", dtype="int")\n', "must be a type of `feast.types`"),
    "type of Python": (PRELUDE + 'Field(name="a", dtype=int)\n', "hint: write `Int64`"),
    "name is a number": (PRELUDE + "Field(name=5, dtype=Int64)\n", "`name` must be a text"),
    "misspelt argument": (view(schma="schema"), "did you mean `schema`?"),
    "without names": (PRELUDE + 'FeatureView("v", [driver])\n', "arguments without their names"),
    "entity by name": (view(entities='["driver"]'), "must be of class Entity"),
    "entity is text": (view(entities='"driver"'), "`entities` must be a list"),
    "entity is nothing": (view(entities="[None]"), "must be of class Entity"),
    "entity not in source": (
        PRELUDE + 'e = Entity(name="c", join_keys=["c_id"])\n'
        'v = FeatureView(name="v", entities=[e], schema=schema, source=source)\n',
        "has no type for join key `c_id` of entity `c`",
    ),
    "entity with two keys": (
        PRELUDE + 'Entity(name="e", join_keys=["a", "b"])\n',
        "an entity has one join key",
    ),
    "entity with a number": (PRELUDE + 'Entity(name="e", join_keys=[5])\n', "of class str"),
    "entity type": (
        PRELUDE + 'Entity(name="e", value_type="INT64")\n',
        "hint: write for instance `ValueType.INT64`",
    ),
    "name in another case": (
        view() + VIEW.replace("view =", "other =").replace('"v"', '"V"'),
        "has the name of `V` at `defs.py:8` (names are compared without case)",
    ),
    "name twice": (
        view() + 'w = FeatureView(name="v", entities=[driver], schema=schema[:2], source=source)\n',
        "has the name of another definition at `defs.py:7`",
    ),
    "entity twice": (
        view() + 'other = Entity(name="driver", join_keys=["x"])\n',
        "entity `driver` has the name of another definition",
    ),
    "source twice": (
        view() + 'other = FileSource(name="stats", path="pushed.parquet")\n',
        "data source `stats` has the name of another definition",
    ),
    "two projects": (
        view() + 'p = Project(name="proj")\nq = Project(name="other")\n',
        "defines 2 projects, `proj` (`defs.py:8`) and `other` (`defs.py:9`)",
    ),
    "another project": (view() + 'p = Project(name="other")\n', "which is `proj`"),
    "feature not in source": (
        view(schema='schema + [Field(name="trps", dtype=Int64)]'),
        ("takes feature `trps` from source `stats`", "did you mean `trips`?"),
    ),
    "feature twice": (view(schema="schema + schema"), "declares `driver_id` more than once"),
    "list over text": (
        view(schema='[schema[0], Field(name="city", dtype=Array(Int64))]'),
        "declares feature `city` as INT64_LIST, but its column in source `stats` is Utf8",
    ),
    "time as feature": (
        view(schema='schema + [Field(name="event_timestamp", dtype=UnixTimestamp)]'),
        "declares the timestamp column `event_timestamp` as a feature",
    ),
    "time is a number": (
        file_source("stats.parquet").replace('"event_timestamp"', '"conv_rate"'),
        "takes event time from column `conv_rate` of source `stats`, which is Float64 and not a time",
    ),
    "time misspelt": (
        file_source("stats.parquet").replace('"event_timestamp"', '"event_tmestamp"'),
        "did you mean `event_timestamp`?",
    ),
    "time left open": (
        file_source("stats.parquet")
        .replace('timestamp_field="event_timestamp", ', "")
        .replace(', created_timestamp_column="created"', ""),
        "has several timestamp columns: `event_timestamp` and `created`",
    ),
    "no file": (file_source("nope.parquet"), "there is no file at `nope.parquet`"),
    "no path": (file_source(""), "the path of the files is empty"),
    "empty folder": (
        {"defs.py": file_source("folder"), "folder/.hidden": ""},
        "there is no file at `folder`",
    ),
    "bad pattern": (file_source("[*.parquet"), "is not a valid pattern of paths"),
    "not Parquet": (
        {"defs.py": view(), "stats.parquet": b"PAR1garbagePAR1"},
        "is not a readable Parquet file",
    ),
    "empty Parquet": ({"defs.py": view(), "stats.parquet": b""}, "is not a readable Parquet file"),
    "CSV without time": (
        {"defs.py": file_source("stats.csv"), "stats.csv": "driver_id,trips,city\n1,2,a\n"},
        "takes event time `event_timestamp` from source `stats`, which has no such column",
    ),
    "empty CSV": ({"defs.py": file_source("stats.csv"), "stats.csv": ""}, "stats.csv` is empty"),
    "ragged CSV": (
        {"defs.py": file_source("stats.csv"), "stats.csv": HEADER + "1,2020-01-01\n"},
        "is not a readable CSV file",
    ),
    "binary CSV": (
        {"defs.py": file_source("stats.csv"), "stats.csv": b"\x00\xff\xfe\n\x00"},
        "is not a readable CSV file",
    ),
    "ttl is a number": (view(ttl="5"), "hint: write for instance `timedelta(days=1)`"),
    "ttl is text": (view(ttl='"1d"'), "`ttl` must be of class timedelta"),
    "ttl is negative": (view(ttl="timedelta(-1)"), "must not be negative"),
    "source is text": (view(source='"stats"'), "`source` must be a data source"),
    "schema is a dictionary": (view(schema='{"a": 1}'), "`schema` must be a list"),
    "schema is names": (view(schema='["a"]'), "item 1 of `schema` must be of class Field"),
    "tag is a number": (view(tags='{"a": 5}'), "must map texts to texts"),
    "tags are a list": (view(tags='["a"]'), "`tags` must be a dictionary of texts"),
    "field mapping is text": (
        file_source("stats.parquet", field_mapping='"x"'),
        "`field_mapping` must be a dictionary of texts",
    ),
    "field mapping clashes": (
        file_source("stats.parquet", field_mapping='{"trips": "city"}'),
        "its source renames that column to `city`",
    ),
    "service of text": (service('"v"'), "`features` must be a list"),
    "service of nothing": (service("[None]"), "`features` holds missing"),
    "service of an unknown feature": (service('[view[["trps"]]]'), "did you mean `trips`?"),
    "push source without history": (
        view(source='PushSource(name="p")'),
        "is a PushSource without `batch_source`",
    ),
    "push source of a push source": (
        view(
            source='PushSource(name="p", batch_source=PushSource(name="q", batch_source=source))',
        ),
        "`batch_source` must be a source with a history",
    ),
    "file source without path": (PRELUDE + 'FileSource(name="x")\n', "a `FileSource` without `path`"),
    "path is a number": (PRELUDE + "FileSource(path=5)\n", "`path` must be a text"),
    "on-demand view of nothing": (
        PRELUDE + "from feast.on_demand_feature_view import on_demand_feature_view\n"
        '@on_demand_feature_view(sources=[], schema=[Field(name="x", dtype=Int64)])\ndef od(df): return df\n',
        "it has nothing to compute from",
    ),
    "feastignore": (
        {"defs.py": view(), ".feastignore": "/absolute\n"},
        ".feastignore:1: file `.feastignore` has a line that is not a pattern",
    ),
    "view with a colon": (view(name='"a:b"'), "has `:` in its name"),
    "view with an at": (view(name='"a@b"'), "has `@` in its name"),
    "view of nobody": (view(name='"__dummy"'), "has a name that is reserved"),
    "all at once": (
        {
            "a.py": PRELUDE + 'e = Entity(name="")\n',
            "b.py": "import nope\n",
            "c.py": 'from a import *\nv = FeatureView(name="v", source=source, schema=[Field(name="q", dtype=Int64)])\n',
        },
        ("have 3 problems", "a.py:7: entity `` has no name", "b.py:1", "c.py:2", "feature `q`"),
    ),
}
for _what, _make in {
    "view": lambda name: view(name=name),
    "entity": lambda name: PRELUDE + f'e = Entity(name={name}, join_keys=["driver_id"])\n',
    "service": lambda name: service("[view]", name),
}.items():
    DEFINITIONS[f"{_what} without a name"] = (_make('""'), "has no name")
    for _character in ("\\0", "\\n", "\\x1b"):
        DEFINITIONS[f"{_what} with {_character}"] = (
            _make(f'"a{_character}b"'),
            "has a control character in its name",
        )


def write_definitions(folder: Path, files: str | Files) -> None:
    write_repository(folder)
    for name, data in ({"defs.py": files} if isinstance(files, str) else files).items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data if isinstance(data, bytes) else data.encode())


@pytest.mark.parametrize("name", DEFINITIONS)
def test_wrong_definitions_are_refused(name, feast, tmp_path):
    files, expected = DEFINITIONS[name]
    write_definitions(tmp_path, files)
    before = contents(tmp_path)

    text = feast.refuses(tmp_path, ["apply"], *([expected] if isinstance(expected, str) else expected))

    # Every problem has a hint of its own.
    assert text.count("hint: ") == sum(line.startswith("  ") for line in text.splitlines()) / 2, text
    assert contents(tmp_path) == before


ODD_NAMES = ["a b", "a'b", 'a"b', "`a`", "ünïcode", "🙂", "x" * 300, "v'; DROP TABLE x; --", "a/b", "../x", "-v"]


def test_odd_names_are_only_names(feast, tmp_path):
    lines = [
        f"v{at} = FeatureView(name={name!r}, entities=[driver], schema=schema, source=source)\n"
        f"s{at} = FeatureService(name={name!r}, features=[v{at}])\n"
        for at, name in enumerate(ODD_NAMES)
    ]
    write_definitions(tmp_path, PRELUDE + "".join(lines))

    for command in (["apply"], MATERIALIZE, ["plan", "--exit-code"]):
        code, text = feast.run(tmp_path, *command)
        assert code == 0, text
    store = FeatureStore(repo_path=str(tmp_path))
    for name in ODD_NAMES:
        answer = store.get_online_features([f"{name}:trips"], [{"driver_id": 1001}]).to_dict()
        assert answer == {"driver_id": [1001], "trips": [30]}
        by_service = store.get_feature_service(name)
        assert store.get_online_features(by_service, [{"driver_id": 1002}]).to_dict()["trips"] == [40]
    assert sorted(view.name for view in store.list_feature_views()) == sorted(ODD_NAMES)
    code, text = feast.run(tmp_path, "teardown")
    assert code == 0, text


def test_definitions_that_end_python_leave_half_an_answer_to_nobody(tmp_path):
    write_definitions(tmp_path, "import os, signal\nprint('{')\nos.kill(os.getpid(), signal.SIGKILL)\n")
    command = [sys.executable, "-m", "feast._repository", str(tmp_path), "proj"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (-signal.SIGKILL, "")


# Command line

FRAME = ["get-historical-features", "-f", "driver_stats:trips", "--dataframe"]
ARGUMENTS: list[tuple[list[str], str]] = [
    ([], "Usage: feast"),
    (["aply"], "a similar subcommand exists: 'apply'"),
    (["--nope"], "unexpected argument '--nope'"),
    (["apply", "x"], "unexpected argument 'x'"),
    (["-f", "/nope.yaml", "plan"], "there is no configuration file `/nope.yaml`"),
    (["-f", "/etc/passwd", "plan"], "the configuration is text"),
    (["-f", "/", "plan"], "Is a directory"),
    (["--log-level", "loud", "plan"], "[possible values: debug"),
    (["--output", "xml", "entities", "list"], "[possible values: table"),
    (["materialize"], "START_TS and END_TS are required"),
    (["materialize", "2026-01-01"], "START_TS and END_TS are required"),
    (["materialize", "foo", "bar"], "invalid value 'foo'"),
    (["materialize", "2026-13-01", "2026-12-01"], "invalid value '2026-13-01'"),
    (["materialize", "2026-01-01T25:00:00", "2026-12-01"], "not a time"),
    (["materialize", "", "2026-12-01"], "not a time"),
    (["materialize", "99999-01-01", "2026-12-01"], "not a time"),
    (["materialize", "2026-12-01", "2026-01-01"], "lies after the end"),
    ([*MATERIALIZE, "--disable-event-timestamp"], "do not go together"),
    ([*MATERIALIZE, "-v", "driver_stat"], "did you mean `driver_stats`?"),
    ([*MATERIALIZE, "-v", ""], "feature view `` does not exist"),
    ([*MATERIALIZE, "-v", "driver"], "feature view `driver` does not exist"),
    (["materialize-incremental"], "<END_TS>"),
    (["materialize-incremental", "nope"], "not a time"),
    (["materialize-incremental", "2026-01-01", "-v", "nope"], "valid names are"),
    (["entities", "describe"], "<NAME>"),
    (["entities", "describe", "drivr"], "did you mean `driver`?"),
    (["feature-views", "describe", "driver_stat"], "did you mean `driver_stats`?"),
    (["feature-services", "describe", "x"], "valid names are `model`"),
    (["data-sources", "describe", "x"], "valid names are `push`, `pushed` and `stats`"),
    (["projects", "describe", "x"], "project `x` does not exist"),
    (["saved-datasets", "describe", "x"], "saved dataset `x` does not exist"),
    (["validation-references", "describe", "x"], "validation reference `x` does not exist"),
    (["permissions", "describe", "x"], "permission `x` does not exist"),
    (["on-demand-feature-views", "describe", "x"], "feature view `x` does not exist"),
    (["stream-feature-views", "describe", "x"], "stream feature view `x` does not exist"),
    (["label-views", "describe", "x"], "label view `x` does not exist"),
    (["features", "describe", "x"], "valid names are `conv_rate`, `trips` and `city`"),
    (["feature-views", "list", "--tags", "x"], "write `key:value`"),
    (["delete", "driver_stat"], "did you mean `driver_stats`?"),
    (["delete", "x'; DROP TABLE y"], "has no object `x'; DROP TABLE y`"),
    (["delete", "driver"], "is still used by feature view `driver_push`"),
    (["delete", "stats"], "is still used by feature view `driver_stats`"),
    (["delete", "driver_stats"], "is still used by feature service `model`"),
    (["get-online-features"], "--entities <KEY=VALUE>"),
    ([*ONLINE[:3], "-f", "driver_stats:tripz"], "did you mean `trips`?"),
    ([*ONLINE[:3], "-f", "driver_stat:trips"], "did you mean `driver_stats`?"),
    ([*ONLINE[:3], "-f", "trips"], "invalid feature reference `trips`"),
    ([*ONLINE[:3], "-f", ""], "invalid feature reference ``"),
    ([*ONLINE[:3], "-f", ":"], "invalid feature reference `:`"),
    ([*ONLINE[:3], "-f", "driver_stats@vx:trips"], "invalid feature reference"),
    ([*ONLINE, "-f", "driver_push:trips"], "would both be called `trips`"),
    ([*ONLINE[:3], "--feature-service", "nope"], "valid names are `model`"),
    ([*ONLINE[:1], *ONLINE[3:], "-e", "driver_id"], "write it as `driver_id=1001`"),
    ([*ONLINE[:1], *ONLINE[3:], "-e", "driver_id=abc"], "has `abc` in row 0"),
    ([*ONLINE[:1], *ONLINE[3:], "-e", "driver_id="], "has `` in row 0"),
    ([*ONLINE[:1], *ONLINE[3:], "-e", "driver_id=1.5"], "which is not a value of type INT64"),
    ([*ONLINE[:1], *ONLINE[3:], "-e", "driver_id=" + "9" * 20], "not a value of type INT64"),
    ([*ONLINE[:1], *ONLINE[3:], "-e", "customer=1"], "`driver_id`"),
    (FRAME, "a value is required"),
    ([*FRAME, "{"], "JSON, but not valid"),
    ([*FRAME, "[]"], "are empty"),
    ([*FRAME, "[1]"], "--dataframe"),
    ([*FRAME, '"x"'], "neither JSON nor CSV"),
    ([*FRAME, "@nope.csv"], "nope.csv"),
    ([*FRAME, "driver_id,event_timestamp\n1001"], "--dataframe"),
    ([*FRAME, '[{"driver_id": 1001, "event_timestamp": "nope"}]'], "`nope`"),
    ([*FRAME, '[{"driver_id": 1001}]'], "`event_timestamp`"),
    ([*FRAME, '[{"event_timestamp": "2026-11-20"}]'], "have no column `driver_id`"),
    ([*FRAME, '[{"driver_id": "x", "event_timestamp": "2026-11-20"}]'], "join key `driver_id`"),
    ([*FRAME, '{"driver_id": [1, 2], "event_timestamp": ["2026-11-20"]}'], "has 1 values"),
    ([*FRAME[:3], "--start-date", "x"], "not a time"),
    ([*FRAME[:3], "--start-date", "2026-12-01", "--end-date", "2026-01-01"], "is after the end"),
    (["serve", "--port", "x"], "invalid value 'x'"),
    (["serve", "--port", "99999"], "99999 is not in 0..=65535"),
    (["serve", "-h", "300.1.1.1"], "cannot listen on `300.1.1.1:6566`"),
    (["init", "a b!"], "`a b!` cannot be the name of a project"),
    (["init", "x", "-t", "nope"], "[possible values: local, flights]"),
    (["completion", "klingon"], "[possible values: bash"),
    (["projects", "delete", "nope"], "project `nope` does not exist"),
]


@pytest.mark.parametrize(("arguments", "expected"), ARGUMENTS, ids=lambda each: " ".join(each)[:60] if isinstance(each, list) else "")
def test_wrong_arguments_are_refused(arguments, expected, feast, applied):
    before = contents(applied)
    code, text = feast.run(applied, *arguments)
    assert code in (1, 2), text
    is_clear(text, expected)
    assert code == 2 or "hint: " in text, text
    assert contents(applied) == before


@pytest.mark.parametrize("folder", ["nope", "feature_store.yaml"])
def test_a_repository_that_is_none_is_refused(folder, feast, applied):
    feast.refuses(applied / folder, ["plan"], "there is no directory")


# Entity rows of training data

ROW = {"driver_id": [1001], "event_timestamp": [T0]}


def frame(**changed: Any) -> Callable[[], pd.DataFrame]:
    return lambda: pd.DataFrame(ROW | changed)


HISTORICAL: dict[str, tuple[Any, type[Exception], str]] = {
    "no join key": (lambda: pd.DataFrame({"event_timestamp": [T0]}), KeyError, "have no column `driver_id`"),
    "join key as index": (lambda: pd.DataFrame(ROW).set_index("driver_id"), KeyError, "have no column `driver_id`"),
    "columns without names": (lambda: pd.DataFrame([[1001, T0]]), KeyError, "their columns are `0` and `1`"),
    "text keys": (frame(driver_id=["1001"]), ValueError, "convert the column of the entity rows to Int64"),
    "boolean keys": (frame(driver_id=[True]), ValueError, "is Boolean in the entity rows"),
    "bytes keys": (frame(driver_id=[b"1"]), ValueError, "is Binary in the entity rows"),
    "list keys": (frame(driver_id=[[1]]), ValueError, "is List(Int64) in the entity rows"),
    "fraction keys": (frame(driver_id=[1001.5]), ValueError, "holds 1001.5, which is not Int64"),
    "huge keys": (frame(driver_id=[2**70]), ValueError, "column `driver_id` of `entity_df`"),
    "complex keys": (frame(driver_id=[1j]), ValueError, "column `driver_id` of `entity_df`"),
    "text categories": (frame(driver_id=pd.Categorical(["a"])), ValueError, "join key `driver_id`"),
    "mixed keys": (
        lambda: pd.DataFrame({"driver_id": [1, "a"], "event_timestamp": [T0, T0]}),
        ValueError,
        "column `driver_id` of `entity_df` holds values that do not fit together",
    ),
    "objects": (frame(x=[object()]), ValueError, "column `x` of `entity_df`"),
    "no time": (lambda: pd.DataFrame({"driver_id": [1001]}), EntityDFNotDateTime, "no time column"),
    "no columns": (pd.DataFrame, EntityDFNotDateTime, "have no columns"),
    "two times": (
        lambda: pd.DataFrame({"driver_id": [1001], "a": [T0], "b": [T0]}),
        EntityDFNotDateTime,
        "several time columns: `a` and `b`",
    ),
    "text time": (frame(event_timestamp=["yesterday"]), EntityDFNotDateTime, "holds `yesterday`"),
    "integer time": (frame(event_timestamp=[5]), EntityDFNotDateTime, "has type Int64, not a time"),
    "float time": (frame(event_timestamp=[5.5]), EntityDFNotDateTime, "has type Float64, not a time"),
    "time of day": (
        lambda: pa.table({"driver_id": [1], "event_timestamp": pa.array([1], pa.time32("s"))}),
        EntityDFNotDateTime,
        "has type Time32(s), not a time",
    ),
    "time beyond all": (
        lambda: pa.table({"driver_id": [1], "event_timestamp": pa.array([2**62], pa.timestamp("s"))}),
        EntityDFNotDateTime,
        "does not fit into microseconds",
    ),
    "column twice in pandas": (
        lambda: pd.DataFrame([[1, 2, T0]], columns=["driver_id", "driver_id", "event_timestamp"]),
        ValueError,
        "more than one column named `driver_id`",
    ),
    "column twice in Arrow": (
        lambda: pa.Table.from_arrays(
            [pa.array([1]), pa.array([2]), pa.array([T0])],
            names=["driver_id", "driver_id", "event_timestamp"],
        ),
        ValueError,
        "more than one column named `driver_id`",
    ),
    "column called as a feature": (frame(trips=[5]), FeatureNameCollisionError, "`driver_stats__trips`"),
    "Polars text": (
        lambda: pl.DataFrame({"driver_id": ["a"], "event_timestamp": [T0]}),
        ValueError,
        "join key `driver_id`",
    ),
    "nested Arrow": (
        lambda: pa.table({"driver_id": [{"a": 1}], "event_timestamp": [T0]}),
        ValueError,
        "join key `driver_id` is Struct",
    ),
    "array": (lambda: np.array([[1, 2]]), TypeError, "is of class ndarray"),
    "list": (lambda: [ROW], TypeError, "is of class list"),
    "number": (lambda: 5, TypeError, "is of class int"),
    "series": (lambda: pd.Series([1]), ValueError, "object of type `Series`"),
    "no SQL": (lambda: "selekt 1", ValueError, "the entity query cannot be run"),
    "empty SQL": (lambda: "", ValueError, "the entity query cannot be run"),
    "SQL without a time": (lambda: "select 1 as driver_id", EntityDFNotDateTime, "no time column"),
    "SQL of no table": (lambda: "select * from nope", ValueError, "names a table `nope`"),
    "SQL that drops": (lambda: "DROP TABLE stats", ValueError, "DDL not supported"),
    "SQL that writes": (lambda: "COPY (select 1) TO 'out.csv'", ValueError, "DML not supported"),
    "SQL that reads elsewhere": (
        lambda: "create external table t stored as csv location '/etc/passwd'",
        ValueError,
        "the entity query names a table `t`",
    ),
    "two queries": (lambda: "select 1; select 2", ValueError, "single SQL statement"),
    "no file": (lambda: "nope.parquet", FileNotFoundError, "there is no file at `nope.parquet`"),
}


@pytest.mark.parametrize("name", HISTORICAL)
def test_wrong_entity_rows_are_refused(name, shared):
    make, kind, expected = HISTORICAL[name]
    with pytest.raises(kind) as caught:
        shared.get_historical_features(make(), TRIPS).to_df()
    says_how(caught.value, expected)


def says_how(error: BaseException, *expected: str) -> None:
    """The text of an exception ends with what to do, after a semicolon or in a sentence of what is expected."""
    text = str(error)
    is_clear(text, *expected)
    hint = getattr(error, "hint", None)
    assert (hint and hint in text) or "; " in text or " must be " in text, text


HARMLESS: dict[str, tuple[Any, list[int | None]]] = {
    "null key": (lambda: pd.DataFrame({"driver_id": [1001, None], "event_timestamp": [T0, T0]}), [30, None]),
    "whole floats": (frame(driver_id=[1001.0]), [30]),
    "decimal": (frame(driver_id=[decimal.Decimal(1001)]), [30]),
    "category": (frame(driver_id=pd.Categorical([1001])), [30]),
    "beyond signed": (frame(driver_id=np.array([2**64 - 1], dtype="uint64")), [None]),
    "no time in one row": (
        lambda: pd.DataFrame({"driver_id": [1001, 1002], "event_timestamp": [T0, pd.NaT]}),
        [30, None],
    ),
    "time as text": (frame(event_timestamp=["2026-11-20T12:00:00Z"]), [30]),
    "time in another zone": (frame(event_timestamp=["2026-11-20T13:00:00+01:00"]), [30]),
    "time without a zone": (frame(event_timestamp=[T0.replace(tzinfo=None)]), [30]),
    "zones mixed": (
        lambda: pd.DataFrame(
            {"driver_id": [1001] * 2, "event_timestamp": pd.Series([T0, T0.replace(tzinfo=None)], dtype=object)}
        ),
        [30, 30],
    ),
    "date": (frame(event_timestamp=[date(2026, 11, 21)]), [30]),
    "far future": (frame(event_timestamp=pd.Series([datetime(9999, 12, 31)], dtype=object)), [None]),
    "far past": (frame(event_timestamp=pd.Series([datetime(1, 1, 1)], dtype=object)), [None]),
    "no rows": (lambda: pd.DataFrame(ROW).iloc[:0], []),
    "lazy": (lambda: pl.LazyFrame(ROW), [30]),
}


@pytest.mark.parametrize("name", HARMLESS)
def test_clumsy_entity_rows_are_understood(name, shared):
    make, trips = HARMLESS[name]
    table = shared.get_historical_features(make(), TRIPS).to_arrow()
    assert table.column("trips").to_pylist() == trips


SELECTIONS: dict[str, tuple[Any, type[Exception], str]] = {
    "nothing": (None, InvalidFeaturesParameterType, "is of class NoneType"),
    "text": ("driver_stats:trips", InvalidFeaturesParameterType, "is of class str"),
    "numbers": ([5], InvalidFeaturesParameterType, "holds an item of class int"),
    "no features": ([], ValueError, "no features were asked for"),
    "unknown view": (["driver_stat:trips"], FeatureViewNotFoundException, "did you mean `driver_stats`?"),
    "unknown feature": (["driver_stats:trip"], KeyError, "did you mean `trips`?"),
    "join key": (["driver_stats:driver_id"], KeyError, "has no feature `driver_id`"),
    "no view": (["trips"], ValueError, "invalid feature reference `trips`"),
    "twice": (TRIPS * 2, FeatureNameCollisionError, "would both be called `trips`"),
    "same name": ([*TRIPS, "driver_push:trips"], FeatureNameCollisionError, "full feature names"),
    "service of an unknown view": (
        FeatureService(name="z", features=["nope:a"]),
        ValueError,
        "unresolved references",
    ),
}


@pytest.mark.parametrize("name", SELECTIONS)
def test_wrong_selections_are_refused(name, shared):
    features, kind, expected = SELECTIONS[name]
    calls = (
        lambda: shared.get_historical_features(frame()(), features).to_df(),
        lambda: shared.get_online_features(features, [{"driver_id": 1001}]),
    )
    for call in calls:
        with pytest.raises(kind) as caught:
            call()
        says_how(caught.value, expected)


# Online requests

ENTITIES: dict[str, tuple[Any, type[Exception], str]] = {
    "nothing": (None, TypeError, "is of class NoneType"),
    "text": ("x", TypeError, "is of class str"),
    "frame": (pd.DataFrame({"driver_id": [1]}), TypeError, "is of class DataFrame"),
    "no rows": ([], ValueError, "`entity_rows` is empty"),
    "no columns": ({}, KeyError, "lack the join keys `driver_id`"),
    "empty row": ([{}], KeyError, "lack the join keys `driver_id`"),
    "another column": ([{"x": 1}], KeyError, "the columns given are `x`"),
    "rows of numbers": ([5], TypeError, "row 1 of `entity_rows` must be a mapping, but is of class int"),
    "rows of lists": ([[1]], TypeError, "is of class list"),
    "column is a number": ({"driver_id": 1001}, TypeError, "must be a list, but is 1001 (int)"),
    "column name is a number": ([{5: 1}], TypeError, "one is 5 (int)"),
    "ragged rows": ([{"driver_id": 1}, {}], ValueError, "row 1 has `driver_id`, row 2 has none"),
    "ragged columns": ({"driver_id": [1, 2], "x": [1]}, ValueError, "differ in length"),
    "null": ([{"driver_id": None}], KeyError, "join key `driver_id` is null in row 0"),
    "NaN": ([{"driver_id": math.nan}], KeyError, "is null in row 0"),
    "NaT": ([{"driver_id": 1}, {"driver_id": pd.NaT}], KeyError, "is null in row 1"),
    "NA": ([{"driver_id": pd.NA}], KeyError, "is null in row 0"),
    "text key": ([{"driver_id": "abc"}], ValueError, "`abc` in row 0, which is not a value of type INT64"),
    "fraction": ([{"driver_id": 1.5}], ValueError, "`1.5` in row 0"),
    "boolean": ([{"driver_id": True}], ValueError, "is Boolean, but INT64 is expected"),
    "bytes": ([{"driver_id": b"a"}], ValueError, "is Binary, but INT64 is expected"),
    "huge": ([{"driver_id": 2**70}], ValueError, "1180591620717411303424"),
    "list": ([{"driver_id": [1]}], ValueError, "`[1]` in row 0"),
    "dictionary": ([{"driver_id": {1: 1}}], ValueError, "is not a value of type INT64"),
    "object": ([{"driver_id": object()}], ValueError, "a value of type `object`"),
    "mixed": ([{"driver_id": 1}, {"driver_id": "a"}], ValueError, "`a` in row 1"),
    "time": ([{"driver_id": T0}], ValueError, "but INT64 is expected"),
    "broken text": ([{"driver_id": "\ud800"}], ValueError, "not valid Unicode"),
}


@pytest.mark.parametrize("name", ENTITIES)
def test_wrong_online_requests_are_refused(name, shared):
    rows, kind, expected = ENTITIES[name]
    with pytest.raises(kind) as caught:
        shared.get_online_features(TRIPS, rows)
    says_how(caught.value, expected)


# Pushed rows

PUSHED = {
    "driver_id": [1001],
    "event_timestamp": [T0 + timedelta(hours=5)],
    "created": [T0],
    "conv_rate": [0.5],
    "trips": [5],
    "city": ["x"],
}


def pushed(*left_out: str, **changed: Any) -> pd.DataFrame:
    columns = PUSHED | changed
    return pd.DataFrame({name: values for name, values in columns.items() if name not in left_out})


PUSHES: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "no key": (lambda: pushed("driver_id"), FeastEntityDFMissingColumnsError, "lack `driver_id`"),
    "no time": (lambda: pushed("event_timestamp"), FeastEntityDFMissingColumnsError, "lack `event_timestamp`"),
    "no created time": (lambda: pushed("created"), FeastEntityDFMissingColumnsError, "lack `created`"),
    "no feature": (lambda: pushed("trips"), FeastEntityDFMissingColumnsError, "lack `trips`"),
    "no columns": (pd.DataFrame, FeastEntityDFMissingColumnsError, "lack `driver_id`, `conv_rate`"),
    "null key": (lambda: pushed(driver_id=[None]), KeyError, "join key `driver_id` is null in row 0"),
    "null time": (lambda: pushed(event_timestamp=[None]), EntityDFNotDateTime, "is null in row 0"),
    "NaT": (lambda: pushed(event_timestamp=[pd.NaT]), EntityDFNotDateTime, "is null in row 0"),
    "text time": (lambda: pushed(event_timestamp=["x"]), ValueError, "`event_timestamp` has `x` in row 0"),
    "text": (lambda: pushed(trips=["abc"]), ValueError, "`trips` has `abc` in row 0"),
    "fraction": (lambda: pushed(trips=[5.5]), ValueError, "`5.5` in row 0"),
    "infinity": (lambda: pushed(trips=[math.inf]), ValueError, "`inf` in row 0"),
    "huge": (lambda: pushed(trips=[2**70]), ValueError, "column `trips` of `df`"),
    "list": (lambda: pushed(trips=[[1]]), ValueError, "`trips` is List(Int64), but INT64 is expected"),
    "boolean": (lambda: pushed(trips=[True]), ValueError, "`trips` is Boolean"),
    "too large": (lambda: pushed(conv_rate=[1e300]), ValueError, "not a value of type FLOAT"),
    "broken bytes": (lambda: pushed(city=[b"\xff"]), ValueError, "not a value of type STRING"),
    "number": (lambda: 5, TypeError, "is of class int"),
    "nothing": (lambda: None, TypeError, "is of class NoneType"),
    "rows": (lambda: [PUSHED], TypeError, "is of class list"),
}


@pytest.mark.parametrize("to", [PushMode.ONLINE, PushMode.ONLINE_AND_OFFLINE])
@pytest.mark.parametrize("name", PUSHES)
def test_wrong_pushes_are_refused(name, to, shared, applied):
    make, kind, expected = PUSHES[name]
    before = (applied / "pushed.parquet").read_bytes()
    with pytest.raises(kind) as caught:
        shared.push("push", make(), to=to)
    says_how(caught.value, expected)
    assert (applied / "pushed.parquet").read_bytes() == before
    answer = shared.get_online_features(["driver_push:trips"], [{"driver_id": 1001}]).to_dict()
    assert answer["trips"] == [30]


APPENDED: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "no feature": (lambda: pushed("trips"), FeastEntityDFMissingColumnsError, "missing `trips`"),
    "another column": (lambda: pushed(extra=[1]), FeastEntityDFMissingColumnsError, "`extra`"),
    "null key": (lambda: pushed(driver_id=[None]), KeyError, "join key `driver_id` is null in row 0"),
    "null time": (lambda: pushed(event_timestamp=[None]), EntityDFNotDateTime, "is null in row 0"),
    "text time": (lambda: pushed(event_timestamp=["x"]), EntityDFNotDateTime, "holds `x`"),
    "text": (lambda: pushed(trips=["abc"]), ValueError, "'abc'"),
    "fraction": (lambda: pushed(trips=[5.5]), ValueError, "holds 5.5, which is not Int64"),
    "list": (lambda: pushed(trips=[[1]]), ValueError, "column `trips`"),
}


@pytest.mark.parametrize("name", APPENDED)
def test_wrong_appends_are_refused(name, shared, applied):
    make, kind, expected = APPENDED[name]
    before = contents(applied)
    calls = (
        lambda: shared.push("push", make(), to=PushMode.OFFLINE),
        lambda: shared.write_to_offline_store("driver_push", make()),
    )
    for call in calls:
        with pytest.raises(kind) as caught:
            call()
        says_how(caught.value, expected)
    assert contents(applied) == before


CALLS: dict[str, tuple[Callable[[FeatureStore], Any], type[Exception], str]] = {
    "unknown push source": (lambda s: s.push("pus", pushed()), PushSourceNotFoundException, "did you mean `push`?"),
    "push nowhere": (lambda s: s.push("push", pushed(), to="nowhere"), ValueError, "`PushMode.ONLINE`"),
    "write to no view": (lambda s: s.write_to_online_store("nope", pushed()), FeatureViewNotFoundException, "`nope`"),
    "write nothing": (lambda s: s.write_to_online_store("driver_stats"), ValueError, "neither is given"),
    "append to no view": (lambda s: s.write_to_offline_store("nope", pushed()), FeatureViewNotFoundException, "`nope`"),
    "append too little": (
        lambda s: s.write_to_offline_store("driver_stats", pushed("trips")),
        FeastEntityDFMissingColumnsError,
        "missing `trips`",
    ),
    "end before start": (lambda s: s.materialize(T0, T0 - HOUR), ValueError, "is after `end_date`"),
    "times as text": (lambda s: s.materialize("x", "y"), TypeError, "`start_date` must be a datetime"),
    "times as dates": (lambda s: s.materialize(date(2020, 1, 1), T0), TypeError, "must be a datetime"),
    "no time": (lambda s: s.materialize_incremental(None), TypeError, "`end_date` must be a datetime"),
    "materialize no view": (lambda s: s.materialize(T0, T0, ["nope"]), FeatureViewNotFoundException, "`nope`"),
    "views as text": (lambda s: s.materialize(T0, T0, "driver_stats"), TypeError, "must be a list of names"),
    "range as text": (
        lambda s: s.get_historical_features(None, TRIPS, start_date="2026-01-01"),
        TypeError,
        "`start_date` must be a datetime",
    ),
    "range backwards": (
        lambda s: s.get_historical_features(None, TRIPS, start_date=T0, end_date=T0 - HOUR).to_df(),
        ValueError,
        "is after the end",
    ),
    "rows and range": (
        lambda s: s.get_historical_features(frame()(), TRIPS, start_date=T0),
        ValueError,
        "cannot be combined",
    ),
    "get no entity": (lambda s: s.get_entity("drivr"), EntityNotFoundException, "did you mean `driver`?"),
    "get no service": (lambda s: s.get_feature_service("x"), FeatureServiceNotFoundException, "`model`"),
    "get a number": (lambda s: s.get_feature_view(5), TypeError, "must be a text, but is 5 (int)"),
    "delete no service": (lambda s: s.delete_feature_service("x"), FeatureServiceNotFoundException, "`model`"),
    "apply nothing": (lambda s: s.apply(None), TypeError, "is not an object of a feature store"),
    "apply text": (lambda s: s.apply(["x"]), TypeError, "is not an object of a feature store"),
    "apply twice": (
        lambda s: s.apply([Entity(name="a"), Entity(name="a", description="b")]),
        ValueError,
        "entity `a` is defined twice",
    ),
    "apply without entity": (
        lambda s: s.apply(
            [FeatureView(name="q", entities=[Entity(name="e")], source=FileSource(name="stats", path="stats.parquet"))]
        ),
        ValueError,
        "refers to entity `e`, which does not exist",
    ),
    "apply another project": (lambda s: s.apply([Project(name="other")]), ValueError, "`other`"),
    "delete what is not there": (
        lambda s: s.apply([], objects_to_delete=[Entity(name="zz")], partial=False),
        EntityNotFoundException,
        "`zz`",
    ),
    "plan nothing": (lambda s: s.plan(None), TypeError, "must be a RepoContents"),
    "save no job": (lambda s: s.create_saved_dataset(5, "x", None), TypeError, "must be a retrieval job"),
    "persist nowhere": (
        lambda s: s.get_historical_features(frame()(), TRIPS).persist(None),
        TypeError,
        "must be a SavedDatasetStorage",
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_wrong_calls_are_refused(name, shared, applied):
    call, kind, expected = CALLS[name]
    before = contents(applied)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(kind) as caught:
            call(shared)
    # What is wrong with definitions is a list, with hints in lines of their own.
    if "\n    hint: " not in str(caught.value):
        says_how(caught.value, expected)
    is_clear(str(caught.value), expected)
    assert contents(applied) == before


# Data that is wrong behind definitions that are right

SOURCES: dict[str, tuple[str | bytes | None, str]] = {
    "gone": (None, "there is no file at `stats.csv`"),
    "no CSV any more": (b"\x00\xff\xfe", "is not a readable CSV file"),
    "no time": (HEADER + "1,yesterday,2020-01-01,5,x\n", "`yesterday`, which is not a time"),
    "no number": (HEADER + "1,2026-11-20,2026-11-20,many,x\n", "`trips`"),
    "a fraction": (HEADER + "1,2026-11-20,2026-11-20,5.5,x\n", "`trips`"),
    "fewer columns": ("driver_id,event_timestamp,created,city\n1,2026-11-20,2026-11-20,x\n", "no column for `trips`"),
}


@pytest.mark.parametrize("name", SOURCES)
def test_wrong_data_is_refused(name, feast, tmp_path):
    data, expected = SOURCES[name]
    write_definitions(tmp_path, {"defs.py": file_source("stats.csv"), "stats.csv": HEADER + "1,2026-11-20,2026-11-20,5,x\n"})
    assert feast.run(tmp_path, "apply")[0] == 0
    registry = (tmp_path / "registry.db").read_bytes()
    (tmp_path / "stats.csv").unlink()
    if data is not None:
        (tmp_path / "stats.csv").write_bytes(data if isinstance(data, bytes) else data.encode())

    feast.refuses(tmp_path, MATERIALIZE, expected)
    rows = '[{"driver_id": 1, "event_timestamp": "2026-11-21T00:00:00Z"}]'
    feast.refuses(tmp_path, ["get-historical-features", "-f", "v:trips", "--dataframe", rows], expected)

    assert (tmp_path / "registry.db").read_bytes() == registry
    code, text = feast.run(tmp_path, "get-online-features", "-e", "driver_id=1", "-f", "v:trips")
    assert (code, '"trips": [\n    null' in text) == (0, True), text


# Registry files


@pytest.fixture
def broken(feast, tmp_path) -> Path:
    """An applied and materialized repository to break."""
    write_definitions(tmp_path, PRELUDE + VIEW)
    assert feast.run(tmp_path, "apply")[0] == 0
    assert feast.run(tmp_path, *MATERIALIZE)[0] == 0
    return tmp_path


def foreign_database() -> bytes:
    connection = sqlite3.connect(":memory:")
    connection.execute("CREATE TABLE t (a)")
    return connection.serialize()


def test_a_registry_file_cut_anywhere_is_refused(feast, broken):
    registry = broken / "registry.db"
    whole = registry.read_bytes()
    for length in range(0, len(whole), 100):
        registry.write_bytes(whole[:length])
        feast.refuses(broken, ["entities", "list"], "registry.db")
        assert registry.read_bytes() == whole[:length]


def test_a_registry_file_of_something_else_is_refused_and_kept(feast, broken):
    registry = broken / "registry.db"
    chance = random.Random(7)
    others = [foreign_database(), b"PK\x03\x04" + bytes(100), b"hello\n", bytes(1000), b"\xff" * 1000]
    others += [chance.randbytes(length) for length in (1, 10, 100, 1000, 10_000)]
    for other in others:
        registry.write_bytes(other)
        before = contents(broken)
        commands = [["entities", "list"], ["plan"], ["apply"], MATERIALIZE, ONLINE, ["teardown"], ["delete", "v"]]
        for command in commands if other is others[0] else commands[:1]:
            feast.refuses(broken, command, "registry.db")
            assert contents(broken) == before


def test_a_registry_file_with_flipped_bytes_never_ends_in_a_panic(feast, broken):
    registry = broken / "registry.db"
    whole = registry.read_bytes()
    chance = random.Random(11)
    for _ in range(40):
        bytes_ = bytearray(whole)
        for _ in range(chance.randrange(1, 5)):
            bytes_[chance.randrange(len(bytes_))] = chance.randrange(256)
        registry.write_bytes(bytes_)
        for command in (["registry-dump"], ["feature-views", "list"], ["plan"], ONLINE):
            code, text = feast.run(broken, *command)
            assert code in (0, 1), text
            is_clear(text)
            assert code == 0 or "hint: " in text, text


def test_a_registry_that_cannot_be_written_stays_as_it_is(feast, broken):
    registry = broken / "registry.db"
    registry.chmod(0o444)
    (broken / "defs.py").write_text(PRELUDE + VIEW + 'extra = Entity(name="extra")\n')
    before = registry.read_bytes()
    tables = tables_of(broken)
    for command in (["apply"], ["delete", "v"], ["teardown"], MATERIALIZE):
        feast.refuses(broken, command, "registry.db` is read-only")
        assert registry.read_bytes() == before
        assert tables_of(broken) == tables
    assert feast.run(broken, "plan")[0] == 0


def test_a_folder_in_place_of_the_registry_is_refused(feast, broken):
    (broken / "registry.db").unlink()
    (broken / "registry.db").mkdir()
    for command in (["entities", "list"], ["plan"], ["apply"], ["teardown"], ONLINE):
        feast.refuses(broken, command, "names a file, such as `data/registry.db`, not a folder")


# Files of the online store


def tables_of(folder: Path) -> list[str]:
    connection = sqlite3.connect(folder / "online.db")
    try:
        return sorted(name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'"))
    finally:
        connection.close()


def without_online_store(folder: Path) -> None:
    for path in folder.glob("online.db*"):
        path.unlink()


READ = ["get-online-features", "-e", "driver_id=1001", "-f", "v:trips"]


def test_a_broken_online_store_is_refused(feast, broken):
    whole = (broken / "online.db").read_bytes()
    registry = (broken / "registry.db").read_bytes()
    others = [whole[:length] for length in (50, 99, 100, 500, 4096, 5000, 8192)]
    others += [random.Random(3).randbytes(5000), b"hello" * 500, bytes(8192)]
    for other in others:
        without_online_store(broken)
        (broken / "online.db").write_bytes(other)
        for command in (READ, MATERIALIZE, ["apply"], ["teardown"]):
            feast.refuses(broken, command, "online store", "online.db")
        assert (broken / "registry.db").read_bytes() == registry


def test_an_online_store_without_our_tables_asks_for_apply(feast, broken):
    for other in (foreign_database(), b"", None):
        without_online_store(broken)
        if other is not None:
            (broken / "online.db").write_bytes(other)
        for command in (READ, MATERIALIZE):
            feast.refuses(broken, command, "has no table in the online store", "run `feast apply`")
        assert feast.run(broken, "apply")[0] == 0
        assert feast.run(broken, *MATERIALIZE)[0] == 0
        assert "30" in feast.run(broken, *READ)[1]


def test_a_folder_in_place_of_the_online_store_leaves_the_registry_alone(feast, broken):
    registry = (broken / "registry.db").read_bytes()
    without_online_store(broken)
    (broken / "online.db").mkdir()
    for command in (READ, MATERIALIZE, ["apply"], ["delete", "v"], ["teardown"]):
        feast.refuses(broken, command, "could not open the online store")
        assert (broken / "registry.db").read_bytes() == registry


def test_reads_go_on_while_another_process_writes(feast, broken):
    other = sqlite3.connect(broken / "online.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    started = time.monotonic()
    assert "30" in feast.run(broken, *READ)[1]
    assert time.monotonic() - started < 5
    other.close()


# Processes that are killed


def test_after_a_kill_the_next_run_is_exact(feast, tmp_path):
    write_definitions(tmp_path, PRELUDE + VIEW)
    n = 20_000
    times = [T0 - timedelta(minutes=i % 5000) for i in range(n)]
    columns = {
        "driver_id": np.arange(n) % 7000,
        "event_timestamp": pa.array(times, pa.timestamp("us", "UTC")),
        "created": pa.array(times, pa.timestamp("us", "UTC")),
        "conv_rate": np.arange(n) * 0.5,
        "trips": np.arange(n),
        "city": [str(i) for i in range(n)],
    }
    pq.write_table(pa.table(columns), tmp_path / "stats.parquet")

    def rows() -> list[tuple[Any, ...]]:
        connection = sqlite3.connect(tmp_path / "online.db")
        query = "SELECT entity_key, feature_name, value, event_ts, event_ts_micros FROM proj_v ORDER BY 1, 2"
        found = connection.execute(query).fetchall()
        connection.close()
        return found

    def timed(*arguments: str) -> float:
        started = time.monotonic()
        assert subprocess.run(command(*arguments), capture_output=True, check=False).returncode == 0
        return time.monotonic() - started

    def command(*arguments: str) -> list[str]:
        return [sys.executable, "-m", "feast._cli", "-c", str(tmp_path), *arguments]

    def killed(after: float, *arguments: str) -> None:
        process = subprocess.Popen(command(*arguments), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            process.wait(after)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    applying, materializing = timed("apply"), timed(*MATERIALIZE)
    expected = rows()
    assert len(expected) == 2 * 7000
    for share in (0.3, 0.6, 0.8, 0.9):
        without_online_store(tmp_path)
        for path in tmp_path.glob("registry.db*"):
            path.unlink()
        killed(applying * share, "apply")
        code, text = feast.run(tmp_path, "apply")
        assert code == 0, text
        killed(materializing * share, *MATERIALIZE)
        code, text = feast.run(tmp_path, *MATERIALIZE)
        assert code == 0, text
        assert rows() == expected
        assert feast.run(tmp_path, "plan", "--exit-code")[0] == 0
        assert not list(tmp_path.glob(".*.tmp"))
