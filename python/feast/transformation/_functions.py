"""Runs the functions of on-demand feature views for the engine, from the code that the registry keeps.

Only the engine calls this, in the process that computes (a caller's own or a worker), and only when a view is used.
Source text comes first; a pickled body is loaded only where the text cannot work alone, and only with dill present.
"""

from __future__ import annotations
import __future__

import ast
import builtins
import dis
import functools
import importlib
import linecache
import math
import sys
import textwrap
import traceback
from collections.abc import Callable, Iterator, Mapping
from types import CodeType, ModuleType, TracebackType
from typing import Any

from feast.errors import FeastError

# Stands in a function's body before the source text of what the function uses from its module.
HELPERS_MARK = b"\n# feast-rs helpers\n"

# The name of a function that has none.
LAMBDA = "_lambda"

# What the functions of Feast's users call without importing it.
_COMMON = {
    "pd": "pandas",
    "pandas": "pandas",
    "np": "numpy",
    "numpy": "numpy",
    "pa": "pyarrow",
    "datetime": "datetime:datetime",
    "timedelta": "datetime:timedelta",
    "timezone": "datetime:timezone",
    "math": "math",
    "json": "json",
    **{
        name: f"typing:{name}"
        for name in (
            "Any",
            "Callable",
            "Dict",
            "List",
            "Mapping",
            "Optional",
            "Sequence",
            "Tuple",
            "Union",
        )
    },
}
_LONGEST_REASON = 400


class FunctionUnusable(FeastError):
    """The code that a registry keeps for a view cannot be made a function."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)


def filename_of(view: str) -> str:
    """What stands for the file of a view's function in tracebacks."""
    return f"<on-demand feature view {view}>"


def load(view: str, name: str, text: str, body: bytes) -> Callable[..., Any]:
    """The function of a view. Nothing of it is run yet but its definition."""
    pickled, _, helpers = body.partition(HELPERS_MARK)
    try:
        return _from_text(view, name, text, helpers.decode(errors="replace"))
    except FunctionUnusable as error:
        reasons = [str(error)]
    if pickled:
        try:
            import dill
        except ImportError:
            reasons.append("its pickled body needs dill, which is not installed")
        else:
            try:
                function = dill.loads(pickled)
            except Exception as error:
                reasons.append(f"its pickled body does not load: {told(error)}")
            else:
                if callable(function):
                    return function  # type: ignore[no-any-return]
                reasons.append("its pickled body is no function")
    raise FunctionUnusable("; ".join(reasons))


def _from_text(view: str, name: str, text: str, helpers: str) -> Callable[..., Any]:
    if not text.strip():
        raise FunctionUnusable("the registry has no source text for it")
    text = textwrap.dedent(text)
    filename = filename_of(view)
    # Data classes look for the module that they say they are of.
    own = sys.modules.setdefault("feast_on_demand", ModuleType("feast_on_demand"))
    namespace: dict[str, Any] = {"__name__": own.__name__, "__builtins__": builtins}
    try:
        module = parsed(text, filename)
        before = ast.parse(helpers, f"<helpers of {view}>")
    except SyntaxError as error:
        raise FunctionUnusable(
            f"its source text is not a function: {error.msg} (line {error.lineno})"
        ) from None
    functions = [one for one in module.body if isinstance(one, ast.FunctionDef)]
    named = [one for one in functions if one.name == name] or functions[-1:]
    if named:
        wanted = named[-1].name
        named[-1].decorator_list = []
    elif LAMBDA in defined_names(module):
        wanted = LAMBDA
    else:
        raise FunctionUnusable("its source text has no `def`, and not one `lambda`")
    codes = [_compiled(before, f"<helpers of {view}>"), _compiled(module, filename)]
    missing = []
    for used in names_of_others(before, module):
        try:
            found = common(used)
        except ImportError:
            found = None
        if found is None:
            missing.append(used)
        else:
            namespace[used] = found
    if missing:
        raise FunctionUnusable(
            "its source text uses "
            + ", ".join(f"`{one}`" for one in missing)
            + ", which it neither defines nor imports; do so inside of the function"
        )
    linecache.cache[filename] = (len(text), None, text.splitlines(keepends=True), filename)
    try:
        for code in codes:
            exec(code, namespace)  # noqa: S102
    except Exception as error:
        raise FunctionUnusable(f"its source text does not run: {told(error)}") from None
    return namespace[wanted]  # type: ignore[no-any-return]


def common(name: str) -> Any:
    """What a name usually means that functions use without importing it; `None` for other names."""
    place, _, member = _COMMON.get(name, "").partition(":")
    if not place:
        return None
    found = importlib.import_module(place)
    return getattr(found, member) if member else found


def names_used(text: str) -> list[str]:
    """Names that a source text takes from around it, in order."""
    module = parsed(textwrap.dedent(text), "<function>")
    for node in module.body:
        if isinstance(node, ast.FunctionDef):
            node.decorator_list = []
    return names_of_others(module)


def names_of_others(*modules: ast.Module) -> list[str]:
    """Names that texts look up and neither they nor Python define, in order."""
    defined = {name for module in modules for name in defined_names(module)}
    codes = [_compiled(module, "<function>") for module in modules]
    used = dict.fromkeys(name for code in codes for name in _global_names(code))
    return [one for one in used if one not in defined and not hasattr(builtins, one)]


def is_common(name: str) -> bool:
    """Whether a name means something without being imported."""
    return name in _COMMON


def parsed(text: str, filename: str) -> ast.Module:
    """A source text. One without `def` may have a single `lambda`, which gets a name; what is around it is left out."""
    try:
        module = ast.parse(text, filename)
    except SyntaxError:
        # A lambda's source is the line on which it stands, as an argument of a call.
        module = _argument(text, filename)
        if module is None:
            raise
    if any(isinstance(one, ast.FunctionDef) for one in module.body):
        return module
    found = [one for one in ast.walk(module) if isinstance(one, ast.Lambda)]
    if len(found) != 1:
        return module
    named = ast.Assign([ast.Name(LAMBDA, ast.Store())], found[0], lineno=found[0].lineno)
    return ast.fix_missing_locations(ast.Module([named], []))


def lambda_in(text: str) -> str:
    """The only `lambda` of a source text; raises ValueError where there are none or several."""
    module = parsed(textwrap.dedent(text), "<lambda>")
    if LAMBDA not in defined_names(module):
        raise ValueError("not one `lambda`")
    return ast.unparse(module.body[0].value)  # type: ignore[attr-defined]


def _argument(text: str, filename: str) -> ast.Module | None:
    try:
        return ast.parse(f"_({text.strip().rstrip(',')})", filename)
    except SyntaxError:
        return None


def _compiled(module: ast.Module, filename: str) -> CodeType:
    # Annotations name types that only the module of the function knows.
    return compile(
        module, filename, "exec", __future__.annotations.compiler_flag, dont_inherit=True
    )  # type: ignore[no-any-return]


def defined_names(module: ast.Module) -> set[str]:
    """Names that the top level of a text binds."""
    found = set()
    for node in module.body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            found.add(node.name)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            found.update(one.asname or one.name.partition(".")[0] for one in node.names)
        else:
            found.update(
                one.id
                for one in ast.walk(node)
                if isinstance(one, ast.Name) and isinstance(one.ctx, ast.Store)
            )
    return found


def _global_names(code: CodeType) -> Iterator[str]:
    """Names that code looks up outside of its functions."""
    for instruction in dis.get_instructions(code):
        if instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            yield str(instruction.argval)
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            yield from _global_names(inner)


# --- calling


def call_singly(
    function: Callable[..., Any], inputs: dict[str, list[Any]], rows: int
) -> dict[str, list[Any]]:
    """Calls a function once per row, and gathers its results by column."""
    outputs: dict[str, list[Any]] = {}
    for row in range(rows):
        result = function({name: values[row] for name, values in inputs.items()})
        if not isinstance(result, Mapping):
            raise TypeError(f"the function returned {_kind(result)}, expected a dictionary")
        for name in result.keys() | outputs.keys():
            outputs.setdefault(name, [None] * row).append(result.get(name))
    return outputs


def frame(table: Any, objects: dict[str, list[Any]]) -> Any:
    """A pandas frame of an Arrow batch; columns that pandas has no type for are lists of Python values."""
    names = table.schema.names
    plain = [name for name in names if name not in objects]
    # The rows of a call are few: handing them to threads takes longer than they do.
    if len(plain) == len(names):
        return table.to_pandas(use_threads=False)
    import pandas

    rows = pandas.RangeIndex(table.num_rows)
    made = pandas.DataFrame(index=rows)
    if plain:
        made = table.select(plain).to_pandas(use_threads=False)
    for name, values in objects.items():
        made[name] = pandas.Series(values, dtype=object, index=rows)
    return made[names]


@functools.lru_cache(maxsize=1024)
def _layout(names: tuple[str, ...], kinds: str) -> tuple[Any, Any, Any]:
    """The names as an index, and where the columns of either kind of number stand."""
    import numpy
    import pandas

    floats, wholes = (
        numpy.array([at for at, one in enumerate(kinds) if one == kind], dtype=numpy.intp)
        for kind in "fi"
    )
    return pandas.Index(list(names)), floats, wholes


def frame_of_numbers(
    names: tuple[str, ...], kinds: str, rows: int, floats: bytearray, wholes: bytearray
) -> Any:
    """A pandas frame of columns of floats (`f`) and of whole numbers (`i`), which lie one after the other."""
    import numpy
    import pandas

    index, at_floats, at_wholes = _layout(names, kinds)
    blocks = [
        (numpy.frombuffer(numbers, kind).reshape(len(at), rows), at)
        for numbers, kind, at in ((floats, "f8", at_floats), (wholes, "i8", at_wholes))
        if len(at)
    ]
    try:
        from pandas.api.internals import create_dataframe_from_blocks
    except ImportError:
        columns: list[Any] = [None] * len(names)
        for block, at in blocks:
            for values, place in zip(block, at):
                columns[place] = values
        return pandas.DataFrame(dict(zip(names, columns)), copy=False)
    # A view of the index: whoever names it names only that of his frame.
    return create_dataframe_from_blocks(blocks, index=pandas.RangeIndex(rows), columns=index.view())


def columns_of_frame(
    result: Any, given: Any, view: str, wanted: list[tuple[str, bool]]
) -> list[Any]:
    """The wanted columns of a returned frame: arrays of NumPy or Arrow, or lists of Python values where those are asked
    for."""
    import pandas
    import pyarrow

    from feast._frames import array_of

    if not isinstance(result, pandas.DataFrame):
        raise TypeError(f"the function returned {_kind(result)}, expected a pandas DataFrame")
    moved = len(result) == len(given) and not result.index.equals(given.index)
    if moved and result.index.is_unique and result.index.isin(given.index).all():
        # A frame that was sorted or grouped still says which row is which.
        result = result.reindex(given.index)
    columns: list[Any] = []
    for name, as_objects in wanted:
        found = name if name in result.columns else f"{view}__{name}"
        if found not in result.columns:
            columns.append(None)
            continue
        series = result[found]
        if isinstance(series, pandas.DataFrame):
            raise TypeError(f"the function returned more than one column named `{found}`")
        array = None
        if not as_objects:
            if getattr(series.dtype, "char", None) in ("d", "l", "q"):
                columns.append(series.to_numpy())
                continue
            try:
                array = array_of(pyarrow, series)
            except (
                pyarrow.ArrowInvalid,
                pyarrow.ArrowTypeError,
                pyarrow.ArrowNotImplementedError,
                OverflowError,
            ):
                array = None
            else:
                if isinstance(array, pyarrow.ChunkedArray):
                    array = array.combine_chunks()
        columns.append(_plain(series.tolist()) if array is None else array)
    return columns


def _plain(values: list[Any]) -> list[Any]:
    """Values with `None` where pandas has one of its missing values."""
    import pandas

    def missing(one: Any) -> bool:
        return one is pandas.NA or one is pandas.NaT or (isinstance(one, float) and math.isnan(one))

    return [None if missing(one) else one for one in values]


def types_of_columns(result: Any) -> list[tuple[str, int]]:
    """Name and number of the stored type of each column that a function of mode `python` returned for one row."""
    if not isinstance(result, Mapping):
        raise TypeError(f"the function returned {_kind(result)}, expected a dictionary of columns")
    types = []
    for name, values in result.items():
        if isinstance(values, (str, bytes, Mapping)) or not hasattr(values, "__len__"):
            raise TypeError(
                f"the function returned {_kind(values)} for `{name}`, expected a list with one value per row; "
                "a function of single rows needs `singleton=True`"
            )
        types.append((str(name), _type_of(str(name), next(iter(values), None))))
    return types


def types_of_frame(result: Any) -> list[tuple[str, int]]:
    """The same for a returned frame."""
    import pandas

    if not isinstance(result, pandas.DataFrame):
        raise TypeError(f"the function returned {_kind(result)}, expected a pandas DataFrame")
    types = []
    for name in result.columns:
        values = _plain(result[name].tolist())
        value = next(iter(values), None)
        types.append((str(name), _type_of(str(name), value, str(result[name].dtype))))
    return types


def _type_of(name: str, value: Any, dtype: str | None = None) -> int:
    """Number of the stored type of a value; 0 where nobody can tell."""
    from feast.type_map import python_type_to_feast_value_type

    if dtype in (None, "object"):
        if value is None:
            return 0
        dtype = getattr(getattr(value, "dtype", None), "name", None)
        dtype = type(value).__name__ if hasattr(value, "__len__") or dtype is None else dtype
    try:
        return int(python_type_to_feast_value_type(name, value=value, type_name=dtype).value)
    except (KeyError, TypeError, ValueError):
        return 0


def _kind(value: Any) -> str:
    return f"a value of type `{type(value).__name__}`"


# --- telling what went wrong


def line_of(view: str, trace: TracebackType | None) -> int | None:
    """The line of the view's source text in which an error arose."""
    wanted = filename_of(view)
    lines = [one.lineno for one in traceback.extract_tb(trace) if one.filename == wanted]
    return lines[-1] if lines else None


def told(error: BaseException) -> str:
    """Class and text of an error, in one line."""
    text = " ".join(str(error).split())
    if len(text) > _LONGEST_REASON:
        text = text[:_LONGEST_REASON] + "…"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
