"""Finding out the features of a transformation from what it returns for a sample."""

from __future__ import annotations

from typing import Any

from feast.field import Field
from feast.types import from_value_type


def field_of_value(name: str, value: Any) -> Field:
    """The field whose type fits one returned value."""
    from feast.type_map import python_type_to_feast_value_type

    type_name = getattr(getattr(value, "dtype", None), "name", None) or type(value).__name__
    return Field(
        name=name,
        dtype=from_value_type(
            python_type_to_feast_value_type(name, value=value, type_name=type_name)
        ),
    )


def fields_of_frame(frame: Any) -> list[Field]:
    """One field for each column of a returned pandas frame."""
    from feast.type_map import python_type_to_feast_value_type

    fields = []
    for name, dtype in zip(frame.columns, frame.dtypes):
        values = frame[name].tolist()
        if not values:
            raise empty(name)
        stored = python_type_to_feast_value_type(name, value=values[0], type_name=str(dtype))
        fields.append(Field(name=name, dtype=from_value_type(stored)))
    return fields


def empty(name: str) -> TypeError:
    """The error for a feature that came back without a value to look at."""
    return TypeError(
        f"the type of feature `{name}` cannot be inferred: the function returned no value for a "
        "sample row; declare it in `schema`"
    )
