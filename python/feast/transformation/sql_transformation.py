"""Transformations whose function returns the text of a query."""

from __future__ import annotations

from typing import Any

from feast.transformation.base import Transformation
from feast.transformation.mode import TransformationMode


class SQLTransformation(Transformation):
    """A function from the names of its inputs to a query."""

    _mode = TransformationMode.SQL

    def transform(self, inputs: Any) -> str:
        """The query for these inputs."""
        return str(self.function()(inputs))
