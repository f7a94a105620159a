"""Redis without a client: commands as bytes, Feast's names of fields, and pipelines sent by a program in C."""

from __future__ import annotations

import json
import os
import random
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

from servers import run

HERE = Path(__file__).parent


def command(*words: bytes) -> bytes:
    """A command as Redis reads it."""
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)


def field(view: str, feature: str) -> bytes:
    """The field in which Feast keeps a feature: MurmurHash3 of both names, little-endian."""
    data, mask = f"{view}:{feature}".encode(), 0xFFFFFFFF
    digest = 0
    for at in range(0, len(data), 4):
        block = data[at : at + 4]
        mixed = int.from_bytes(block, "little") * 0xCC9E2D51 & mask
        mixed = ((mixed << 15 | mixed >> 17) & mask) * 0x1B873593 & mask
        digest ^= mixed
        if len(block) == 4:
            digest = ((digest << 13 | digest >> 19) & mask) * 5 + 0xE6546B64 & mask
    digest ^= len(data)
    digest = (digest ^ digest >> 16) * 0x85EBCA6B & mask
    digest = (digest ^ digest >> 13) * 0xC2B2AE35 & mask
    return struct.pack("<I", digest ^ digest >> 16)


class Redis:
    """One connection, for what is not measured."""

    def __init__(self, port: int) -> None:
        self.stream = socket.create_connection(("127.0.0.1", port))
        self.answers = self.stream.makefile("rb")

    def ask(self, *words: bytes) -> object:
        """The reply to one command."""
        self.stream.sendall(command(*words))
        return self.reply()

    def reply(self) -> object:
        """The next reply."""
        line = self.answers.readline()
        kind, rest = line[:1], line[1:-2]
        if kind == b"-":
            raise RuntimeError(rest.decode())
        if kind == b"$":
            length = int(rest)
            return None if length < 0 else self.answers.read(length + 2)[:-2]
        if kind == b"*":
            return [self.reply() for _ in range(int(rest))]
        return int(rest) if kind == b":" else rest

    def every_key(self) -> Iterator[bytes]:
        """All keys that hold a hash."""
        cursor = b"0"
        while True:
            cursor, keys = self.ask(b"SCAN", cursor, b"COUNT", b"1000", b"TYPE", b"hash")
            yield from keys
            if cursor == b"0":
                return


def client(folder: Path) -> Path:
    """The program that sends pipelines."""
    program = folder / "pipelines"
    if not program.exists():
        run([os.environ.get("CC", "cc"), "-O2", "-o", program, HERE / "pipelines.c"])
    return program


def write_pipelines(file: Path, keys: list[bytes], n_keys: int, name: bytes, rows: list[list[bytes]]) -> None:
    """Pipelines of one command over random keys; behind each key comes one of the rows."""
    dice = random.Random(13)
    with file.open("wb") as out:
        for _ in range(100 if n_keys < 500 else 20):
            text = b"".join(command(name, key, *dice.choice(rows)) for key in dice.sample(keys, n_keys))
            out.write(struct.pack("<II", n_keys, len(text)) + text)


def send_pipelines(program: Path, port: int, file: Path, connections: int, seconds: float) -> dict[str, int]:
    """What the program tells."""
    return json.loads(run([program, port, connections, seconds, file]))
