"""Functions that are plain arithmetic are computed without being called: what comes out is what Python computes, whatever
the values, and every other function is called."""

from __future__ import annotations

import math
import random
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from feast import FeatureStore, Field, RequestSource
from feast.on_demand_feature_view import OnDemandFeatureView
from feast.transformation._expressions import expressions_of
from feast.types import Bool, Float64, Int64, String

Random = random.Random
INPUTS: dict[str, Any] = {
    "a": Int64,
    "b": Int64,
    "x": Float64,
    "y": Float64,
    "flag": Bool,
    "text": String,
}
REQUEST = RequestSource(
    name="vals", schema=[Field(name=name, dtype=dtype) for name, dtype in INPUTS.items()]
)

# Functions of lists, of single rows and of frames that need not be called.
COLUMNS = [
    "return {'out': [a + b for a, b in zip(inputs['a'], inputs['b'])]}",
    "return {'out': inputs['x']}",
    """
    "What it is for."
    import math
    def plus(values: list[int]) -> list[float | None]:
        return [None if rate is None else rate + value for rate, value in zip(inputs["x"], values)]
    out: dict = {"other": plus(inputs["b"])}
    out["out"] = plus(inputs["a"])
    return out
    """,
    """
    factor = -2.5
    rates = inputs["x"]
    return {"out": [None if rate is None else factor * rate for rate in rates]}
    """,
    "return {'out': [inputs['a'][i] * 2 for i in range(len(inputs['a']))]}",
    "return {'out': [x if 0 < x <= 1 else 1.0 for i, x in enumerate(inputs['x'])]}",
    "return {'out': [a // b + a % b for a, b in zip(inputs['a'], inputs['b'])]}",
    "return {'out': [bool(f) and not (t == 'b') for f, t in zip(inputs['flag'], inputs['text'])]}",
    "return {'out': [t + '!' for t in inputs['text']]}",
    "return {'out': [max(a, b, 3) for a, b in zip(inputs['a'], inputs['b'])]}",
    "return {'out': [int(x) + abs(a) for x, a in zip(inputs['x'], inputs['a'])]}",
    "return {'out': [LIMIT if x > LIMIT else twice(x) for x in inputs['x']]}",
]
ROWS = [
    "return {'out': inputs['a'] * inputs['x']}",
    """
    x = inputs["x"]
    if x is None:
        return {"out": None}
    if x < 0:
        x = -x
        kind = 1
    elif x == 0:
        kind = 2
    else:
        kind = 3.5
    x += kind
    return {"out": x}
    """,
]
FRAMES = [
    """
    df = pd.DataFrame()
    df["out"] = inputs["x"] + inputs["a"]
    df["other"] = inputs["x"] * 2
    return df
    """,
    "return pd.DataFrame({'out': inputs['a'] / inputs['b']})",
    "return pd.DataFrame({'out': (inputs['a'] > inputs['b']).astype(int)}, index=inputs.index)",
    """
    inputs["out"] = inputs["x"].fillna(1) - inputs["y"].abs()
    inputs["out"] *= 2.5
    return inputs
    """,
    """
    import pandas
    kept = inputs[["a", "x"]].copy()
    kept["out"] = -kept["a"].astype("float64") / kept["x"]
    return kept
    """,
    "return pd.DataFrame({'out': inputs['a'] >= inputs['x']})",
    "return pd.DataFrame({'out': inputs['a'] * inputs['a']})",
]
# What has to be called: its meaning is not known, or it does something beside.
OTHERS = {
    "columns": [
        "print(1); return {'out': inputs['a']}",
        "return {'out': [round(x, 2) for x in inputs['x']]}",
        "return {'out': [x for x in inputs['x'] if x]}",
        "return {'out': sorted(inputs['a'])}",
        "return {'out': inputs['a'] + inputs['b']}",
        "return {'out': [sum(inputs['a']) for a in inputs['a']]}",
        "return {'out': [x for x in inputs['a'] for y in inputs['b']]}",
        "return {'out': [f'{a}' for a in inputs['a']]}",
        "return {name: values for name, values in inputs.items()}",
        "return {**inputs, 'out': inputs['a']}",
        "inputs['out'] = inputs['a']; return inputs",
        "x = 1; del x; return {'out': inputs['a']}",
        "return {'out': inputs['a']}; yield 1",
        "global LIMIT; LIMIT = 3; return {'out': [a + LIMIT for a in inputs['a']]}",
        "return {'out': [(a := b) for b in inputs['b']]}",
        "return {'out': [a ** 2 for a in inputs['a']]}",
        "return {'out': [CHANGING for a in inputs['a']]}",
        "return {'out': [recurse(a) for a in inputs['a']]}",
        "return {'out': [minimum for a in inputs['a']]}",
        "LIMIT = LIMIT + 1; return {'out': [LIMIT for a in inputs['a']]}",
        "return {'out': [decorated(a) for a in inputs['a']]}",
        "return {'out': [late(a) for a in inputs['a']]}",
        "return {'out': [a for a, b in inputs['a']]}",
        "x = inputs; return {'out': list(map(abs, inputs['a']))}",
        "try:\n        return {'out': inputs['a']}\n    except Exception:\n        raise",
        "for a in inputs['a']:\n        pass\n    return {'out': inputs['a']}",
        "return {'out': [a is b for a, b in zip(inputs['a'], inputs['b'])]}",
        "return {'out': [a in (1, 2) for a in inputs['a']]}",
        "return {'out': inputs.get('a')}",
        "return {'out': inputs['a'] if True else unknown}",
        "return",
        "pass",
    ],
    "rows": [
        "return inputs",
        "return {'out': [inputs['a']]}",
        "return {'out': len(inputs['text'])}",
    ],
    "frame": [
        "return inputs.assign(out=inputs['a'])",
        "return inputs[inputs['a'] > 1]",
        "df = pd.DataFrame(); df['out'] = 1; return df",
        "return pd.DataFrame({'out': inputs['a'].cumsum()})",
        "return pd.DataFrame({'out': inputs['a'] // inputs['b']})",
        "return pd.DataFrame({'out': inputs['x'].mean()}, index=inputs.index)",
        "return pd.DataFrame({'out': inputs['x'].fillna(method='ffill')})",
        "return pd.DataFrame({'out': inputs['x'].astype('float32')})",
        "return pd.DataFrame({'out': inputs['x']}, index=[2, 1, 0])",
    ],
}
HELPERS = """\
LIMIT = 0.5
CHANGING = 1
CHANGING = 2
minimum = min
def twice(value):
    doubled = value * 2
    return doubled
def recurse(value):
    return recurse(value)
@str
def decorated(value):
    return value
def late(value):
    return value + LIMIT if value else 0
    LIMIT = 3
"""
MODES = {"columns": COLUMNS, "rows": ROWS, "frame": FRAMES}


def source_of(body: str) -> str:
    return "def function(inputs):\n" + textwrap.indent(textwrap.dedent(body).strip("\n"), "    ")


def program(source: str, mode: str) -> str | None:
    return expressions_of("function", source, b"\n# feast-rs helpers\n" + HELPERS.encode(), mode)


def function_of(source: str) -> Callable[[Any], Any]:
    namespace: dict[str, Any] = {"pd": pd}
    exec(HELPERS + source, namespace)  # noqa: S102
    return namespace["function"]  # type: ignore[no-any-return]


@pytest.mark.parametrize("mode", OTHERS)
def test_a_function_whose_meaning_is_not_known_is_called(mode: str) -> None:
    for body in OTHERS[mode]:
        source = "def function(inputs):\n    " + body
        assert program(source, mode) is None, body
    # What it is given decides what its operators mean.
    assert program(source_of(FRAMES[0]), "columns") is None


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("expressions")
    (folder / "feature_store.yaml").write_text(
        "project: p\nregistry: registry.db\nonline_store: {type: sqlite, path: online.db}\n"
    )
    return folder


def served(
    folder: Path, mode: str, sources: dict[str, str], dtype: Any, rows: list[dict[str, Any]]
) -> dict[str, Any]:
    """What the views of these functions give for rows; an exception for those that fail."""
    views = []
    for name, source in sources.items():
        views.append(
            OnDemandFeatureView(
                name=name,
                sources=[REQUEST],
                schema=[Field(name="out", dtype=dtype)],
                udf=function_of(source),
                udf_string=f"{HELPERS}\n{source}",
                mode="pandas" if mode == "frame" else "python",
                singleton=mode == "rows",
            )
        )
    store = FeatureStore(repo_path=str(folder))
    store.apply(views, skip_feature_view_validation=True)
    answers: dict[str, Any] = {}
    for name in sources:
        try:
            answer = store.get_online_features(features=[f"{name}:out"], entity_rows=rows)
            answers[name] = answer.to_dict()["out"]
        except Exception as error:
            answers[name] = error
    return answers


def computed(mode: str, source: str, rows: list[dict[str, Any]]) -> Any:
    """What Python computes."""
    function = function_of(source)
    if mode == "rows":
        return [function(dict(row))["out"] for row in rows]
    columns = {name: [row[name] for row in rows] for name in INPUTS}
    if mode == "columns":
        return function(columns)["out"]
    frame = pd.DataFrame(columns)
    for name in ("a", "b", "x", "y"):
        missing = any(one is None for one in columns[name])
        frame[name] = frame[name].astype("float64" if missing or name in "xy" else "int64")
    values = function(frame)["out"].tolist()
    return [None if isinstance(one, float) and math.isnan(one) else one for one in values]


def check(mode: str, source: str, rows: list[dict[str, Any]], found: Any, as_type: type) -> None:
    try:
        values = computed(mode, source, rows)
        if any(isinstance(one, int) and not -(2**63) <= one < 2**63 for one in values):
            raise OverflowError
        expected = [None if one is None else as_type(one) for one in values]
    except Exception as error:
        assert isinstance(found, Exception), f"{source}\nraises {error!r}, found {found}"
        return
    assert not isinstance(found, Exception), f"{source}\ngives {expected}, found {found}"

    def none(one: Any) -> bool:
        return isinstance(one, float) and math.isnan(one)

    same = [one == other or none(one) and none(other) for one, other in zip(found, expected)]
    assert len(found) == len(expected) and all(same), f"{source}\ngives {expected}, found {found}"
    signs = [math.copysign(1, one) for one in found if isinstance(one, float)]
    assert signs == [math.copysign(1, one) for one in expected if isinstance(one, float)], source


def rows_of(chance: Random, missing: float) -> list[dict[str, Any]]:
    values: dict[str, Callable[[], Any]] = {
        "a": lambda: chance.choice([0, 1, -7, 9, 2**53 + 1, 2**63 - 1, -(2**63)]),
        "b": lambda: chance.choice([0, 2, -3, 5, 10]),
        "x": lambda: chance.choice([0.0, -0.0, 0.5, -1.5, 1e308, float("inf"), float("nan")]),
        "y": lambda: chance.uniform(-3, 3),
        "flag": lambda: chance.random() < 0.5,
        "text": lambda: chance.choice(["", "a", "b", "Zürich"]),
    }
    return [
        {name: None if chance.random() < missing else value() for name, value in values.items()}
        for _ in range(chance.randrange(1, 5))
    ]


@pytest.mark.parametrize("mode", MODES)
def test_what_is_computed_is_what_python_computes(folder: Path, mode: str) -> None:
    chance = Random(mode)
    types: list[tuple[Any, type]] = [(Float64, float), (Int64, int), (Bool, bool), (String, str)]
    for number, body in enumerate(MODES[mode]):
        source = source_of(body)
        assert program(source, mode), source
        found_one = False
        for dtype, as_type in types:
            for missing in (0, 0, 0.2):
                rows = rows_of(chance, missing)
                try:
                    values = computed(mode, source, rows)
                except Exception:
                    values = []
                fits = {float: (int, float), int: int, bool: bool, str: str}[as_type]
                if any(
                    one is not None
                    and (not isinstance(one, fits) or isinstance(one, bool) != (as_type is bool))
                    for one in values
                ):
                    # How types that were not declared are refused is tested elsewhere.
                    continue
                name = f"{mode}_{number}_{as_type.__name__}"
                found = served(folder, mode, {name: source}, dtype, rows)[name]
                check(mode, source, rows, found, as_type)
                found_one = found_one or not isinstance(found, Exception)
        assert found_one, source


def random_cell(chance: Random, depth: int) -> str:
    """An expression of single values."""
    if depth == 0 or chance.random() < 0.15:
        return chance.choice(["a", "b", "x", "y", "flag", "1", "0", "-2", "2.5", "None", "True"])
    inner = lambda: random_cell(chance, depth - 1)
    return chance.choice(
        [
            lambda: f"({inner()} {chance.choice(['+', '-', '*', '/', '//', '%'])} {inner()})",
            lambda: f"({inner()} {chance.choice(['<', '<=', '==', '!=', '>', '>='])} {inner()})",
            lambda: f"({inner()} < {inner()} <= {inner()})",
            lambda: f"({inner()} if {inner()} else {inner()})",
            lambda: f"(0 if {inner()} is None else {inner()})",
            lambda: f"({inner()} {chance.choice(['and', 'or'])} {inner()})",
            lambda: f"(not {inner()})",
            lambda: f"(-{inner()})",
            lambda: f"{chance.choice(['abs', 'float', 'int', 'bool'])}({inner()})",
            lambda: f"{chance.choice(['min', 'max'])}({inner()}, {inner()})",
        ]
    )()


def random_series(chance: Random, depth: int) -> str:
    """An expression of columns of a frame."""
    if depth == 0:
        return f"inputs['{chance.choice('abxy')}']"
    inner = lambda: random_series(chance, depth - 1)
    return chance.choice(
        [
            lambda: f"({inner()} {chance.choice('+-*/')} {inner()})",
            lambda: f"({inner()} {chance.choice('+-*/')} {chance.choice(['2', '-0.5', '0'])})",
            lambda: f"({chance.choice(['2', '-0.5', '0'])} {chance.choice('+-*/')} {inner()})",
            lambda: (
                f"({inner()} {chance.choice(['<', '<=', '==', '!=', '>', '>='])} {inner()}).astype(int)"
            ),
            lambda: f"(-{inner()})",
            lambda: f"{inner()}.abs()",
            lambda: f"{inner()}.fillna({chance.choice(['0', '1.5'])})",
            lambda: f"{inner()}.astype({chance.choice(['float', repr('int64'), 'np.float64'])})",
        ]
    )()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_random_functions_give_what_python_gives(folder: Path, mode: str, seed: int) -> None:
    chance = Random(f"{mode} {seed}")
    rows = rows_of(chance, 0.1 if seed else 0)
    sources: dict[str, str] = {}
    for number in range(60):
        depth = chance.randrange(1, 4)
        if mode == "frame":
            body = f"import numpy as np\nreturn pd.DataFrame({{'out': {random_series(chance, depth)}}})"
        else:
            cell = random_cell(chance, depth)
            names = [name for name in INPUTS if name != "text"]
            if mode == "rows":
                given = "\n".join(f"{name} = inputs['{name}']" for name in names)
                body = f"{given}\nreturn {{'out': {cell}}}"
            else:
                columns = ", ".join(f"inputs['{name}']" for name in names)
                body = f"return {{'out': [{cell} for {', '.join(names)} in zip({columns})]}}"
        source = source_of(body)
        assert program(source, mode), source
        try:
            values = computed(mode, source, rows)
        except Exception:
            values = []
        # Only numbers: how a result of another type is refused is tested elsewhere.
        if all(
            one is None or isinstance(one, (int, float)) and not isinstance(one, bool)
            for one in values
        ):
            sources[f"{mode}_{seed}_{number}"] = source
    assert len(sources) > 20
    found = served(folder, mode, sources, Float64, rows)
    fine = sum(not isinstance(one, Exception) for one in found.values())
    assert fine > 10
    for name, source in sources.items():
        check(mode, source, rows, found[name], float)
