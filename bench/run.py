"""Measures what every user waits for, beside Feast in the same run: import, help, a plan that changes nothing.

    make bench
    python bench/run.py --ours ENVIRONMENT --peer ENVIRONMENT [--binary FILE] [--rounds N] [--results DIRECTORY]

Both sides take turns, so that a busy machine disturbs both alike; medians are shown. CPU time is what a noisy machine
distorts least. Nothing here fails because something is slow.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path


@dataclass
class Command:
    """One thing to measure."""

    measured: str
    side: str
    arguments: list[str]
    folder: Path | None = None
    samples: list[dict[str, float]] = field(default_factory=list)

    def run(self) -> dict[str, float]:
        """Runs it once: wall and CPU time in milliseconds, the most memory in MiB; children included in both."""
        start = time.perf_counter()
        process = subprocess.Popen(
            self.arguments,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env={**os.environ, "FEAST_USAGE": "False", "PYTHONWARNINGS": "ignore"},
        )
        messages = process.stderr.read().decode(errors="replace")
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        process.stderr.close()
        if process.returncode != 0:
            sys.exit(f"error: `{' '.join(self.arguments)}` ended with {process.returncode}:\n{messages}")
        scale = 1 if sys.platform == "darwin" else 1024
        return {
            "wall_ms": wall * 1000,
            "cpu_ms": (usage.ru_utime + usage.ru_stime) * 1000,
            "memory_mib": usage.ru_maxrss * scale / 2**20,
        }

    def median(self, of: str) -> float:
        """The median of one measure."""
        return statistics.median(sample[of] for sample in self.samples)


def applied_template(environment: Path, folder: Path) -> Path:
    """A repository as `feast init` makes it, applied; returns the folder with its definitions."""
    feast = str(environment / "bin" / "feast")
    folder.mkdir()
    repository = folder / "shop" / "feature_repo"
    for arguments, where in ((["init", "shop"], folder), (["apply"], repository)):
        done = subprocess.run([feast, *arguments], cwd=where, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            sys.exit(f"error: `feast {' '.join(arguments)}` in `{where}` failed:\n{done.stderr}")
    return repository


def commands(arguments: argparse.Namespace, scratch: Path) -> list[Command]:
    """All measurements; those of one row stand together, Feast's last."""
    ours, peer = arguments.ours.absolute(), arguments.peer.absolute()
    command_of = {"feast-rs": ours / "bin" / "feast", "Feast": peer / "bin" / "feast"}
    python_of = {"feast-rs": ours / "bin" / "python", "Feast": peer / "bin" / "python"}
    repositories = {
        "feast-rs": applied_template(ours, scratch / "ours"),
        "Feast": applied_template(peer, scratch / "peer"),
    }
    found = [Command("python -c pass", "Python alone", [str(python_of["feast-rs"]), "-c", "pass"])]
    for side, python in python_of.items():
        found.append(Command("import feast", side, [str(python), "-c", "import feast"]))
    for side, python in python_of.items():
        use = "from feast import FeatureStore; FeatureStore(repo_path='.')"
        found.append(Command("FeatureStore(...)", side, [str(python), "-c", use], repositories[side]))
    binary = [("feast-rs binary", arguments.binary.absolute())] if arguments.binary else []
    for side, feast in [*binary, *command_of.items()]:
        found.append(Command("feast --help", side, [str(feast), "--help"]))
    definitions = (
        "import runpy, glob; [runpy.run_path(f) for f in glob.glob('*definitions*.py') + glob.glob('example*.py')]"
    )
    found.append(
        Command(
            "import of the definitions",
            "feast-rs",
            [str(python_of["feast-rs"]), "-c", definitions],
            repositories["feast-rs"],
        )
    )
    for side, feast in command_of.items():
        found.append(Command("feast plan, no change", side, [str(feast), "plan"], repositories[side]))
    return found


def table(measured: list[Command]) -> str:
    """Medians as Markdown; the ratio compares with Feast in CPU time."""
    reference = {command.measured: command for command in measured if command.side == "Feast"}
    lines = [
        "| | side | wall ms | CPU ms | memory MiB | Feast's CPU time / this |",
        "|---|---|--:|--:|--:|--:|",
    ]
    for command in measured:
        feast = reference.get(command.measured)
        ratio = f"{feast.median('cpu_ms') / command.median('cpu_ms'):.1f}" if feast not in (None, command) else ""
        lines.append(
            f"| {command.measured} | {command.side} | {command.median('wall_ms'):.0f} | {command.median('cpu_ms'):.0f} "
            f"| {command.median('memory_mib'):.0f} | {ratio} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measures, prints the table and keeps every sample."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ours", type=Path, required=True, help="environment with feast-rs")
    parser.add_argument("--peer", type=Path, required=True, help="environment with feast==0.67.0")
    parser.add_argument("--binary", type=Path, help="the standalone command")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--results", type=Path, help="directory for a JSON file with every sample")
    arguments = parser.parse_args()
    if arguments.rounds < 1:
        parser.error(f"--rounds must be at least 1, found {arguments.rounds}")
    with tempfile.TemporaryDirectory() as scratch:
        measured = commands(arguments, Path(scratch))
        for command in measured:
            command.run()  # fills the caches of files
        for number in range(arguments.rounds):
            print(f"    round {number + 1} of {arguments.rounds}", file=sys.stderr)
            for command in measured:
                command.samples.append(command.run())
    machine = {
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "machine": platform.machine(),
        "python": platform.python_version(),
        "system": platform.platform(),
    }
    print(f"\nMedians of {arguments.rounds} rounds, {machine['cores']} cores, load {machine['load']:.1f}\n")
    print(table(measured))
    if arguments.results:
        arguments.results.mkdir(parents=True, exist_ok=True)
        file = arguments.results / f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}.json"
        samples = [{k: v for k, v in asdict(command).items() if k != "folder"} for command in measured]
        file.write_text(json.dumps({"machine": machine, "commands": samples}, indent=2) + "\n")
        print(f"\nall samples: {file}")


if __name__ == "__main__":
    main()
