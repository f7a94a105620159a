"""Loads a repository: imports its Python files and collects the objects they define.

All problems are collected rather than raised, each with the object, the file and line, and how to fix it. Nothing
here imports pandas or Arrow; what a repository's own files import is their affair.

`python -m feast._repository <repository> <project>` prints the result as one JSON object, for programs that are not
Python.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any, NoReturn

from feast._definition import _PACKAGE
from feast._objects import (
    VIEW_KINDS,
    kind_of,
    message_of,
    views_by_name,
    with_nested_sources,
)
from feast._settings import mask_secrets

_IGNORED_AT_ROOT = {".git", ".venv"}
_IGNORED_ANYWHERE = {".ipynb_checkpoints", ".pytest_cache", "__pycache__"}
_PRIVATE = "_feast_repository."
_MISSING_NAME = re.compile(r"cannot import name '([^']+)' from '([^']+)'")
_HALF_IMPORTED = re.compile(
    r"cannot import name '([^']+)' from partially initialized module '([^']+)'"
)
_WRONG_CALL = re.compile(r"(\w+)\.__init__\(\) (.+)")
_CORRECT = "correct the line, or name the file in `.feastignore` if it is no part of the repository"
_LONGEST_REASON = 400

# Modules of earlier loads in this process, by name: a second load must see the files as they are now.
_loaded: dict[str, str] = {}


def load(repo_path: str, project: str) -> dict[str, Any]:
    """Loads a repository.

    Returns `contents` (a serialized `feast.core.Registry`), `locations` (`kind/name` to `file.py:12`) and
    `problems` (each with `object`, `location`, `message` and `hint`). With problems, `contents` holds what could
    be loaded.
    """
    repository = Repository(Path(repo_path))
    repository.load()
    repository.check_project(project)
    return repository.result()


class Repository:
    """A repository while it is loaded."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self.objects: list[Any] = []
        self.problems: list[dict[str, str | None]] = []

    def load(self) -> None:
        """Imports the files and collects their objects."""
        if not self.root.is_dir():
            self._problem(f"repository `{self.root}`", "", "does not exist", "check the path")
            return
        found: list[Any] = []
        with self._surroundings():
            for path in self.files():
                module = self._import(path)
                if module is not None:
                    members = vars(module)
                    found += [members[name] for name in sorted(members) if kind_of(members[name])]
        self.objects = self._without_duplicates(with_nested_sources(found))

    def files(self) -> list[Path]:
        """The Python files that count, in order: all but `__init__.py` and what `.feastignore` names."""
        ignored = self._ignored_by_user()
        found: set[Path] = set()
        visited: set[str] = set()
        for folder, subfolders, names in os.walk(self.root, followlinks=True):
            real = os.path.realpath(folder)
            if real in visited:
                subfolders.clear()
                continue
            visited.add(real)
            subfolders[:] = [name for name in subfolders if not self._is_skipped(folder, name)]
            for name in names:
                if name.endswith(".py") and name != "__init__.py":
                    path = Path(folder, name)
                    if path.is_file() and path.resolve() not in ignored:
                        found.add(path.resolve())
        return sorted(found)

    def check_project(self, project: str) -> None:
        """Checks that the repository agrees with the project of `feature_store.yaml`."""
        projects = [obj for obj in self.objects if kind_of(obj).name == "project"]
        if len(projects) > 1:
            named = " and ".join(f"`{each.name}` (`{self._location(each)}`)" for each in projects)
            self._problem(
                "the repository",
                self._location(projects[1]),
                f"defines {len(projects)} projects, {named}; expected at most one",
                f"keep the one named `{project}`, and give every other project a repository of its own",
            )
        elif projects and projects[0].name != project:
            self._problem(
                f"project `{projects[0].name}`",
                self._location(projects[0]),
                f"is not the project of `feature_store.yaml`, which is `{project}`",
                "use the same name in both places",
            )
        else:
            return
        # Reported; what is left can be checked further.
        self.objects = [obj for obj in self.objects if kind_of(obj).name != "project"]

    def result(self) -> dict[str, Any]:
        """What `load` returns."""
        from feast.protos.feast.core.Registry_pb2 import Registry

        registry = Registry()
        locations = {}
        views = views_by_name(self.objects)
        for obj in self.objects:
            kind = kind_of(obj)
            location = self._location(obj)
            try:
                message = message_of(obj, views)
            except Exception as error:
                reason, advice = _reason_and_advice(error)
                self._problem(
                    f"{kind.words} `{obj.name}`",
                    location,
                    f"cannot be serialized: {reason}",
                    _hint(error) or advice or "correct the definition",
                )
                continue
            getattr(registry, kind.registry_field).append(message)
            locations[f"{kind.name}/{obj.name}"] = location
        return {
            "contents": registry.SerializeToString(),
            "locations": locations,
            "problems": self.problems,
        }

    def _ignored_by_user(self) -> set[Path]:
        file = self.root / ".feastignore"
        ignored: set[Path] = set()
        if not file.is_file():
            return ignored
        for number, line in enumerate(
            file.read_text(encoding="utf-8", errors="replace").splitlines(), 1
        ):
            pattern = line.partition("#")[0].strip()
            if not pattern:
                continue
            try:
                for match in self.root.glob(pattern):
                    ignored.update(
                        [match.resolve()]
                        if match.is_file()
                        else (p.resolve() for p in match.rglob("*.py"))
                    )
            except (NotImplementedError, ValueError, IndexError) as error:
                self._problem(
                    "file `.feastignore`",
                    f".feastignore:{number}",
                    f"has a line that is not a pattern, `{pattern}`: {_words(error)}",
                    "write a path relative to the repository, with `*` for any name and `**` for any folders",
                )
        return ignored

    def _is_skipped(self, folder: str, name: str) -> bool:
        if name in _IGNORED_ANYWHERE or (name in _IGNORED_AT_ROOT and Path(folder) == self.root):
            return True
        # Feast would import a virtual environment of another name; nobody wants that.
        return os.path.exists(os.path.join(folder, name, "pyvenv.cfg"))

    @contextlib.contextmanager
    def _surroundings(self) -> Iterator[None]:
        """The repository as first import path and working directory; what its files print goes to stderr."""
        path, directory, bytecode = list(sys.path), os.getcwd(), sys.dont_write_bytecode
        for name, file in list(_loaded.items()):
            if getattr(sys.modules.get(name), "__file__", None) == file:
                del sys.modules[name]
        _loaded.clear()
        importlib.invalidate_caches()
        sys.path.insert(0, str(self.root))
        sys.dont_write_bytecode = True
        os.chdir(self.root)
        try:
            with contextlib.redirect_stdout(sys.stderr), _no_silent_exit():
                yield
        finally:
            sys.path[:] = path
            sys.dont_write_bytecode = bytecode
            os.chdir(directory)

    def _import(self, path: Path) -> ModuleType | None:
        parts = path.relative_to(self.root).with_suffix("").parts
        name = ".".join(parts)
        importable = not any("." in part for part in parts)
        try:
            known = sys.modules.get(name)
            if importable and (known is None or _is_file(known, path)):
                module = importlib.import_module(name)
                if _is_file(module, path):
                    _loaded[name] = str(module.__file__)
                    return module
            # Another module has the name (`types.py` in a repository), or the path has no name (`v1.2/x.py`).
            return _import_file(_PRIVATE + name, path)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            self._import_problem(path, error)
            return None

    def _import_problem(self, path: Path, error: BaseException) -> None:
        place = self._place(error.__traceback__) or (str(path), 1)
        reason, advice = _reason_and_advice(error)
        message, hint = f"cannot be imported: {reason}", _hint(error) or advice or _CORRECT
        if isinstance(error, SyntaxError):
            if error.filename:
                place = (error.filename, error.lineno or 1)
            line = (error.text or "").strip().strip("\0")
            message = f"is not valid Python: {error.msg}" + (f", in `{line}`" if line else "")
            hint = _CORRECT
        elif isinstance(error, TypeError) and (call := _WRONG_CALL.match(str(error))):
            message, hint = _wrong_call(call[1], call[2], message)
        elif isinstance(error, NameError) and error.name:
            message = f"uses the name `{error.name}`, which is not defined"
            hint = _near_word(error.name, _names_at(error.__traceback__)) or "define or import it"
        elif isinstance(error, ModuleNotFoundError) and error.name:
            message = f"imports module `{error.name}`, which does not exist"
            top = error.name.partition(".")[0]
            if top == "feast":
                hint = "check the spelling: this version of `feast` has no such module"
            else:
                hint = f"install `{top}` where `feast` runs, or correct the import"
        elif isinstance(error, ImportError) and (half := _HALF_IMPORTED.match(str(error))):
            message = f"imports `{half[1]}` from `{half[2]}`, which imports this file itself"
            hint = "move what both files use into a third one, and import it from there"
        elif isinstance(error, ImportError) and (missing := _MISSING_NAME.match(str(error))):
            message = f"imports `{missing[1]}` from `{missing[2]}`, which has no such name"
            hint = _near_name(missing[2], missing[1])
        elif isinstance(error, SystemExit):
            message = f"ends the program (exit code {error.code or 0}) when it is imported"
            hint = 'move what it does below `if __name__ == "__main__":`, or name the file in `.feastignore`'
        self._problem(
            f"file `{self._relative(str(path))}`",
            f"{self._relative(place[0])}:{place[1]}",
            message,
            hint,
        )

    def _place(self, traceback: TracebackType | None) -> tuple[str, int] | None:
        """The innermost line of the repository in a traceback."""
        place = None
        while traceback is not None:
            file = traceback.tb_frame.f_code.co_filename
            if self._relative(file) != file and f"{os.sep}site-packages{os.sep}" not in file:
                place = (file, traceback.tb_lineno)
            traceback = traceback.tb_next
        return place

    def _without_duplicates(self, objects: list[Any]) -> list[Any]:
        """Each name once. The same definition met twice (a file imported under two names) is one object."""
        kept: dict[tuple[str, str], Any] = {}
        for obj in objects:
            kind = kind_of(obj)
            if kind.name in VIEW_KINDS:
                key = ("view", obj.name.lower())
            elif kind.name == "data_source":
                key = ("data_source", obj.name.lower())
            else:
                key = (kind.name, obj.name)
            first = kept.setdefault(key, obj)
            if first is obj or _is_same(first, obj):
                continue
            place = self._location(first)
            if first.name != obj.name:
                other = f"`{first.name}` at `{place}` (names are compared without case)"
            elif kind_of(first) is not kind:
                other = f"the {kind_of(first).words} at `{place}`"
            else:
                other = f"another definition at `{place}`"
            self._problem(
                f"{kind.words} `{obj.name}`",
                self._location(obj),
                f"has the name of {other}",
                "rename one of them, or define the object once and import it where it is used",
            )
        return list(kept.values())

    def _location(self, obj: Any) -> str:
        return self._relative(str(getattr(obj, "_declared_at", "") or ""))

    def _relative(self, place: str) -> str:
        return place.removeprefix(str(self.root) + os.sep)

    def _problem(self, obj: str, location: str, message: str, hint: str | None) -> None:
        problem = {"object": obj, "location": location, "message": message, "hint": hint}
        # A broken file fails again in every file that imports it: one report is enough.
        if not any(p["location"] == location and p["message"] == message for p in self.problems):
            self.problems.append(problem)


@contextlib.contextmanager
def _no_silent_exit() -> Iterator[None]:
    """`os._exit` would end whoever loads the repository without a word; in a forked child it is in its place."""
    end, loader = os._exit, os.getpid()

    def exit_told(status: int) -> NoReturn:
        if os.getpid() != loader:
            end(status)
        raise SystemExit(status)

    os._exit = exit_told
    try:
        yield
    finally:
        os._exit = end


def _is_file(module: ModuleType, path: Path) -> bool:
    file = getattr(module, "__file__", None)
    return file is not None and os.path.realpath(file) == str(path)


def _import_file(name: str, path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    _loaded[name] = str(path)
    return module


def _is_same(first: Any, second: Any) -> bool:
    if type(first) is not type(second) or first.name != second.name:
        return False
    try:
        return bool(first.to_proto() == second.to_proto())
    except Exception:
        return False


def _words(error: BaseException) -> str:
    """The error as a sentence: our own and the usual refusals speak for themselves, others name their class."""
    from feast.errors import FeastError

    # One sentence in one line, whatever the error of a stranger says.
    text = " ".join(str(error).partition("Traceback (most recent call last)")[0].split())
    if len(text) > _LONGEST_REASON:
        text = text[:_LONGEST_REASON] + "..."
    text = mask_secrets("", text)
    if text and isinstance(error, (FeastError, ValueError, TypeError)):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _reason_and_advice(error: BaseException) -> tuple[str, str | None]:
    """Our own errors end with what to do, after a semicolon."""
    traceback, reason = error.__traceback__, _words(error)
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    if traceback is None or not traceback.tb_frame.f_code.co_filename.startswith(_PACKAGE):
        return reason, None
    reason, _, advice = reason.rpartition("; ")
    return (reason, advice) if reason else (advice, None)


def _wrong_call(name: str, complaint: str, message: str) -> tuple[str, str]:
    """The words for a class of ours that is called with the wrong arguments."""
    import inspect

    import feast

    parameters: list[str] = []
    with contextlib.suppress(AttributeError, TypeError, ValueError):
        parameters = [p for p in inspect.signature(getattr(feast, name)).parameters if p != "self"]
    quoted = re.findall(r"'(\w+)'", complaint)
    known = ", ".join(f"`{parameter}`" for parameter in parameters)
    if complaint.startswith("missing") and quoted:
        names = " and ".join(f"`{parameter}`" for parameter in quoted)
        return f"declares a `{name}` without {names}", f"add `{quoted[0]}=...`"
    if "unexpected keyword argument" in complaint and quoted:
        hint = _near_word(quoted[0], parameters) or (
            f"its arguments are {known}" if known else _CORRECT
        )
        return f"gives a `{name}` the argument `{quoted[0]}`, which it does not have", hint
    if "positional argument" in complaint and parameters:
        hint = f"name each one: `{name}({parameters[0]}=..., ...)`"
        return f"gives a `{name}` arguments without their names", hint
    return message, _CORRECT


def _names_at(traceback: TracebackType | None) -> list[str]:
    """The names that the innermost line could use."""
    import builtins

    names = dir(builtins)
    while traceback is not None:
        frame = traceback.tb_frame
        names = [*frame.f_locals, *frame.f_globals, *dir(builtins)]
        traceback = traceback.tb_next
    return names


def _near_word(word: str, known: list[str]) -> str | None:
    import difflib

    near = difflib.get_close_matches(word, known, n=1)
    return f"did you mean `{near[0]}`?" if near else None


def _hint(error: BaseException) -> str | None:
    """What an error of ours advises, unless its text says so already."""
    hint = getattr(error, "hint", None)
    return hint if isinstance(hint, str) and hint not in str(error) else None


def _near_name(module: str, name: str) -> str:
    near = _near_word(name, dir(sys.modules.get(module, sys)))
    return near or f"check the spelling, and the installed version of `{module}`"


def main(arguments: list[str]) -> int:
    """Prints what `load` returns as one JSON object; its bytes are in base64."""
    import base64
    import json

    # Anything the repository prints, even from C, must not mix with the answer.
    answer = os.dup(1)
    os.dup2(2, 1)
    result = load(arguments[0], arguments[1])
    result["contents"] = base64.b64encode(result["contents"]).decode()
    sys.stdout.flush()
    with open(answer, "w", encoding="utf-8") as file:
        json.dump(result, file)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
