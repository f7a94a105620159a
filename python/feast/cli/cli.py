"""The `feast` command for programs: `python -m feast.cli.cli apply`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NoReturn

__all__ = ["cli"]


def cli(args: Sequence[str] | None = None) -> NoReturn:
    """Runs a command line, by default that of this process, and ends the process with its exit code."""
    from feast._cli import main

    if args is not None:
        sys.argv = ["feast", *args]
    sys.exit(main())


if __name__ == "__main__":
    cli()
