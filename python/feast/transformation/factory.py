"""Which class belongs to a transformation mode."""

from __future__ import annotations

import importlib
from typing import Any

_PACKAGE = "feast.transformation"

TRANSFORMATION_CLASS_FOR_TYPE = {
    "python": f"{_PACKAGE}.python_transformation.PythonTransformation",
    "pandas": f"{_PACKAGE}.pandas_transformation.PandasTransformation",
    "substrait": f"{_PACKAGE}.substrait_transformation.SubstraitTransformation",
    "sql": f"{_PACKAGE}.sql_transformation.SQLTransformation",
    "spark_sql": f"{_PACKAGE}.spark_transformation.SparkTransformation",
    "spark": f"{_PACKAGE}.spark_transformation.SparkTransformation",
    "flink": f"{_PACKAGE}.flink_transformation.FlinkTransformation",
    "ray": f"{_PACKAGE}.ray_transformation.RayTransformation",
    "trino_sql": f"{_PACKAGE}.trino_transformation.TrinoTransformation",
}


def get_transformation_class_from_type(transformation_type: str) -> Any:
    """The class of a mode, or at an import path that ends in `Transformation`."""
    path = TRANSFORMATION_CLASS_FOR_TYPE.get(transformation_type, transformation_type)
    if not path.endswith("Transformation"):
        raise ValueError(
            f"`{transformation_type}` is no transformation mode; use one of "
            + ", ".join(TRANSFORMATION_CLASS_FOR_TYPE)
        )
    module_name, _, class_name = path.rpartition(".")
    return getattr(importlib.import_module(module_name), class_name)
