"""One object of every kind that a repository can define, of the corpus, for the project that the file's name says.

A copy of this file is applied by our package and by Feast's.
"""

import sys
from pathlib import Path

sys.path.insert(0, "TESTS")
import corpus

from feast import FeatureService, Project
from feast.feature_logging import LoggingConfig
from feast.infra.offline_stores.file_source import FileLoggingDestination

project = Project(
    name=Path(__file__).stem.removeprefix("define_"),
    description="shared",
    tags={"a": "b"},
    owner="o",
)


def add(prefix, objects):
    """Objects are found by the names of the module."""
    globals().update({f"{prefix}_{name}": one for name, one in objects.items()})


# What has no event time would be looked at, where it is, to find one.
NEEDS_NO_LOOK = {
    name: one
    for name, one in corpus.DATA_SOURCES.items()
    if one.timestamp_field or name in ("push", "request", "mlflow", "mongodb")
}
corpus.driver_stats.online = True  # Feast makes tables also for views that are not served.
add("entity", {"driver": corpus.driver, "customer": corpus.customer})
add("source", NEEDS_NO_LOOK)
chosen = {
    name: corpus.OBJECTS["feature_view"][name] for name in ("driver_stats", "push", "no_entity")
}
add("view", chosen)
# Not the one with a function: without a pickle of it, which we do not write, Feast's reader drops it.
add("stream", {"stream_stats": corpus.stream_stats})
add("on_demand", {"scaled_rate": corpus.scaled_rate})
add("label", {"labels": corpus.labels})
add(
    "permission", {name: one for name, one in corpus.OBJECTS["permission"].items() if name != "all"}
)
served = FeatureService(
    name="served",
    features=[corpus.driver_stats[["trips"]], corpus.labels, corpus.scaled_rate],
    logging_config=LoggingConfig(FileLoggingDestination(path="logs"), sample_rate=0.5),
    tags={"model": "m"},
)
