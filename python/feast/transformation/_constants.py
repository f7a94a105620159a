"""Constants of a module as expressions, for functions that are loaded where the module is not."""

from __future__ import annotations

import collections
import datetime
import decimal
import fractions
import math
import pathlib
import re
import sys
import uuid
import zoneinfo
from collections.abc import Callable
from typing import Any

# Characters in an expression: what is larger is data, and belongs into a file.
_MOST = 100_000
_DEEPEST = 20
_FACTORIES = (int, float, str, list, dict, set, bool, tuple)


class NoExpression(Exception):
    """A value that cannot be written down."""


def expression(value: Any, named: Callable[[Any], str]) -> str:
    """Source text that makes an equal value with builtins alone; the same for the same value in every process.

    `named` gives the name of what is defined elsewhere, or raises `NoExpression`.
    """
    text = _expression(value, named, 0)
    if len(text) > _MOST:
        raise NoExpression
    return text


def _expression(value: Any, named: Callable[[Any], str], depth: int) -> str:
    if depth > _DEEPEST:
        raise NoExpression

    def of(part: Any) -> str:
        return _expression(part, named, depth + 1)

    kind = type(value)
    simple = _SIMPLE.get(kind)
    if simple is not None:
        return simple(value)
    if kind is list:
        return f"[{', '.join(map(of, value))}]"
    if kind is tuple:
        return f"({', '.join(map(of, value))}{',' if len(value) == 1 else ''})"
    if kind is dict:
        return _mapping(value, of)
    if kind is set or kind is frozenset:
        # Sets have another order in each process.
        return f"{kind.__name__}([{', '.join(sorted(map(of, value)))}])"
    if kind is collections.OrderedDict or kind is collections.Counter:
        return f"{_imported('collections')}.{kind.__name__}({_mapping(value, of)})"
    if kind is collections.defaultdict and value.default_factory in (None, *_FACTORIES):
        factory = value.default_factory
        made = "None" if factory is None else factory.__name__
        return f"{_imported('collections')}.defaultdict({made}, {_mapping(value, of)})"
    if isinstance(value, pathlib.PurePath):
        return f"{_imported('pathlib')}.{'Path' if isinstance(value, pathlib.Path) else 'PurePath'}({str(value)!r})"
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(value, (numpy.ndarray, numpy.generic)):
        if value.dtype.kind not in "biufcUS" or value.size > _MOST:
            raise NoExpression
        array = f"{_imported('numpy')}.array({of(value.tolist())}, dtype={value.dtype.str!r})"
        if kind is numpy.ndarray:
            return f"{array}.reshape({value.shape!r})"
        if isinstance(value, numpy.generic):
            return f"{array}[()]"
    return named(value)


def _mapping(value: dict[Any, Any], of: Callable[[Any], str]) -> str:
    return f"{{{', '.join(f'{of(name)}: {of(one)}' for name, one in value.items())}}}"


def _imported(module: str) -> str:
    # By no name, since the function may use each for something else.
    return f'__import__("{module}")'


def _float(value: float) -> str:
    return repr(value) if math.isfinite(value) else f'float("{value}")'


def _timedelta(value: datetime.timedelta) -> str:
    return f"{_imported('datetime')}.timedelta({value.days}, {value.seconds}, {value.microseconds})"


def _zone(value: zoneinfo.ZoneInfo) -> str:
    if value.key is None:
        raise NoExpression
    return f"{_imported('zoneinfo')}.ZoneInfo({value.key!r})"


def _timezone(value: datetime.timezone) -> str:
    if value is datetime.UTC:
        return f"{_imported('datetime')}.timezone.utc"
    return f"{_imported('datetime')}.timezone({_timedelta(value.utcoffset(None))})"


def _datetime(value: datetime.datetime) -> str:
    naive = value.replace(tzinfo=None, fold=0)
    text = f"{_imported('datetime')}.datetime.fromisoformat({naive.isoformat()!r})"
    zone = value.tzinfo
    if zone is None and value.fold == 0:
        return text
    if zone is not None and type(zone) not in _SIMPLE:
        raise NoExpression
    told = "None" if zone is None else _SIMPLE[type(zone)](zone)
    return f"{text}.replace(tzinfo={told}, fold={value.fold})"


def _pattern(value: re.Pattern[Any]) -> str:
    return f"{_imported('re')}.compile({value.pattern!r}, {value.flags})"


def _from_text(module: str) -> Callable[[Any], str]:
    return lambda value: f"{_imported(module)}.{type(value).__name__}({str(value)!r})"


_SIMPLE: dict[type, Callable[[Any], str]] = {
    type(None): repr,
    bool: repr,
    int: repr,
    str: repr,
    bytes: repr,
    range: repr,
    float: _float,
    complex: lambda value: f"complex({_float(value.real)}, {_float(value.imag)})",
    datetime.timedelta: _timedelta,
    datetime.date: lambda value: (
        f"{_imported('datetime')}.date({value.year}, {value.month}, {value.day})"
    ),
    datetime.time: lambda value: (
        f"{_imported('datetime')}.time.fromisoformat({value.isoformat()!r})"
    ),
    datetime.datetime: _datetime,
    datetime.timezone: _timezone,
    zoneinfo.ZoneInfo: _zone,
    re.Pattern: _pattern,
    decimal.Decimal: _from_text("decimal"),
    fractions.Fraction: _from_text("fractions"),
    uuid.UUID: _from_text("uuid"),
}
