"""The offline benches in one command: what users wait for when they make training data, beside the best of the others.

    make bench-offline
    python bench/offline/run.py --ours ENVIRONMENT [--peer ENVIRONMENT] [--cases NAME;NAME|all] [--rounds N]

Every side reads the same files in the same run, in a process of its own, in turns; medians are shown. CPU time is what a
busy machine distorts least. Values are compared by a checksum. Nothing here fails because something is slow.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import join
from measure import machine


def main() -> None:
    """Measures, prints the tables, and keeps them with every sample."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ours", type=Path, required=True, help="environment with feast-rs, DuckDB and Polars")
    parser.add_argument("--peer", type=Path, help="environment with feast==0.67.0; left out where it is not given")
    parser.add_argument("--data", type=Path, default=Path(".build/bench-data"), help="folder for the rows, kept")
    parser.add_argument("--results", type=Path, default=Path(".build/bench"), help="folder for the report")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cases", default=";".join(join.DEFAULT), help="; ".join(join.CASES))
    parser.add_argument(
        "--feast-cap",
        type=float,
        default=1e12,
        help="entity rows times feature rows above which Feast is left out: it takes minutes there",
    )
    arguments = parser.parse_args()
    wanted = list(join.CASES) if arguments.cases == "all" else arguments.cases.split(";")
    unknown = [name for name in wanted if name not in join.CASES]
    if unknown:
        parser.error(f"there is no case `{unknown[0]}`; there are {'; '.join(join.CASES)}")
    sides = join.Sides(arguments.ours.absolute(), arguments.peer.absolute() if arguments.peer else None)
    results = []
    for name in wanted:
        case = join.CASES[name]
        results += join.measure(
            name, case, sides, arguments.data.absolute(), arguments.rounds, int(arguments.feast_cap)
        )
    report = f"Point-in-time join, medians of {arguments.rounds} rounds, {machine()}\n\n{join.table(results)}\n"
    print(f"\n{report}")
    arguments.results.mkdir(parents=True, exist_ok=True)
    file = arguments.results / f"offline-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}"
    file.with_suffix(".md").write_text(report)
    file.with_suffix(".json").write_text(json.dumps([asdict(measured) for measured in results], indent=2) + "\n")
    print(f"report and all samples: {file}.md, {file}.json")


if __name__ == "__main__":
    main()
