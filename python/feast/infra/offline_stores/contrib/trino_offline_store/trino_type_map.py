"""Types of Trino."""

from feast.type_map import trino_to_feast_value_type

__all__ = ["trino_to_feast_value_type"]
