"""The public methods have the names, parameters and defaults of Feast 0.67.

`feast_api.json` lists them as `inspect` saw them there.
"""

from __future__ import annotations

import importlib
import inspect
import json
from pathlib import Path

import pytest

import feast
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


def test_modules_that_are_not_here_say_so() -> None:
    cases = {
        "feast.feature_server": "`feast serve` and `FeatureStore.serve` serve",
        "feast.infra.offline_stores.offline_utils": "offline stores in Python, which are not run",
        "feast.inference": "those that only Feast itself uses are not",
    }
    for name, reason in cases.items():
        with pytest.raises(
            ModuleNotFoundError, match=f"feast-rs has no module `{name}`: .*{reason}"
        ) as caught:
            importlib.import_module(name)
        assert caught.value.name == name
    # Who looks whether a name is there gets an answer, and modules of others are none of our business.
    assert not hasattr(feast, "inference")
    with pytest.raises(ImportError, match="cannot import name 'inference'"):
        from feast import inference  # noqa: F401
    with pytest.raises(ModuleNotFoundError, match="No module named 'feasting'"):
        importlib.import_module("feasting")


def test_the_version_is_told_where_feast_tells_it() -> None:
    from feast.version import get_version

    assert get_version() == feast.__version__
