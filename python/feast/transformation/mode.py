"""The languages a transformation can be written in."""

from __future__ import annotations

from enum import Enum


class TransformationMode(Enum):
    """Language and engine of a transformation."""

    PYTHON = "python"
    PANDAS = "pandas"
    SPARK_SQL = "spark_sql"
    SPARK = "spark"
    FLINK = "flink"
    RAY = "ray"
    SQL = "sql"
    TRINO_SQL = "trino_sql"
    SUBSTRAIT = "substrait"
