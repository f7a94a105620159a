"""The public methods have the names, parameters and defaults of Feast 0.67.

`feast_api.json` lists them as `inspect` saw them there.
"""

from __future__ import annotations

import inspect
import json
from pathlib import Path

from feast.feature_store import FeatureStore
from feast.infra.offline_stores.offline_store import RetrievalJob
from feast.online_response import OnlineResponse

# What we have beyond Feast comes last, with a default, so that every call of Feast's stays what it was.
ADDED = {
    "FeatureStore.serve_transformations": ", host=::",
    "FeatureStore.get_historical_features": ", as_of=None",
}
SHAPES = {"KEYWORD_ONLY": "*", "VAR_KEYWORD": "**"}

# Keywords that Feast does not have; calls written for Feast do not name them.
OURS = {
    ("materialize", "shard"),
    ("materialize_incremental", "shard"),
}


def described(member) -> str:
    if isinstance(member, property):
        return "property"
    parameters = []
    for name, parameter in inspect.signature(member).parameters.items():
        if (member.__name__, name) in OURS:
            assert parameter.kind is parameter.KEYWORD_ONLY
            assert parameter.default is None
        elif name != "self":
            default = "" if parameter.default is parameter.empty else f"={parameter.default}"
            parameters.append(SHAPES.get(parameter.kind.name, "") + name + default)
    return ("async " if inspect.iscoroutinefunction(member) else "") + f"({', '.join(parameters)})"


def test_every_method_of_feast_is_there_with_its_parameters():
    expected = json.loads((Path(__file__).parent / "feast_api.json").read_text())
    classes = {each.__name__: each for each in (FeatureStore, RetrievalJob, OnlineResponse)}
    # What Feast sets on instances is there as a property here.
    found = {
        name: described(inspect.getattr_static(classes[name.split(".")[0]], name.split(".")[1]))
        for name in expected
    }

    for name, parameters in ADDED.items():
        assert found[name].endswith(f"{parameters})"), found[name]
        found[name] = found[name].removesuffix(f"{parameters})") + ")"
    assert found == expected
