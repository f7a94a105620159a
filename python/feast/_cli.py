"""The `feast` command of the wheel: hands the command line to the engine."""

from __future__ import annotations

import signal
import sys


def main() -> int:
    """Runs the command line; returns the exit code."""
    # Ctrl-C ends a command at once; long-running ones install a handler of their own.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    from feast._feast import cli_main

    return int(cli_main(sys.argv))


if __name__ == "__main__":
    sys.exit(main())
