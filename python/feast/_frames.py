"""Hands frames of any library to the engine as an Arrow stream, without copying where the library allows it."""

from __future__ import annotations

import datetime as dt
import math
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from feast.errors import FeastExtrasDependencyImportError

_INSTANTS = ("datetime64[us, UTC]", "datetime64[ns, UTC]")
EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


def microseconds(moment: dt.datetime, parameter: str) -> int:
    """Microseconds since 1970 in UTC; a time without a zone is UTC."""
    # pandas' NaT is a datetime, too, and equals nothing.
    if not isinstance(moment, dt.datetime) or moment != moment:  # noqa: PLR0124
        raise TypeError(
            f"`{parameter}` must be a datetime, but is {moment!r:.80} ({type(moment).__name__}); "
            "write for instance `datetime(2026, 11, 23)`"
        )
    # Subclasses subtract in ways of their own: pendulum's, which Airflow hands out, gives no timedelta.
    plain = dt.datetime.combine(moment.date(), moment.timetz())
    if plain.tzinfo is None:
        plain = plain.replace(tzinfo=dt.UTC)
    return (plain - EPOCH) // dt.timedelta(microseconds=1)


def moment(micros: int) -> dt.datetime:
    """The time that is so many microseconds after 1970, in UTC."""
    return EPOCH + dt.timedelta(microseconds=micros)


def is_pandas(data: Any) -> bool:
    """Whether this is a pandas DataFrame, without importing pandas to find out."""
    pandas = sys.modules.get("pandas")
    return pandas is not None and isinstance(data, pandas.DataFrame)


def categories(data: Any) -> dict[str, Any]:
    """The pandas types of the columns of categories; Arrow has the values alone."""
    if type(data).__name__ == "FeastDataFrame":
        data = data.data
    if not is_pandas(data):
        return {}
    kinds = zip(data.columns, data.dtypes)
    return {str(name): kind for name, kind in kinds if type(kind).__name__ == "CategoricalDtype"}


def entity_stream(data: Any, parameter: str, *, in_utc: bool) -> Any:
    """`to_stream` for entity rows. As in Feast, times in a pandas frame come back in UTC, whatever zone they came in."""
    stream = to_stream(data, parameter)
    if (
        not in_utc
        or not is_pandas(getattr(data, "data", data))
        or not hasattr(stream, "set_column")
    ):
        return stream
    pyarrow = _pyarrow("a DataFrame")
    for position, field in enumerate(stream.schema):
        if pyarrow.types.is_timestamp(field.type) and field.type.tz != "UTC":
            # The same numbers: times without zone are UTC.
            column = stream.column(position).cast(pyarrow.timestamp(field.type.unit, "UTC"))
            stream = stream.set_column(position, field.name, column)
    return stream


def to_stream(data: Any, parameter: str) -> Any:
    """An object with `__arrow_c_stream__` that holds the rows of a frame."""
    if type(data).__name__ == "FeastDataFrame":
        data = data.data
    if is_pandas(data):
        return _from_pandas(data, parameter)
    if type(data).__name__ == "LazyFrame" and hasattr(data, "collect"):
        return data.collect()
    if hasattr(data, "__arrow_c_stream__"):
        return data
    if hasattr(data, "__arrow_c_array__"):
        pyarrow = _pyarrow("a single Arrow array")
        return pyarrow.Table.from_batches([pyarrow.record_batch(data)])
    if isinstance(data, Mapping):
        return from_columns(data, parameter)
    raise TypeError(
        f"`{parameter}` must be a pandas, Polars or Arrow frame, or a mapping from columns to lists, "
        f"but is of class {_named(type(data))}"
    )


def _named(kind: type) -> str:
    """A class by its full name: several libraries have a `DataFrame`."""
    return (
        kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    )


def from_columns(columns: Mapping[str, Any], parameter: str) -> Any:
    """A stream made of Python lists, one per column."""
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        found = ", ".join(f"`{name}` has {length}" for name, length in lengths.items())
        raise ValueError(f"the columns of `{parameter}` must be equally long, but {found}")
    try:
        import pyarrow
    except ImportError:
        pass
    else:
        return pyarrow.table(
            {
                name: _arrow_column(pyarrow, name, values, parameter)
                for name, values in columns.items()
            }
        )
    try:
        import polars
    except ImportError:
        raise FeastExtrasDependencyImportError(
            "pandas", "Python lists need pyarrow or Polars to become Arrow"
        ) from None
    return polars.DataFrame({name: list(values) for name, values in columns.items()}, strict=False)


def _from_pandas(frame: Any, parameter: str) -> Any:
    if not frame.columns.is_unique:
        repeated = frame.columns[frame.columns.duplicated()][0]
        raise ValueError(
            f"`{parameter}` has more than one column named `{repeated}`; rename or drop one"
        )
    names = [str(name) for name in frame.columns]
    try:
        import pyarrow
    except ImportError:
        columns = (frame.iloc[:, position] for position in range(len(names)))
        lists = [column.astype(object).where(column.notna(), None).tolist() for column in columns]
        return from_columns(dict(zip(names, lists)), parameter)
    arrays = [
        _arrow_column(pyarrow, name, column, parameter)
        for name, column in zip(names, _columns(frame))
    ]
    return pyarrow.Table.from_arrays(arrays, names=names)


def _columns(frame: Any) -> Iterator[Any]:
    """The columns of a pandas frame: arrays of numbers and times, series of anything else."""
    # Making a series of each column takes longer than all else that is done with a hundred rows.
    arrays = getattr(frame, "_iter_column_arrays", None)
    if arrays is None:
        yield from (series for _, series in frame.items())
        return
    for position, array in enumerate(arrays()):
        kind = array.dtype
        is_plain = getattr(kind, "isbuiltin", 0) == 1 and kind.kind in "biuf"
        yield array if is_plain or str(kind) in _INSTANTS else frame.iloc[:, position]


def array_of(pyarrow: Any, values: Any) -> Any:
    """Values of one type as an Arrow array, those that pandas takes for missing as nulls."""
    # Arrow takes a series of pandas apart by itself, at three times the price.
    kind = getattr(values, "dtype", None)
    if getattr(kind, "isbuiltin", 0) == 1 and kind.kind in "biuf":
        values = values.to_numpy() if hasattr(values, "to_numpy") else values
    elif str(kind) in _INSTANTS:
        instants = values.to_numpy(f"M8[{kind.unit}]")
        return pyarrow.array(instants, pyarrow.timestamp(kind.unit, "UTC"), from_pandas=True)
    return pyarrow.array(values, from_pandas=True)


def _arrow_column(pyarrow: Any, name: str, values: Any, parameter: str) -> Any:
    if getattr(values, "dtype", None) == object or isinstance(values, (list, tuple)):
        values = _plain_objects(values)
    try:
        array = array_of(pyarrow, values)
    except (
        pyarrow.ArrowInvalid,
        pyarrow.ArrowTypeError,
        pyarrow.ArrowNotImplementedError,
        OverflowError,  # an integer of more than 64 bits
        UnicodeEncodeError,
    ) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"column `{name}` of `{parameter}` holds values that do not fit together in one type: {reason}; "
            "give the column one type"
        ) from None
    if pyarrow.types.is_dictionary(array.type):
        array = array.cast(array.type.value_type)
    return array


def _plain_objects(values: Any) -> Any:
    """Objects that Arrow does not know, as text: UUIDs."""
    first = next((value for value in values if not _is_missing(value)), None)
    if type(first).__name__ == "UUID":
        return [None if _is_missing(value) else str(value) for value in values]
    return values


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _pyarrow(what: str) -> Any:
    try:
        import pyarrow
    except ImportError as error:
        raise FeastExtrasDependencyImportError(
            "pyarrow", f"{what} needs pyarrow: {error}"
        ) from None
    return pyarrow


@contextmanager
def reading(rows: Any) -> Iterator[Any]:
    """Reads native rows; what a library says about a stream that broke becomes the exception that broke it."""
    try:
        yield rows
    except Exception as error:
        failure = rows.failure()
        if failure is None:
            raise
        raise failure from (None if isinstance(failure, KeyboardInterrupt) else error)


def to_table(stream: Any) -> Any:
    """Reads a stream into a `pyarrow.Table`."""
    return _pyarrow("a table").RecordBatchReader.from_stream(stream).read_all()


def to_pandas(table: Any) -> Any:
    """A table as pandas DataFrame.

    Integers and booleans become the numpy type while all are present, and pandas' nullable type when one is missing,
    so that no integer turns into a float.
    """
    try:
        import pandas
    except ImportError as error:
        raise FeastExtrasDependencyImportError("pandas", str(error)) from None
    pyarrow = _pyarrow("a DataFrame")
    nullable = {
        pyarrow.int8(): pandas.Int8Dtype(),
        pyarrow.int16(): pandas.Int16Dtype(),
        pyarrow.int32(): pandas.Int32Dtype(),
        pyarrow.int64(): pandas.Int64Dtype(),
        pyarrow.bool_(): pandas.BooleanDtype(),
    }
    # Maps as they are served: dictionaries, not lists of pairs.
    frame = table.to_pandas(types_mapper=nullable.get, maps_as_pydicts="lossy")
    for position, column in enumerate(table.columns):
        if column.null_count == 0 and column.type in nullable:
            frame.isetitem(position, column.to_pandas())
    return frame


def to_tensors(columns: Mapping[str, list[Any]], kind: str, default_value: Any) -> dict[str, Any]:
    """Numbers as tensors, missing ones replaced; everything else as lists."""
    if kind != "torch":
        raise ValueError(f"there are no tensors of kind `{kind}`, only `torch`")
    try:
        import torch
    except ImportError as error:
        raise FeastExtrasDependencyImportError("pytorch", str(error)) from None
    device = "cuda" if torch.cuda.is_available() else "cpu"
    result: dict[str, Any] = {}
    for name, values in columns.items():
        sample = next((value for value in values if value is not None), default_value)
        filled = [default_value if value is None else value for value in values]
        result[name] = (
            torch.tensor(filled, device=device) if isinstance(sample, (int, float)) else filled
        )
    return result
