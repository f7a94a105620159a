"""Transformations whose function returns a query for Trino."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Union

from feast.transformation.base import Transformation
from feast.transformation.mode import TransformationMode


class TrinoTransformation(Transformation):
    """A function from the names of its inputs to a query for Trino."""

    def __new__(
        cls,
        mode: Union[TransformationMode, str] = TransformationMode.TRINO_SQL,
        udf: Callable[..., Any] | None = None,
        udf_string: str = "",
        name: str | None = None,
        tags: dict[str, str] | None = None,
        description: str = "",
        owner: str = "",
        *args: Any,
        **kwargs: Any,
    ) -> TrinoTransformation:
        return object.__new__(cls)

    def __init__(
        self,
        mode: Union[TransformationMode, str] = TransformationMode.TRINO_SQL,
        udf: Callable[..., Any] | None = None,
        udf_string: str = "",
        name: str | None = None,
        tags: dict[str, str] | None = None,
        description: str = "",
        owner: str = "",
        *args: Any,
        **kwargs: Any,
    ) -> None:
        super().__init__(mode, udf, udf_string, name, tags, description, owner)  # type: ignore[arg-type]

    def transform(self, *inputs: Any) -> Any:
        """The query for these inputs."""
        return self.function()(*inputs)
