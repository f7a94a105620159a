"""Transformations that run on Ray."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from feast.transformation.base import Transformation
from feast.transformation.mode import TransformationMode


class RayTransformation(Transformation):
    """A function from a Ray dataset to a Ray dataset."""

    _mode = TransformationMode.RAY

    def __new__(
        cls,
        udf: Callable[..., Any] | None = None,
        udf_string: str | None = None,
        name: str | None = None,
        tags: dict[str, str] | None = None,
        description: str = "",
        owner: str = "",
    ) -> RayTransformation:
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
        super().__init__(
            mode=TransformationMode.RAY,
            udf=udf,  # type: ignore[arg-type]
            udf_string=udf_string or "",
            name=name,
            tags=tags,
            description=description,
            owner=owner,
        )

    def transform(self, inputs: Any) -> Any:
        """Runs the function on a Ray dataset."""
        return self.function()(inputs)
