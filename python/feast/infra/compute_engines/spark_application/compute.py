"""Where Feast's type names look for the settings of the Spark application compute engine."""

from feast.infra.compute_engines.spark_application.config import SparkApplicationComputeEngineConfig

__all__ = ["SparkApplicationComputeEngineConfig"]
