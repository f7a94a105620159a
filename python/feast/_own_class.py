"""Finds the classes of a team's own that a configuration names; their modules may lie in the feature repository."""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Iterator
from typing import Any


def own_class(path: str, repo_path: str, base: type) -> Any:
    """The class at a dotted path, which has to be derived from `base`."""
    module_name, _, class_name = path.rpartition(".")
    with importable(repo_path):
        try:
            module = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
                raise
            raise ImportError(
                f"there is no module `{module_name}`; install it, or put it into the feature repository"
            ) from error
    found = getattr(module, class_name, None)
    if not isinstance(found, type) or not issubclass(found, base):
        raise TypeError(f"`{path}` is not a subclass of `{base.__module__}.{base.__qualname__}`")
    return found


@contextlib.contextmanager
def importable(folder: str) -> Iterator[None]:
    """Lets modules of a folder be found, after all others."""
    sys.path.append(folder)
    try:
        yield
    finally:
        sys.path.remove(folder)
