"""A PostgreSQL server of its own for a benchmark, from the installed programs."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Postgres:
    """A running server, reached without password as `postgres`."""

    programs: Path
    folder: Path
    port: int

    def url(self, database: str) -> str:
        """What both sides write as `path`."""
        return f"postgresql+psycopg://postgres@127.0.0.1:{self.port}/{database}"

    def create(self, database: str, template: str = "template0") -> str:
        """Makes a database, a copy of another if one is named; returns its URL."""
        command = [self.programs / "createdb", "-h", self.folder, "-p", str(self.port), "-U", "postgres"]
        subprocess.run([*command, "--template", template, database], check=True, capture_output=True)
        return self.url(database)


def programs() -> Path:
    """The folder of the newest PostgreSQL."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    on_path = shutil.which("initdb")
    if not found and not on_path:
        sys.exit("error: PostgreSQL is not installed; run `make services`")
    return found[-1].parent if found else Path(on_path).parent


@contextlib.contextmanager
def postgres() -> Iterator[Postgres]:
    """Runs a server for as long as the block lasts. It keeps what it acknowledges on disk, as in production."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = Path(tempfile.mkdtemp(prefix="feast-pg-"))
    # The server refuses to be run by root.
    account = pwd.getpwnam("postgres") if os.geteuid() == 0 else None
    if account:
        os.chown(folder, account.pw_uid, account.pw_gid)
    owner = {"user": account.pw_uid, "group": account.pw_gid} if account else {}

    def run(program: str, *arguments: object) -> None:
        command = [programs() / program, "-D", folder / "data", *map(str, arguments)]
        # The server keeps the streams that it is started with.
        with (folder / f"{program}.log").open("a") as log:
            done = subprocess.run(
                command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd="/", check=False, **owner
            )
        if done.returncode != 0:
            sys.exit(f"error: `{program}` failed:\n{(folder / f'{program}.log').read_text()}")

    try:
        run("initdb", "--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C")
        run("pg_ctl", "-w", "-o", f"-k {folder} -p {port} -c listen_addresses=127.0.0.1", "start")
        try:
            yield Postgres(programs(), folder, port)
        finally:
            run("pg_ctl", "-m", "immediate", "-w", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
