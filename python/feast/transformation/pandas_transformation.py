"""Transformations that take and return a pandas frame."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from feast.transformation._sample import fields_of_frame
from feast.transformation.base import Transformation
from feast.transformation.mode import TransformationMode


class PandasTransformation(Transformation):
    """A function from a pandas frame to a pandas frame with as many rows."""

    _mode = TransformationMode.PANDAS

    def __new__(
        cls,
        udf: Callable[..., Any] | None = None,
        udf_string: str | None = None,
        name: str | None = None,
        tags: dict[str, str] | None = None,
        description: str = "",
        owner: str = "",
    ) -> PandasTransformation:
        return object.__new__(cls)

    def __init__(
        self,
        udf: Callable[..., Any] | None = None,
        udf_string: str | None = None,
        name: str | None = None,
        tags: dict[str, str] | None = None,
        description: str = "",
        owner: str = "",
        *args: Any,
        **kwargs: Any,
    ) -> None:
        if udf is not None:
            _check_return_annotation(udf)
        super().__init__(
            mode=TransformationMode.PANDAS,
            udf=udf,  # type: ignore[arg-type]
            udf_string=udf_string or "",
            name=name,
            tags=tags,
            description=description,
            owner=owner,
        )

    def transform(self, inputs: Any) -> Any:
        """Runs the function on a pandas frame."""
        return self.function()(inputs)

    def transform_arrow(self, pa_table: Any, features: list[Any]) -> Any:
        """Runs the function on an Arrow table, by way of pandas."""
        import pyarrow

        return pyarrow.Table.from_pandas(self.function()(pa_table.to_pandas()))

    def infer_features(self, random_input: dict[str, list[Any]], *args: Any, **kwargs: Any) -> Any:
        """The features the function returns for a sample of one row."""
        import pandas

        return fields_of_frame(self.transform(pandas.DataFrame.from_dict(random_input)))


def _check_return_annotation(udf: Callable[..., Any]) -> None:
    """Refuses a function that says it returns something other than a pandas frame.

    The annotation is looked at by name, so that pandas stays unloaded while definitions are read.
    """
    found = getattr(udf, "__annotations__", {}).get("return")
    if found is None:
        return
    text = (
        found
        if isinstance(found, str)
        else f"{found.__module__}.{getattr(found, '__name__', found)}"
    )
    if text.strip("'\"").rpartition(".")[2] != "DataFrame":
        raise TypeError(
            f"function `{udf.__name__}` of a pandas transformation must return a pandas DataFrame, "
            f'but says it returns `{text}`; use mode="python" for dictionaries'
        )
