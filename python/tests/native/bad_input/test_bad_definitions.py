"""Repositories whose definitions are wrong, or only odd."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest
from inputs import (
    HEADER,
    MATERIALIZE,
    PRELUDE,
    VIEW,
    Files,
    file_source,
    service,
    view,
    write_definitions,
)
from told import SECRET, contents

from feast import FeatureStore

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
        "declares feature `city` as INT64_LIST, but its column in source `stats` (`stats.parquet`) is Utf8",
    ),
    "number over times": (
        view(schema='[schema[0], Field(name="created", dtype=Int64)]').replace(
            ', created_timestamp_column="created"', ""
        ),
        (
            "declares feature `created` as INT64, but its column in source `stats` (`stats.parquet`) is Timestamp",
            "hint: declare it as `UnixTimestamp` or `String`, or change the source",
        ),
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
    "file source without path": (
        PRELUDE + 'FileSource(name="x")\n',
        "a `FileSource` without `path`",
    ),
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


@pytest.mark.parametrize("name", DEFINITIONS)
def test_wrong_definitions_are_refused(name, feast, tmp_path):
    files, expected = DEFINITIONS[name]
    write_definitions(tmp_path, files)
    before = contents(tmp_path)

    text = feast.refuses(
        tmp_path, ["apply"], *([expected] if isinstance(expected, str) else expected)
    )

    # Every problem has a hint of its own.
    assert text.count("hint: ") == sum(line.startswith("  ") for line in text.splitlines()) / 2, (
        text
    )
    assert contents(tmp_path) == before


ODD_NAMES = [
    "a b",
    "a'b",
    'a"b',
    "`a`",
    "ünïcode",
    "🙂",
    "x" * 300,
    "v'; DROP TABLE x; --",
    "a/b",
    "../x",
    "-v",
]


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
        assert store.get_online_features(by_service, [{"driver_id": 1002}]).to_dict()["trips"] == [
            40
        ]
    assert sorted(view.name for view in store.list_feature_views()) == sorted(ODD_NAMES)
    code, text = feast.run(tmp_path, "teardown")
    assert code == 0, text


def test_definitions_that_end_python_leave_half_an_answer_to_nobody(tmp_path):
    write_definitions(
        tmp_path, "import os, signal\nprint('{')\nos.kill(os.getpid(), signal.SIGKILL)\n"
    )
    command = [sys.executable, "-m", "feast._repository", str(tmp_path), "proj"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (-signal.SIGKILL, "")
