"""What a function uses from its module, as source text: imports, helper functions and constants.

The registry keeps the text of the function itself. What that text takes from around it is lost there; this finds it, so
that the function runs where its module is not.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import sys
import sysconfig
import textwrap
from collections.abc import Callable
from types import FunctionType, ModuleType
from typing import Any

from feast.transformation._functions import common, lambda_in, names_used

_INSTALLED = tuple(
    path
    for name, path in sysconfig.get_paths().items()
    if name in ("stdlib", "platstdlib", "purelib", "platlib")
)


def helpers_of(function: Callable[..., Any], text: str) -> str:
    """The source text of what a function needs beside its own; empty when it needs nothing, or it cannot be told."""
    try:
        known = {
            **getattr(function, "__globals__", {}),
            **inspect.getclosurevars(function).nonlocals,
        }
        found: dict[str, str] = {}
        _collect(names_used(text), known, found)
    except (SyntaxError, TypeError, ValueError):
        # No text of a function at all: loading it says so.
        return ""
    return "\n".join(dict.fromkeys(found.values()))


class _Unknown(Exception):
    """Something has no source text."""


def _collect(names: list[str], known: dict[str, Any], found: dict[str, str]) -> None:
    for name in names:
        if name in found or name not in known or _is_common(name, known[name]):
            continue
        found[name] = ""  # Functions may call each other.
        try:
            text = _source(name, known[name], found)
        except (_Unknown, SyntaxError, TypeError, ValueError, OSError):
            # The function may never come to it; if it needs it, loading the function says so.
            text = ""
        # After what it needs itself.
        del found[name]
        if text:
            found[name] = text


def _is_common(name: str, value: Any) -> bool:
    try:
        # A constant may be `None`, which is what `common` says of names it does not know.
        return value is not None and common(name) is value
    except ImportError:
        return False


def _source(name: str, value: Any, found: dict[str, str]) -> str:
    if isinstance(value, ModuleType):
        return (
            f"import {value.__name__} as {name}"
            if "." in value.__name__ or value.__name__ != name
            else f"import {name}"
        )
    module, own = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
    if (
        isinstance(module, str)
        and isinstance(own, str)
        and "." not in own
        and _is_installed(module, own, value)
    ):
        return (
            f"from {module} import {own} as {name}"
            if own != name
            else f"from {module} import {own}"
        )
    if isinstance(value, (FunctionType, type)) and isinstance(own, str) and "." not in own:
        text = textwrap.dedent(inspect.getsource(value))
        inner = (
            value.__globals__
            if isinstance(value, FunctionType)
            else vars(sys.modules[value.__module__])
        )
        _collect([one for one in names_used(text) if one != own], dict(inner), found)
        if own == "<lambda>":
            return f"{name} = {lambda_in(text)}"
        text = text.rstrip()
        return f"{text}\n" if own == name else f"{text}\n{name} = {own}\n"
    text = repr(value)
    if len(text) < 100_000 and ast.literal_eval(text) == value:
        return f"{name} = {text}"
    raise _Unknown


def _is_installed(module: str, name: str, value: Any) -> bool:
    """Whether a name can be imported anywhere that has the same packages."""
    loaded = sys.modules.get(module)
    if loaded is None:
        return False
    file = getattr(loaded, "__file__", None)
    installed = file is None or file.startswith(_INSTALLED) or "site-packages" in file
    return installed and getattr(importlib.import_module(module), name, None) is value
