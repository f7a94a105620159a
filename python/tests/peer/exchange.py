"""The side of the exchange that runs in Feast's interpreter: messages in, messages out, as JSON.

    python exchange.py write              # the corpus, as {kind: {name: base64}}
    python exchange.py echo < messages    # the same, read and written again

Feast imports the client library of each store together with its sources; the libraries that are
not installed are replaced by empty stand-ins, since declaring objects calls none of them.
"""

from __future__ import annotations

import base64
import importlib.abc
import importlib.machinery
import json
import sys
import types
import warnings
from pathlib import Path

ABSENT = [
    "boto3",
    "botocore",
    "clickhouse_connect",
    "couchbase",
    "couchbase_columnar",
    "great_expectations",
    "oracledb",
    "psycopg",
    "psycopg_pool",
    "pymongo",
    "pyspark",
    "ray",
    "regex",
    "trino",
]


class StandIn(types.ModuleType):
    """A module in which every name is an empty class."""

    __path__: list[str] = []

    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(name)
        base = Exception if name.endswith(("Error", "Exception")) else object
        members = {
            "__init__": lambda self, *args, **kwargs: None,
            "__class_getitem__": classmethod(lambda cls, _: cls),
        }
        made = type(name, (base,), members)
        setattr(self, name, made)
        return made


class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Serves stand-ins for the libraries that are not installed."""

    def find_spec(self, name: str, path: object, target: object = None) -> object:
        package = name.split(".")[0]
        # What an installed library lacks is lacking.
        if package in ABSENT and (name == package or isinstance(sys.modules.get(package), StandIn)):
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        return StandIn(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        pass


CLASSES = {
    "project": "feast.project.Project",
    "entity": "feast.entity.Entity",
    "data_source": "feast.data_source.DataSource",
    "feature_view": "feast.feature_view.FeatureView",
    "stream_feature_view": "feast.stream_feature_view.StreamFeatureView",
    "on_demand_feature_view": "feast.on_demand_feature_view.OnDemandFeatureView",
    "label_view": "feast.labeling.label_view.LabelView",
    "feature_service": "feast.feature_service.FeatureService",
    "saved_dataset": "feast.saved_dataset.SavedDataset",
    "validation_reference": "feast.saved_dataset.ValidationReference",
    "permission": "feast.permissions.permission.Permission",
}
MESSAGES = {
    "project": "Project",
    "entity": "Entity",
    "data_source": "DataSource",
    "feature_view": "FeatureView",
    "stream_feature_view": "StreamFeatureView",
    "on_demand_feature_view": "OnDemandFeatureView",
    "label_view": "LabelView",
    "feature_service": "FeatureService",
    "saved_dataset": "SavedDataset",
    "validation_reference": "ValidationReference",
    "permission": "Permission",
}
FILES = {"validation_reference": "ValidationProfile"}


def message_class(kind: str) -> type:
    """The message of a kind of object."""
    file = FILES.get(kind, MESSAGES[kind])
    module = importlib.import_module(f"feast.protos.feast.core.{file}_pb2")
    return getattr(module, MESSAGES[kind])


def definition_class(kind: str) -> type:
    """The class of a kind of object."""
    module, _, name = CLASSES[kind].rpartition(".")
    return getattr(importlib.import_module(module), name)


def corpus() -> dict[str, dict[str, bytes]]:
    """The messages of the corpus."""
    sys.path.insert(0, str(Path(__file__).parent))
    import corpus

    return {
        kind: {name: one.to_proto().SerializeToString() for name, one in objects.items()}
        for kind, objects in corpus.OBJECTS.items()
    }


def echo(messages: dict[str, dict[str, bytes]]) -> dict[str, dict[str, bytes]]:
    """Messages, made objects and messages again."""
    result: dict[str, dict[str, bytes]] = {}
    for kind, named in messages.items():
        result[kind] = {}
        for name, data in named.items():
            message = message_class(kind).FromString(data)
            one = definition_class(kind).from_proto(message)
            result[kind][name] = one.to_proto().SerializeToString()
    return result


def to_json(messages: dict[str, dict[str, bytes]]) -> str:
    """Messages as text."""
    return json.dumps(
        {k: {n: base64.b64encode(d).decode() for n, d in v.items()} for k, v in messages.items()}
    )


def from_json(text: str) -> dict[str, dict[str, bytes]]:
    """The inverse of `to_json`."""
    return {k: {n: base64.b64decode(d) for n, d in v.items()} for k, v in json.loads(text).items()}


if __name__ == "__main__":
    sys.meta_path.append(Finder())
    warnings.simplefilter("ignore")
    sys.stdout, stdout = sys.stderr, sys.stdout
    done = corpus() if sys.argv[1] == "write" else echo(from_json(sys.stdin.read()))
    stdout.write(to_json(done))
