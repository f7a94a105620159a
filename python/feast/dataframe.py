"""A data frame of any library, with the name of that library."""

from __future__ import annotations

from enum import Enum
from typing import Any


class DataFrameEngine(str, Enum):
    """The libraries that are told apart."""

    PANDAS = "pandas"
    SPARK = "spark"
    DASK = "dask"
    RAY = "ray"
    ARROW = "arrow"
    POLARS = "polars"
    UNKNOWN = "unknown"


# The packages in which the frames of each library are defined.
_PACKAGES = {
    "pandas": DataFrameEngine.PANDAS,
    "pyarrow": DataFrameEngine.ARROW,
    "pyspark": DataFrameEngine.SPARK,
    "dask": DataFrameEngine.DASK,
    "dask_expr": DataFrameEngine.DASK,
    "ray": DataFrameEngine.RAY,
    "polars": DataFrameEngine.POLARS,
}
_LAZY = (DataFrameEngine.SPARK, DataFrameEngine.DASK, DataFrameEngine.RAY)


class FeastDataFrame:
    """A frame, its library, and whatever should travel with it."""

    def __init__(
        self,
        data: Any,
        engine: DataFrameEngine | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        package = type(data).__module__.partition(".")[0]
        found = _PACKAGES.get(package, DataFrameEngine.UNKNOWN)
        if engine is not None and engine != found:
            raise ValueError(
                f"`engine` is {engine.value}, but the data are a {type(data).__name__} of "
                f"{found.value}"
            )
        self.data = data
        self.metadata = metadata or {}
        self._engine = found

    @property
    def engine(self) -> DataFrameEngine:
        """The library of the frame."""
        return self._engine

    @property
    def is_lazy(self) -> bool:
        """Whether its rows are only computed when they are asked for."""
        return self.engine in _LAZY

    def __repr__(self) -> str:
        return f"FeastDataFrame(engine={self.engine.value}, type={type(self.data).__name__})"
