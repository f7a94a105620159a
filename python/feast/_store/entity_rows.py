"""Entity rows, in all the shapes that they come in, as columns of plain values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def entity_columns(entity_rows: Any) -> dict[str, list[Any]]:
    """Entity rows as one list of plain values per column."""
    if isinstance(entity_rows, Mapping):
        return {
            _column_name(name): _plain_list(name, values) for name, values in entity_rows.items()
        }
    if not isinstance(entity_rows, (list, tuple)):
        raise TypeError(
            "`entity_rows` must be a list of mappings, one per row, or a mapping from join keys to lists, "
            f"but is of class {type(entity_rows).__name__}"
        )
    if not entity_rows:
        raise ValueError(
            '`entity_rows` is empty; pass at least one row, such as `[{"driver_id": 1001}]`'
        )
    if (plain := _plain_columns(entity_rows)) is not None:
        return plain
    columns: dict[str, list[Any]] = {}
    for number, row in enumerate(entity_rows):
        if not isinstance(row, Mapping):
            raise TypeError(
                f"row {number + 1} of `entity_rows` must be a mapping, but is of class {type(row).__name__}; "
                'write rows such as `{"driver_id": 1001}`'
            )
        if number == 0:
            columns = {_column_name(name): [] for name in row}
        if row.keys() != columns.keys():
            raise ValueError(
                f"All entity_rows must have the same keys: row 1 has {_names(columns)}, row {number + 1} has "
                f"{_names(row)}; give each row a value in every column"
            )
        for name, value in row.items():
            columns[name].append(_plain_value(value))
    return columns


# Nearly all rows are dictionaries of these, which need no look at each of them.
_PLAIN = {int, str, float, bool, bytes, type(None)}


def _plain_columns(rows: list[Any] | tuple[Any, ...]) -> dict[str, list[Any]] | None:
    """Rows as columns, if all are dictionaries with the same names and values that are plain already."""
    if {type(row) for row in rows} != {dict}:
        return None
    names = rows[0].keys()
    if {type(name) for name in names} != {str} or any(row.keys() != names for row in rows):
        return None
    columns = {name: [row[name] for row in rows] for name in names}
    plain = all(_PLAIN.issuperset(map(type, values)) for values in columns.values())
    return columns if plain else None


def _names(row: Mapping[Any, Any]) -> str:
    return ", ".join(f"`{name}`" for name in row) or "none"


def _column_name(name: Any) -> str:
    if not isinstance(name, str):
        raise TypeError(
            f"the columns of `entity_rows` must be named by texts, but one is {name!r:.80} ({type(name).__name__}); "
            "write the name of the join key"
        )
    return name


def _plain_list(name: str, values: Any) -> list[Any]:
    if (
        getattr(getattr(values, "dtype", None), "kind", None) == "M"
        and type(values).__name__ == "ndarray"
    ):
        values = values.astype("datetime64[us]")  # finer ones would become integers
    if hasattr(values, "tolist"):  # numpy, pandas
        return list(values.tolist())
    if hasattr(values, "to_pylist"):  # Arrow
        return list(values.to_pylist())
    if type(values).__name__ == "RepeatedValue":
        values = values.val
    # Lists of protobuf have `__getitem__` only.
    is_iterable = hasattr(values, "__iter__") or hasattr(values, "__getitem__")
    if isinstance(values, (str, bytes)) or not is_iterable:
        raise TypeError(
            f"column `{name}` of `entity_rows` must be a list, but is {values!r:.80} ({type(values).__name__}); "
            f'write `{{"{name}": [...]}}`, or a list of rows'
        )
    return [_plain_value(value) for value in values]


def _plain_value(value: Any) -> Any:
    """A value of a protobuf message as what it holds; the engine knows all other values."""
    if type(value).__name__ == "Value" and hasattr(value, "WhichOneof"):
        member = value.WhichOneof("val")
        return None if member is None else getattr(value, member)
    return value
