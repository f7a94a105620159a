"""Measures the registry beside Feast in the same run: the first apply, a plan without changes, one changed view, a list.

    make bench-registry
    python bench/registry.py --ours ENVIRONMENT --peer ENVIRONMENT [--binary FILE] [--views N] [--results DIRECTORY]

CPU time, children included, is what a busy machine distorts least. Importing the definitions is Python's work on both sides
and is measured apart; the columns beside it are what is left. `--postgres URL` measures there instead of in SQLite.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from pathlib import Path

from run import Command

DEFINITIONS = """
from datetime import timedelta
from feast import Entity, FeatureView, Field, FileSource, ValueType
from feast.types import Float32, Int64

driver = Entity(name="driver", join_keys=["driver_id"], value_type=ValueType.INT64)
for number in range({views}):
    source = FileSource(name=f"source_{{number}}", path="data.parquet", timestamp_field="event_timestamp")
    globals()[f"source_{{number}}"] = source
    globals()[f"view_{{number}}"] = FeatureView(
        name=f"view_{{number}}",
        entities=[driver],
        ttl=timedelta(days=1),
        schema=[
            Field(name="driver_id", dtype=Int64),
            *(Field(name=f"feature_{{at}}", dtype=Float32) for at in range(10)),
        ],
        source=source,
        description="{description}" if number == 7 else "",
    )
"""

DATA = """
import pandas as pd
frame = pd.DataFrame({"driver_id": [1], "event_timestamp": pd.to_datetime(["2026-11-20T00:00:00Z"]),
    **{f"feature_{at}": pd.Series([0.5], dtype="float32") for at in range(10)}})
frame.to_parquet("data.parquet")
"""


def repository(folder: Path, registry: str, python: Path) -> None:
    """A repository with its data."""
    folder.mkdir(parents=True)
    config = f"project: bench\nprovider: local\nregistry:\n{registry}online_store:\n  type: sqlite\n  path: online.db\n"
    (folder / "feature_store.yaml").write_text(config + "entity_key_serialization_version: 3\n")
    Command("data", "", [str(python), "-c", DATA], folder).run()


def define(folder: Path, views: int, description: str = "") -> None:
    """Writes the definitions."""
    (folder / "definitions.py").write_text(DEFINITIONS.format(views=views, description=description))


def main() -> None:
    """Measures and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ours", type=Path, required=True, help="environment with feast-rs")
    parser.add_argument("--peer", type=Path, help="environment with feast==0.67.0")
    parser.add_argument("--binary", type=Path, help="the standalone command")
    parser.add_argument("--views", type=int, default=1000)
    parser.add_argument("--postgres", help="URL of an empty database for each side, with `{side}` in its name")
    parser.add_argument("--results", type=Path, help="directory for a JSON file with every sample")
    arguments = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        for side, environment in (("feast-rs", arguments.ours), ("Feast", arguments.peer)):
            if environment is None:
                continue
            python, feast = environment.absolute() / "bin" / "python", environment.absolute() / "bin" / "feast"
            folder = Path(scratch) / side
            name = side.replace("-", "_").lower()
            url = arguments.postgres.format(side=name) if arguments.postgres else f"sqlite:///{folder}/registry.sqlite"
            repository(folder, f"  registry_type: sql\n  path: {url}\n", python)
            define(folder, arguments.views)

            def measure(what: str, command: list[str], folder: Path = folder, side: str = side) -> None:
                rows.append({"what": what, "side": side, **Command(what, side, command, folder).run()})
                print(f"    {side}: {what}", file=sys.stderr)

            measure("import of the definitions", [str(python), "-c", "import definitions"])
            measure("first apply", [str(feast), "apply"])
            measure("plan, no change", [str(feast), "plan"])
            define(folder, arguments.views, "changed")
            measure("apply, one view changed", [str(feast), "apply"])
            for lister in [feast, *([arguments.binary.absolute()] if arguments.binary and side == "feast-rs" else [])]:
                measure(f"feature-views list ({lister.parent.name})", [str(lister), "feature-views", "list"])
            shutil.rmtree(folder)
    print(f"\n{arguments.views} feature views, registry in {'PostgreSQL' if arguments.postgres else 'SQLite'}\n")
    print("| | side | CPU ms | without the import | wall ms | memory MiB |\n|---|---|--:|--:|--:|--:|")
    imports = {row["side"]: row["cpu_ms"] for row in rows if row["what"].startswith("import")}
    for row in rows:
        rest = row["cpu_ms"] - imports[row["side"]] if "apply" in row["what"] or "plan" in row["what"] else None
        print(
            f"| {row['what']} | {row['side']} | {row['cpu_ms']:.0f} | {'' if rest is None else f'{rest:.0f}'} "
            f"| {row['wall_ms']:.0f} | {row['memory_mib']:.0f} |"
        )
    if arguments.results:
        arguments.results.mkdir(parents=True, exist_ok=True)
        file = arguments.results / f"registry-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}.json"
        file.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
