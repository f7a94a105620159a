"""Plain classes for the settings of stores, registries and engines.

A subclass declares its keys as annotated class attributes; the attribute's value is the default, and a key without
one is required. Only the shape is checked here (unknown and missing keys): what a value may be is decided by the
engine that uses it, in one place for `feature_store.yaml` and for Python.
"""

from __future__ import annotations

import copy
import difflib
import re
from enum import Enum
from os import PathLike
from typing import Any, ClassVar

from feast.errors import FeastError

_SECRET_NAME = re.compile(
    r"password|passphrase|secret|token$|api_key|private_key|credential", re.IGNORECASE
)
_SECRET_IN_TEXT = re.compile(
    r"(://[^/\s:@]*:)\S+(?=@)|((?:password|pwd|secret|token)=)[^,;&\s]+", re.IGNORECASE
)


class FeastConfigError(FeastError, ValueError):
    """A configuration that cannot be used: says which key, what was found and what was expected."""

    def __init__(self, error_message: object, config_path: object = None):
        self._error_message = error_message
        self._config_path = config_path
        super().__init__(str(error_message))

    def __str__(self) -> str:
        if self._config_path is None:
            return str(self._error_message)
        return f"{self._error_message}\nat {self._config_path}"

    def __repr__(self) -> str:
        return f"FeastConfigError({self._error_message!r}, {self._config_path!r})"

    def __reduce__(self) -> tuple:
        return (type(self), (self._error_message, self._config_path))


def did_you_mean(word: str, known: Any) -> str:
    """`` (did you mean `x`?)`` when one of the known words is close, else nothing."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f" (did you mean `{close[0]}`?)" if close else ""


def mask_secrets(key: str, value: Any) -> Any:
    """The value as it may be printed: secrets replaced, nested settings included."""
    if isinstance(value, dict):
        return {inner: mask_secrets(str(inner), item) for inner, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [mask_secrets(key, item) for item in value]
    if value is not None and _SECRET_NAME.search(key):
        return "***"
    if isinstance(value, str):
        return _SECRET_IN_TEXT.sub(lambda found: f"{found[1] or found[2]}***", value)
    return value


def plain(value: Any) -> Any:
    """The value in the words of YAML: mappings, lists, text, numbers, booleans, null."""
    if isinstance(value, Settings):
        return value.model_dump(exclude_unset=True, by_alias=True)
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [plain(item) for item in value]
    if isinstance(value, Enum):
        return plain(value.value)
    if isinstance(value, PathLike):
        return str(value)
    if isinstance(value, bytes):
        return value.decode()
    if hasattr(value, "model_dump"):  # a user's own pydantic settings
        return plain(value.model_dump(exclude_unset=True))
    return value


class Settings:
    """Base class of all settings classes."""

    _aliases: ClassVar[dict[str, str]] = {}
    _fields: ClassVar[tuple[str, ...]] = ()
    _defaults: ClassVar[dict[str, Any]] = {}
    _extra: ClassVar[str] = "forbid"

    def __init_subclass__(cls, extra: str | None = None, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if extra is not None:
            cls._extra = extra
        fields: dict[str, None] = {}
        defaults: dict[str, Any] = {}
        for base in reversed(cls.__mro__[1:]):
            if issubclass(base, Settings):
                fields |= dict.fromkeys(base._fields)
                defaults |= base._defaults
        for name, kind in vars(cls).get("__annotations__", {}).items():
            if name.startswith("_") or "ClassVar" in str(kind):
                continue
            fields[name] = None
            if name in vars(cls):
                defaults[name] = vars(cls)[name]
                delattr(cls, name)
            else:
                defaults.pop(name, None)
        cls._fields = tuple(fields)
        cls._defaults = defaults

    def __init__(self, **values: Any) -> None:
        cls = type(self)
        found = {cls._aliases.get(key, key): value for key, value in values.items()}
        if cls._extra != "allow":
            for key in found:
                if key not in cls._fields:
                    valid = ", ".join(f"`{name}`" for name in self._keys())
                    raise FeastConfigError(
                        f"`{cls.__name__}` has no key `{key}`{did_you_mean(key, self._keys())}; its keys are {valid}"
                    )
        missing = [name for name in cls._fields if name not in found and name not in cls._defaults]
        if missing:
            names = ", ".join(f"`{name}`" for name in missing)
            raise FeastConfigError(f"`{cls.__name__}` needs {names}: pass `{missing[0]}=...`")
        self._fill(found)

    @classmethod
    def from_mapping(cls, values: dict[str, Any]) -> Settings:
        """Settings read from a file: taken as they are, because the engine has checked, or will check, them."""
        settings = cls.__new__(cls)
        settings._fill({cls._aliases.get(key, key): value for key, value in values.items()})
        return settings

    def _fill(self, given: dict[str, Any]) -> None:
        defaults = {
            name: copy.deepcopy(type(self)._defaults.get(name)) for name in type(self)._fields
        }
        vars(self).update(defaults | given, _given=set(given))

    def __setattr__(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)
        if not name.startswith("_"):
            self._given.add(name)

    @classmethod
    def _keys(cls) -> list[str]:
        spelled = {name: alias for alias, name in cls._aliases.items()}
        return [spelled.get(name, name) for name in cls._fields]

    @property
    def model_fields_set(self) -> set[str]:
        """Names of the keys that were given, as opposed to left at their defaults."""
        return set(self._given)

    def model_dump(self, *, exclude_unset: bool = False, by_alias: bool = False) -> dict[str, Any]:
        """The settings as a mapping of plain values; `type` (or `registry_type`) is always there."""
        spelled = {name: alias for alias, name in type(self)._aliases.items()} if by_alias else {}
        return {
            spelled.get(name, name): plain(value)
            for name, value in vars(self).items()
            if not name.startswith("_")
            and (not exclude_unset or name in self._given or name in ("type", "registry_type"))
        }

    dict = model_dump

    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other):
            return NotImplemented
        return self.model_dump() == other.model_dump()  # type: ignore[attr-defined]

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        values = ", ".join(
            f"{key}={mask_secrets(key, value)!r}" for key, value in self.model_dump().items()
        )
        return f"{type(self).__name__}({values})"

    __str__ = __repr__
