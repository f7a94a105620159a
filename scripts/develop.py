"""Puts the working tree into the environment this runs in: the Python files where they are, the native module as built.

    .build/venv/bin/python scripts/develop.py TARGET_DIRECTORY

Stands in for `maturin develop`, which would compile all dependencies a second time with other features.
"""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
from pathlib import Path

PYTHON_SOURCES = Path(__file__).resolve().parent.parent / "python"
COMMAND = """\
#!{python}
import sys
from feast._cli import main
sys.exit(main())
"""


def main() -> int:
    """Installs what `cargo build` left in the target directory."""
    target = Path(sys.argv[1]) / "debug"
    built = next((path for path in (target / "lib_feast.so", target / "lib_feast.dylib") if path.exists()), None)
    if built is None:
        print(f"error: no native module in `{target}`; run `cargo build --workspace` first", file=sys.stderr)
        return 1
    place(built, PYTHON_SOURCES / "feast" / "_feast.abi3.so")

    packages = Path(sysconfig.get_path("purelib"))
    (packages / "feast-rs.pth").write_text(f"{PYTHON_SOURCES}\n")
    command = Path(sysconfig.get_path("scripts")) / "feast"
    command.write_text(COMMAND.format(python=sys.executable))
    command.chmod(0o755)
    return 0


def place(source: Path, destination: Path) -> None:
    """Copies a file and swaps it in, because a running process may have the old one mapped."""
    fresh = destination.with_name(f".{destination.name}.{os.getpid()}")
    shutil.copyfile(source, fresh)
    fresh.replace(destination)


if __name__ == "__main__":
    sys.exit(main())
