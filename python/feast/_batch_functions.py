"""Runs the functions of batch feature views for the engine in Rust.

The source text of a function comes from the registry, as the definitions were applied. It is compiled here; pickled
code is never loaded.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Callable
from typing import Any

from feast import _frames, _own_thread
from feast._objects import KINDS


def query(kind: str, message: bytes, inputs: list[str]) -> str:
    """The query of a view in mode `sql` whose inputs are tables with these names."""
    view = KINDS[kind].decode(message)
    text = _own_thread.run(lambda: _function(view)(*inputs))
    if not isinstance(text, str):
        raise TypeError(
            f"a function in mode `sql` returns a query as text, but it returned {text!r:.80}"
        )
    return text


def rows(kind: str, message: bytes, inputs: list[Any]) -> Any:
    """The rows that the function of a view returns for pandas frames of its inputs."""
    view = KINDS[kind].decode(message)
    frames = [_frames.to_table(each).to_pandas() for each in inputs]
    returned = _own_thread.run(lambda: _function(view)(*frames))
    if isinstance(returned, list):
        import pyarrow

        return pyarrow.Table.from_pylist(returned)
    if isinstance(returned, dict):
        return _frames.from_columns(returned, "the returned rows")
    return _frames.to_stream(returned, "the returned rows")


def _function(view: Any) -> Callable[..., Any]:
    transformation = getattr(view, "feature_transformation", None)
    text = getattr(transformation, "udf_string", "") or getattr(view, "udf_string", "")
    if not text:
        raise ValueError(
            "the registry has no source text of the function; pass it as `udf_string`, or use the decorator"
        )
    return compiled(text, str(getattr(transformation, "name", "") or ""))


@functools.lru_cache(maxsize=256)
def compiled(text: str, name: str) -> Callable[..., Any]:
    """The function that a source text defines, without its decorators: the one with this name, or the only one."""
    tree = ast.parse(_dedented(text))
    functions = [each for each in tree.body if isinstance(each, ast.FunctionDef)]
    for each in functions:
        each.decorator_list = []
    scope: dict[str, Any] = {"__name__": "feast_transformation"}
    if functions:
        # The registry is trusted with code, as the repository that filled it is.
        exec(compile(tree, "<feature view>", "exec"), scope)  # noqa: S102
        wanted = name if any(each.name == name for each in functions) else functions[-1].name
        return scope[wanted]
    # A lambda, alone or as the value of something.
    found = next((each for each in ast.walk(tree) if isinstance(each, ast.Lambda)), None)
    if found is None:
        raise ValueError("the source text of the function defines no function")
    return eval(compile(ast.Expression(found), "<feature view>", "eval"), scope)


def _dedented(text: str) -> str:
    """The text of a function that was defined inside of something."""
    import textwrap

    return textwrap.dedent(text)
