"""Where Feast's type names look for the settings of the Ray compute engine."""

from feast.infra.compute_engines.ray.config import RayComputeEngineConfig

__all__ = ["RayComputeEngineConfig"]
