"""What one side does with a shared registry; run by our package and by Feast's.

    python interop.py < STEPS     # a list of [VERB, REPOSITORY, PROJECT], as JSON; prints the list of what they gave

`fill` puts the corpus into the project of the repository by the registry's interface, object by object; `read` gives
`{kind: {name: base64 of the message}}` of a project as objects of this side; `apply` and `plan` run the repository.
"""

from __future__ import annotations

import base64
import contextlib
import io
import json
import sys
import warnings
from pathlib import Path

import exchange

PLURALS = {kind: "entities" if kind == "entity" else f"{kind}s" for kind in exchange.MESSAGES}


def fill(repository: Path, project: str) -> dict[str, int]:
    """Applies every object of the corpus; gives how many there are, by kind."""
    import corpus

    from feast import FeatureStore, Project

    registry = FeatureStore(repo_path=str(repository)).registry
    registry.apply_project(Project(name=project, description="d", tags={"a": "b"}, owner="o"))
    counts = {"project": 1}
    for kind in PLURALS:
        # Feast cannot read back a permission for everybody, not even its own.
        objects = [
            one
            for name, one in corpus.OBJECTS[kind].items()
            if (kind, name) != ("permission", "all")
        ]
        if kind == "project":
            continue
        apply = getattr(
            registry, "apply_feature_view" if kind.endswith("_view") else f"apply_{kind}"
        )
        for one in objects:
            apply(one, project)
        counts[kind] = len({one.name for one in objects})
    return counts


def read(repository: Path, project: str) -> dict[str, dict[str, str]]:
    """The objects of a project, as this side understands them."""
    from feast import FeatureStore

    registry = FeatureStore(repo_path=str(repository)).registry
    result: dict[str, dict[str, str]] = {"project": {}}
    for kind, plural in PLURALS.items():
        of_kind = (
            [registry.get_project(project)]
            if kind == "project"
            else getattr(registry, f"list_{plural}")(project)
        )
        result[kind] = {
            one.name: base64.b64encode(one.to_proto().SerializeToString()).decode()
            for one in of_kind
        }
    return result


def command(verb: str, repository: Path) -> str:
    """What a command on the repository says."""
    import os

    from feast import repo_operations
    from feast.repo_config import load_repo_config

    config = load_repo_config(repository, repository / "feature_store.yaml")
    said = io.StringIO()
    before = os.getcwd()
    sys.path.insert(0, str(repository))
    run = repo_operations.plan if verb == "plan" else repo_operations.apply_total
    with contextlib.redirect_stdout(said):
        run(config, repository, True)
    os.chdir(before)
    return said.getvalue()


VERBS = {
    "fill": fill,
    "read": read,
    "apply": lambda repository, _: command("apply", repository),
    "plan": lambda repository, _: command("plan", repository),
}

if __name__ == "__main__":
    # The stand-ins come last: libraries that are installed are the real ones.
    sys.meta_path.append(exchange.Finder())
    warnings.simplefilter("ignore")
    sys.path.insert(0, str(Path(__file__).parent))
    sys.stdout, stdout = sys.stderr, sys.stdout
    steps = json.load(sys.stdin)
    stdout.write(
        json.dumps([VERBS[verb](Path(repository), project) for verb, repository, project in steps])
    )
