"""Transformations that run on Spark."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Union

from feast.transformation.base import Transformation
from feast.transformation.mode import TransformationMode


class SparkTransformation(Transformation):
    """A function on Spark frames (mode `spark`), or one that returns Spark SQL (`spark_sql`)."""

    def __new__(
        cls,
        mode: Union[TransformationMode, str],
        udf: Any,
        udf_string: str,
        spark_config: dict[str, Any] = {},  # noqa: B006  (the signature of the contract)
        name: str | None = None,
        tags: dict[str, str] | None = None,
        description: str = "",
        owner: str = "",
        *args: Any,
        **kwargs: Any,
    ) -> SparkTransformation:
        return object.__new__(cls)

    def __init__(
        self,
        mode: Union[TransformationMode, str],
        udf: Callable[..., Any],
        udf_string: str,
        spark_config: dict[str, Any] = {},  # noqa: B006
        name: str | None = None,
        tags: dict[str, str] | None = None,
        description: str = "",
        owner: str = "",
        *args: Any,
        **kwargs: Any,
    ) -> None:
        super().__init__(mode, udf, udf_string, name, tags, description, owner)
        self.spark_config = dict(spark_config)
