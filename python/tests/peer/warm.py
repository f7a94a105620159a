"""Feast imported once for all tests: each program runs in a fork of a process that has imported it, and so is as fresh as
a process of its own, without the four seconds of work that the import takes.

`interpreter` gives commands that stand for `python` and `feast`, with the same streams, folder, environment and exit code;
of Python's own options it knows `-c`. Behind them is this file as a program, in Feast's interpreter, in three layers: a
process that listens; for each `PYTHONPATH` that is asked for, one that has imported Feast with it; and for each program a
fork of that, with a process beside it that ends the program when whoever asked for it is gone.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import Any

# What programs of the tests would import themselves; what an interpreter does not have, it does without.
MODULES = [
    "feast.cli.cli",
    "feast.feature_server",
    "feast.infra.compute_engines.local.compute",
    "feast.infra.offline_stores.dask",
    "feast.infra.offline_stores.duckdb",
    "feast.infra.online_stores.sqlite",
    "feast.infra.passthrough_provider",
    "feast.infra.registry.sql",
    "feast.repo_operations",
]
LISTENING = b"listening\n"
COMMAND = """\
#!{python} -IS
import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as server:
    server.connect({address!r})
    asked = {{"python": {command!r}, "program": {program!r} + sys.argv[1:], "folder": os.getcwd(), "environment": dict(os.environ)}}
    message = json.dumps(asked).encode()
    socket.send_fds(server, [len(message).to_bytes(8, "big")], [0, 1, 2])
    server.sendall(message)
    code = server.recv(1)
sys.exit(code[0] if code else "error: the process that has imported Feast is gone")
"""


@contextmanager
def interpreter(python: str, folder: Path) -> Iterator[Path]:
    """A command `python` that stands for an interpreter, and beside it one that stands for its `feast`."""
    address = str(folder / "socket")
    (folder / "bin").mkdir()
    for name, program in (("python", []), ("feast", [str(Path(python).with_name("feast"))])):
        command = folder / "bin" / name
        known = {"address": address, "command": str(folder / "bin" / "python"), "program": program}
        command.write_text(COMMAND.format(python=sys.executable, **known))
        command.chmod(0o755)
    # Without a pool of threads for linear algebra, which forks would have to start again.
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    environment.pop("PYTHONPATH", None)
    pipe: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    listening = subprocess.Popen([python, __file__, address], env=environment, **pipe)
    assert listening.stdout.readline() == LISTENING, f"{python} does not run {__file__}"
    try:
        yield folder / "bin" / "python"
    finally:
        # The end of its input is its end.
        listening.communicate()


class Asked:
    """A program that somebody wants to be run."""

    def __init__(self, message: bytes, descriptors: list[int]) -> None:
        self.message = message
        self.descriptors = descriptors
        """Where its exit code is awaited; then its standard streams."""
        self.values: dict[str, Any] = json.loads(message)

    @classmethod
    def receive(cls, connection: socket.socket) -> Asked | None:
        """The next one; `None` at the end."""
        length, descriptors, *_ = socket.recv_fds(connection, 8, 4)
        if not length:
            return None
        message, missing = b"", int.from_bytes(length, "big")
        while missing:
            message += (part := connection.recv(missing))
            missing -= len(part)
        return cls(message, list(descriptors))

    def send(self, connection: socket.socket) -> None:
        """Hands it on to another process."""
        socket.send_fds(connection, [len(self.message).to_bytes(8, "big")], self.descriptors)
        connection.sendall(self.message)
        self.close()

    def close(self) -> None:
        """Lets go of it: whoever reads its output waits until all have."""
        for descriptor in self.descriptors:
            os.close(descriptor)


def listen(address: str) -> Asked:
    """Hands programs to processes that have imported Feast. Returns in the one that is to run a program."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen(64)
    os.write(1, LISTENING)
    os.dup2(2, 1)
    warm: dict[str, socket.socket] = {}
    while True:
        if sys.stdin in select.select([listener, sys.stdin], [], [])[0]:
            sys.exit()
        client, _ = listener.accept()
        asked = Asked.receive(client)
        if asked is None:
            client.close()
            continue
        asked.descriptors.insert(0, client.detach())
        path = asked.values["environment"].get("PYTHONPATH", "")
        if path not in warm:
            warm[path], programs = socket.socketpair()
            if os.fork() == 0:
                for other in (listener, *warm.values()):
                    other.close()
                asked.close()
                return run_each(path, programs)
            programs.close()
        asked.send(warm[path])


def run_each(path: str, programs: socket.socket) -> Asked:
    """Imports Feast, then forks for each program. Returns in the fork."""
    atexit.register(leave)
    sys.path[1:1] = [folder for folder in path.split(os.pathsep) if folder]
    for module in MODULES:
        with suppress(ImportError):
            importlib.import_module(module)
    # A collection in a fork would touch, and so copy, all that is shared.
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while asked := Asked.receive(programs):
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            programs.close()
            return attended(asked)
        asked.close()
    sys.exit()


def attended(asked: Asked) -> Asked:
    """Forks, and returns in the fork. The process beside it tells its exit code, or ends it when nobody awaits that."""
    client, *streams = asked.descriptors
    child = os.fork()
    if child == 0:
        os.setsid()
        os.close(client)
        for stream, descriptor in zip(streams, (0, 1, 2), strict=True):
            os.dup2(stream, descriptor)
            os.close(stream)
        return asked
    for descriptor in (0, 1, 2, *streams):
        os.close(descriptor)
    ended = os.pidfd_open(child)
    if ended not in select.select([ended, client], [], [])[0]:
        os.killpg(child, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    with suppress(OSError):
        os.write(client, bytes([code if code >= 0 else 128 - code]))
    os._exit(0)


def run(asked: Asked) -> None:
    """Runs a program as its interpreter would have done."""
    os.chdir(asked.values["folder"])
    os.environ.clear()
    os.environ.update(asked.values["environment"])
    time.tzset()
    # What it starts in turn begins in a fork too.
    sys.executable = asked.values["python"]
    program, *arguments = asked.values["program"]
    main = ModuleType("__main__")
    if program == "-c":
        source, *arguments = arguments
        code, sys.path[0] = compile(source, "<string>", "exec"), ""
    else:
        code, sys.path[0] = (
            compile(Path(program).read_bytes(), program, "exec"),
            str(Path(program).absolute().parent),
        )
        main.__file__ = program
    sys.argv = [program, *arguments]
    sys.modules["__main__"] = main
    leave.code = 1
    try:
        exec(code, main.__dict__)  # noqa: S102  # programs of the tests
        leave.code = 0
    except SystemExit as ended:
        leave.code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        raise


class Leave:
    """The last thing a process does. To take Feast apart object by object would take it longer than most programs run."""

    code = 0

    def __call__(self) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(self.code)


leave = Leave()

if __name__ == "__main__":
    run(listen(sys.argv[1]))
