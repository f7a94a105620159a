"""Transformations that take and return dictionaries."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from feast.transformation._sample import empty, field_of_value
from feast.transformation.base import Transformation
from feast.transformation.mode import TransformationMode


class PythonTransformation(Transformation):
    """A function from a dictionary of columns to one; with `singleton`, from a row to a row."""

    _mode = TransformationMode.PYTHON
    singleton = False

    def __new__(
        cls,
        udf: Callable[..., Any],
        udf_string: str,
        singleton: bool = False,
        name: str | None = None,
        tags: dict[str, str] | None = None,
        description: str = "",
        owner: str = "",
    ) -> PythonTransformation:
        return object.__new__(cls)

    def __init__(
        self,
        udf: Callable[..., Any],
        udf_string: str,
        singleton: bool = False,
        name: str | None = None,
        tags: dict[str, str] | None = None,
        description: str = "",
        owner: str = "",
        *args: Any,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            mode=TransformationMode.PYTHON,
            udf=udf,
            udf_string=udf_string,
            name=name,
            tags=tags,
            description=description,
            owner=owner,
        )
        self.singleton = singleton

    def transform(self, input_dict: dict[str, Any]) -> dict[str, Any]:
        """Inputs and outputs together; outputs win."""
        return {**input_dict, **self.function()(input_dict)}

    def transform_singleton(self, input_dict: dict[str, Any]) -> dict[str, Any]:
        """The same for the first row of each column."""
        row = {name: values[0] for name, values in input_dict.items()}
        return {**row, **self.function()(row)}

    def transform_arrow(self, pa_table: Any, features: list[Any]) -> Any:
        """Runs the function on an Arrow table, by way of lists."""
        import pyarrow

        return pyarrow.Table.from_pydict(self.function()(pa_table.to_pydict()))

    def infer_features(self, random_input: dict[str, Any], singleton: bool | None = False) -> Any:
        """The features the function returns for a sample of one row."""
        fields = []
        for name, value in self.transform(random_input).items():
            if not singleton and isinstance(value, list):
                if not value:
                    raise empty(name)
                value = value[0]
            if value is None:
                raise empty(name)
            fields.append(field_of_value(name, value))
        return fields
