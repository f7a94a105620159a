"""A process that runs functions of on-demand feature views for a server: `feast_server`'s workers start it.

It reads requests from the socket that is its standard input and answers them one after the other. What a function
prints goes to standard error, and reading standard input finds nothing: neither can disturb the conversation.
"""

from __future__ import annotations

import math
import os
import signal
import socket
import struct
import sys
import threading
import time
from typing import Any

from feast._feast import Transformations

_LENGTH = struct.Struct("<Q")
# Messages that are copied to go out, and taken in, with one call.
_SMALL = 1 << 16
# Seconds after which no further call of a request is begun: the server then has whoever is free make it.
_SHARE = 0.005
# A process that holds more than this part of its limit after a call makes room for a fresh one.
_FULL = 0.8


def main() -> None:
    """Serves until the other side closes the socket."""
    connection = _take_over_socket()
    limit = int(sys.argv[1]) if len(sys.argv) > 1 else 0
    _limit_memory(limit)
    # Ctrl-C reaches everybody at the terminal; the server decides when its workers end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()
    # The workers are the parallelism; libraries read this when a function first imports them.
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    transformations = Transformations()
    _send(connection, b"")
    while True:
        request = _receive(connection)
        if request is None:
            break
        _send(connection, _answer(transformations, request))
        del request
        if limit and _peak() > limit * _FULL and _resident() > limit * _FULL:
            break
    # Without waiting for threads that a function may have left behind.
    sys.stderr.flush()
    os._exit(0)


def _answer(transformations: Transformations, request: bytes) -> bytes:
    call = transformations.prepare(request)
    if isinstance(call, bytes):
        return call
    function, calls, prepared = call
    made: list[tuple[bool, Any]] = []
    until = time.monotonic() + _SHARE
    for arguments in calls:
        if made and time.monotonic() > until:
            break
        try:
            # From here and not from Rust: what a function calls may give up the interpreter and come back to us.
            made.append((True, function(*arguments)))
        except BaseException as error:
            made.append((False, error))
    return transformations.finish(prepared, made)


def _take_over_socket() -> socket.socket:
    connection = socket.socket(fileno=os.dup(0))
    connection.setblocking(True)
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    os.dup2(2, 1)
    return connection


def _limit_memory(limit: int) -> None:
    if not limit:
        return
    try:
        import resource
    except ImportError:
        return
    # What is mapped for sharing or reading, such as libraries, does not count.
    for kind in ("RLIMIT_DATA", "RLIMIT_CORE"):
        if hasattr(resource, kind):
            wanted = limit if kind == "RLIMIT_DATA" else 0
            _, hard = resource.getrlimit(getattr(resource, kind))
            if hard != resource.RLIM_INFINITY:
                wanted = min(wanted, hard)
            resource.setrlimit(getattr(resource, kind), (wanted, hard))


def _end_with_parent(parent: int) -> None:
    """Ends a process whose server is gone while a function computes for ever."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _peak() -> float:
    """The most bytes of memory that were ever in use, which is quicker to learn than how many are now."""
    try:
        import resource
    except ImportError:
        return math.inf
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (
        1 if sys.platform == "darwin" else 1024
    )


def _resident() -> int:
    """Bytes of memory in use; 0 where the system does not tell."""
    try:
        with open("/proc/self/statm", "rb") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0


def _send(connection: socket.socket, message: bytes) -> None:
    head = _LENGTH.pack(len(message))
    # One write wakes the other side once.
    connection.sendall(head + message if len(message) < _SMALL else head)
    if len(message) >= _SMALL:
        connection.sendall(message)


def _receive(connection: socket.socket) -> bytes | None:
    # Nobody sends a second request before the first is answered.
    message = b""
    while len(message) < _LENGTH.size:
        more = connection.recv(_SMALL)
        if not more:
            return None
        message += more
    length = _LENGTH.size + _LENGTH.unpack_from(message)[0]
    parts = [message[_LENGTH.size :]]
    missing = length - len(message)
    while missing > 0:
        more = connection.recv(min(missing, 1 << 24), socket.MSG_WAITALL)
        if not more:
            return None
        parts.append(more)
        missing -= len(more)
    return parts[0] if len(parts) == 1 else b"".join(parts)
