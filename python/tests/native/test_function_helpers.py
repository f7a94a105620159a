"""What functions of on-demand views use from around them goes with them, or is refused: never something else."""

from __future__ import annotations

import importlib
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from drivers import write_repository

from feast import FeatureStore
from feast.errors import FeastError

HEAD = """
import collections, dataclasses, datetime as dt, decimal, enum, functools, math, re, uuid
from pathlib import Path
import numpy as np
from feast import Field, RequestSource
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Float64

request = RequestSource(name="request", schema=[Field(name="x", dtype=Float64)])

def view(function):
    decorate = on_demand_feature_view(
        name="v", sources=[request], schema=[Field(name="y", dtype=Float64)], mode="python"
    )
    return decorate(function)
"""
LIBRARY = """
import math
BASE = 10
def root(x):
    return math.sqrt(x) + BASE
"""
# What stands in the module, and what the function makes of 4.
USED = {
    "pattern": ('DIGITS = re.compile(r"\\d")', "len(DIGITS.findall(str(x)))", 2),
    "array": ("WEIGHTS = np.array([[1, 2], [3, 4]], dtype='int16')", "WEIGHTS[1, 1] * x", 16),
    "empty array": ("NONE = np.zeros((0, 3))", "NONE.shape[1] + x", 7),
    "number": ("HALF = np.float32(0.5)", "HALF * x", 2),
    "set": ("ODD = frozenset({1, 3})", "float(x in ODD)", 0),
    "none": ("MODEL = None", "x if MODEL is None else 0", 4),
    "infinite": ("MOST = float('inf')", "min(x, MOST)", 4),
    "time": (
        "START = dt.datetime(2024, 1, 2, tzinfo=dt.timezone(dt.timedelta(hours=5)))",
        "START.utcoffset().seconds / 3600 + x",
        9,
    ),
    "span": ("WEEK = dt.timedelta(days=7)", "WEEK.days + x", 11),
    "decimal": ("PRICE = decimal.Decimal('1.5')", "float(PRICE) + x", 5.5),
    "path": ("PLACE = Path('a') / 'b'", "len(PLACE.parts) + x", 6),
    "default": ("SEEN = collections.defaultdict(int, a=1)", "SEEN['b'] + SEEN['a'] + x", 5),
    "enumeration": (
        "class Color(enum.Enum):\n    RED = 3\nFIRST = Color.RED",
        "FIRST.value + x",
        7,
    ),
    "data class": ("@dataclasses.dataclass\nclass P:\n    a: int = 3", "P().a + x", 7),
    "cached": ("@functools.lru_cache\ndef plus(x):\n    return x + 1", "plus(x)", 5),
    "decorated": (
        "def twice(f):\n    @functools.wraps(f)\n    def g(x):\n        return 2 * f(x)\n    return g\n"
        "@twice\ndef plus(x):\n    return x + 1",
        "plus(x)",
        10,
    ),
    "table of functions": (
        "def plus(x):\n    return x + 1\nBY_NAME = {'plus': plus, 'root': math.sqrt}",
        "BY_NAME['plus'](x) + BY_NAME['root'](x)",
        7,
    ),
    "a name of Python's": ("def hash(x):\n    return -x", "hash(x)", -4),
    "function of the repository": ("from library import root", "root(x)", 12),
    "module of the repository": ("import library", "library.root(x) + library.BASE", 22),
    "package": ("import package.inner", "package.inner.root(x)", 12),
    "module in a helper": (
        "import library as lib\ndef base(x):\n    return lib.BASE + x",
        "base(x) + lib.root(x)",
        26,
    ),
}
READ = """
import sys
from feast import FeatureStore
store = FeatureStore(repo_path=sys.argv[1])
print(store.get_online_features(["v:y"], [{"x": 4.0}]).to_dict()["y"][0])
"""


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of modules that only this process can import."""
    folder = tmp_path / "modules"
    (folder / "package").mkdir(parents=True)
    (folder / "package/__init__.py").touch()
    for name in ("library.py", "package/inner.py"):
        (folder / name).write_text(LIBRARY)
    monkeypatch.syspath_prepend(str(folder))
    yield folder
    for name in ("library", "package", "package.inner", "defined"):
        sys.modules.pop(name, None)


def defined(modules: Path, before: str, what: str) -> Any:
    """The view of a module with a function and what stands before it."""
    text = f"{HEAD}\n{before}\n\n@view\ndef f(i):\n    return {{'y': [{what} for x in i['x']]}}\n"
    (modules / "defined.py").write_text(text)
    importlib.invalidate_caches()
    return importlib.import_module("defined").f


@pytest.mark.parametrize("name", USED)
def test_what_a_function_uses_goes_with_it(name: str, modules: Path, tmp_path: Path) -> None:
    before, what, expected = USED[name]
    view = defined(modules, before, what)
    store = FeatureStore(repo_path=str(write_repository(tmp_path)))
    store.apply([view])
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", READ, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
        env=environment,
    )
    assert (done.stdout.strip(), done.returncode) == (str(float(expected)), 0), done.stderr


def test_a_name_that_means_two_things_is_refused(modules: Path, tmp_path: Path) -> None:
    view = defined(modules, "from library import root\nBASE = 1000", "root(x) + BASE")
    store = FeatureStore(repo_path=str(write_repository(tmp_path)))
    with pytest.raises(FeastError, match="mean two things by `BASE`; rename one"):
        store.apply([view])
    sys.modules.pop("defined")
    same = defined(modules, "from library import root\nBASE = 10", "root(x) + BASE")
    store.apply([same])
    answer = store.get_online_features(["v:y"], [{"x": 4.0}])
    assert answer.to_dict()["y"] == [22.0]


def test_a_view_of_the_registry_can_be_pickled_after_it_was_used(
    modules: Path, tmp_path: Path
) -> None:
    store = FeatureStore(repo_path=str(write_repository(tmp_path)))
    store.apply([defined(modules, "LIMIT = 3", "LIMIT + x")])
    view = store.get_on_demand_feature_view("v")
    assert view.transform_dict({"x": [4]})["y"] == [7]
    again = pickle.loads(pickle.dumps(view))
    assert again == view
    assert again.transform_dict({"x": [4]})["y"] == [7]


def test_a_module_with_a_name_of_the_function_is_imported_whole(
    modules: Path, tmp_path: Path
) -> None:
    before = "import library\ndef root(x):\n    return -library.root(x)"
    view = defined(modules, before, "root(x)")
    store = FeatureStore(repo_path=str(write_repository(tmp_path)))
    store.apply([view])
    answer = store.get_online_features(["v:y"], [{"x": 4.0}])
    assert answer.to_dict()["y"] == [-12.0]


def test_the_same_constants_are_the_same_text_in_every_process(modules: Path) -> None:
    before, what = "WORDS = {'a', 'b', 'c', 'd'}\nTABLE = {frozenset('xyz'): WORDS}", "len(TABLE)"
    body = defined(modules, before, what + " + len(WORDS)").to_proto().SerializeToString()
    show = "import defined, sys; sys.stdout.buffer.write(defined.f.to_proto().SerializeToString())"
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(modules)}
        shown = subprocess.run(
            [sys.executable, "-c", show], capture_output=True, check=True, env=environment
        )
        assert shown.stdout == body
