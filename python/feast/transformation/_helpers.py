"""What a function uses from its module, as source text: imports, helper functions and constants.

The registry keeps the text of the function itself. What that text takes from around it is lost there; this finds it, so
that the function runs where its module is not.
"""

from __future__ import annotations

import ast
import builtins
import copy
import importlib
import inspect
import re
import sys
import sysconfig
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from types import FunctionType, ModuleType
from typing import Any

from feast.errors import FeastError
from feast.transformation._constants import NoExpression, expression
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
        found = _Found()
        _collect(_names(text, known), text, known, found)
    except (SyntaxError, TypeError, ValueError):
        # No text of a function at all: loading it says so.
        return ""
    spaces = [f"{name} = {_space(uses)}" for name, uses in found.modules.items()]
    return "\n".join(dict.fromkeys([*found.texts.values(), *spaces]))


@dataclass
class _Found:
    """What is needed, by name."""

    texts: dict[str, str] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)
    modules: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What is used of modules that are not installed: names, or names of modules in them and what is used of those."""

    def means(self, name: str, value: Any) -> None:
        """Sees to it that a name stands for one thing."""
        if not _is_same(self.values.setdefault(name, value), value):
            raise _TwoOfAName(
                f"its function and what it uses of other modules mean two things by `{name}`; rename one"
            )

    def takes_parts(
        self, name: str, module: ModuleType, paths: list[tuple[str, ...]] | None
    ) -> bool:
        """Whether what is used of a module could be found; otherwise nothing has changed."""
        before = dict(self.texts), dict(self.values), copy.deepcopy(self.modules)
        try:
            # Functions use different parts of one module.
            if _take_parts(module, paths, self, self.modules.setdefault(name, {})):
                return True
        except _TwoOfAName:
            pass
        self.texts, self.values, self.modules = before
        return False


class _TwoOfAName(FeastError):
    """The functions of two modules mean different things by one name, and would see one of them."""


def _collect(names: list[str], text: str, known: dict[str, Any], found: _Found) -> None:
    # Parts of modules last: where they are called like what is here, the module is imported whole.
    for name in sorted(names, key=lambda name: _is_of_repository(known.get(name))):
        if name not in known or _is_common(name, known[name]):
            continue
        value = known[name]
        found.means(name, value)
        if _is_of_repository(value) and found.takes_parts(name, value, _paths(text, name)):
            continue
        if name in found.texts:
            continue
        found.texts[name] = ""  # Functions may call each other.
        try:
            made = _source(name, value, found)
        except (NoExpression, SyntaxError, TypeError, ValueError, OSError):
            # The function may never come to it; if it needs it, loading the function says so.
            made = ""
        # After what it needs itself.
        del found.texts[name]
        if made:
            found.texts[name] = made


def _names(text: str, known: dict[str, Any], own: str = "") -> list[str]:
    """Names that a text takes from around it, also those that a module has given another meaning than Python."""
    hidden = (
        name
        for name, value in list(vars(builtins).items())
        if name[0] != "_"
        and known.get(name, value) is not value
        and re.search(rf"\b{name}\b", text)
    )
    return [name for name in dict.fromkeys([*names_used(text), *hidden]) if name != own]


def _is_same(one: Any, other: Any) -> bool:
    if one is other:
        return True
    if isinstance(one, (FunctionType, ModuleType, type)) or type(one) is not type(other):
        return False
    try:
        return expression(one, _no_name) == expression(other, _no_name)
    except NoExpression:
        return False


def _no_name(part: Any) -> str:
    raise NoExpression


def _is_common(name: str, value: Any) -> bool:
    try:
        # A constant may be `None`, which is what `common` says of names it does not know.
        return value is not None and common(name) is value
    except ImportError:
        return False


def _source(name: str, value: Any, found: _Found) -> str:
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
    # What a decorator has made of a function knows the function.
    plain = inspect.unwrap(value) if callable(value) else value
    if isinstance(plain, (FunctionType, type)) and isinstance(own, str) and "." not in own:
        text = textwrap.dedent(inspect.getsource(value))
        inner = (
            plain.__globals__
            if isinstance(plain, FunctionType)
            else vars(sys.modules[plain.__module__])
        )
        used = (
            [*_decorators(text), *_names(text, inner)] if own != "<lambda>" else _names(text, inner)
        )
        _collect([one for one in used if one != own], text, dict(inner), found)
        if own == "<lambda>":
            return f"{name} = {lambda_in(text)}"
        found.means(own, value)
        text = text.rstrip()
        return f"{text}\n" if own == name else f"{text}\n{name} = {own}\n"

    def named(part: Any) -> str:
        """A function, a class or a member of an enumeration inside of a value."""
        owner = type(part) if isinstance(part, Enum) else part
        own, place = getattr(owner, "__name__", ""), getattr(owner, "__module__", None)
        if owner is part and isinstance(place, str) and own and _is_installed(place, own, owner):
            return f'__import__("importlib").import_module("{place}").{own}'
        if not isinstance(owner, (FunctionType, type)) or not own.isidentifier():
            raise NoExpression
        _collect([own], "", {own: owner}, found)
        if not found.texts.get(own):
            raise NoExpression
        return f"{own}.{part.name}" if isinstance(part, Enum) else own

    return f"{name} = {expression(value, named)}"


def _decorators(text: str) -> Iterator[str]:
    for node in ast.parse(text).body:
        if isinstance(node, ast.FunctionDef):
            for decorator in node.decorator_list:
                yield from (one.id for one in ast.walk(decorator) if isinstance(one, ast.Name))


# --- modules of a repository, which are not where a server runs


def _is_of_repository(value: Any) -> bool:
    return isinstance(value, ModuleType) and not _is_from_package(value)


def _is_from_package(module: ModuleType) -> bool:
    file = getattr(module, "__file__", None)
    # A folder without `__init__.py` has no file, but places.
    places = [file] if file else list(getattr(module, "__path__", []))
    return all(place.startswith(_INSTALLED) or "site-packages" in place for place in places)


def _paths(text: str, name: str) -> list[tuple[str, ...]] | None:
    """What a text uses of a module, such as `("util", "helper")` of `lib`; None when it uses the module itself."""
    try:
        tree = ast.parse(textwrap.dedent(text))
    except SyntaxError:
        return None
    paths = []
    # Parts of what was seen already: outer nodes come first.
    inner: set[int] = set()
    for node in ast.walk(tree):
        if id(node) in inner:
            continue
        path: list[str] = []
        part: ast.AST = node
        while isinstance(part, ast.Attribute):
            path.insert(0, part.attr)
            part = part.value
            inner.add(id(part))
        if isinstance(part, ast.Name) and part.id == name:
            if not path:
                return None
            paths.append(tuple(path))
    return paths


def _take_parts(
    module: ModuleType,
    paths: list[tuple[str, ...]] | None,
    found: _Found,
    uses: dict[str, Any],
) -> bool:
    for path in paths if paths is not None else [()]:
        if not path:
            return False
        first, rest = path[0], path[1:]
        value = getattr(module, first, None)
        if _is_of_repository(value):
            if not _take_parts(value, [rest], found, uses.setdefault(first, {})):
                return False
            continue
        _collect([first], "", vars(module), found)
        if not found.texts.get(first):
            return False
        uses[first] = None
    return True


def _space(uses: dict[str, Any]) -> str:
    parts = (f"{name}={name if inner is None else _space(inner)}" for name, inner in uses.items())
    return f'__import__("types").SimpleNamespace({", ".join(parts)})'


def _is_installed(module: str, name: str, value: Any) -> bool:
    """Whether a name can be imported anywhere that has the same packages."""
    loaded = sys.modules.get(module)
    if loaded is None:
        return False
    file = getattr(loaded, "__file__", None)
    installed = file is None or file.startswith(_INSTALLED) or "site-packages" in file
    return installed and getattr(importlib.import_module(module), name, None) is value
