"""A PostgreSQL server for tests, from the installed programs."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PASSWORD = "s3cret"


def programs() -> Path:
    """The folder of `initdb`; Debian keeps the programs of each release apart."""
    found = sorted(
        Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda one: int(one.parts[-3])
    )
    if not found and (on_path := shutil.which("initdb")):
        found = [Path(on_path)]
    assert found, "PostgreSQL is not installed, which these tests need: run `scripts/services.sh`"
    return found[-1].parent


@contextmanager
def postgres() -> Iterator[str]:
    """A server; gives the URL of its database, in SQLAlchemy's grammar."""
    account = pwd.getpwnam("postgres") if os.geteuid() == 0 else None
    owner = {"user": account.pw_uid, "group": account.pw_gid} if account else {}
    with tempfile.TemporaryDirectory(prefix="feast-pg-") as folder, socket.socket() as probe:
        if account:
            os.chown(folder, account.pw_uid, account.pw_gid)
        Path(folder, "password").write_text(PASSWORD)
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        probe.close()
        data = f"--pgdata={folder}/data"
        arguments = ["--pwfile", f"{folder}/password", "--username=feast", "--auth=scram-sha-256"]
        initdb = [
            programs() / "initdb",
            data,
            *arguments,
            "--encoding=UTF8",
            "--locale=C",
            "--no-sync",
        ]
        subprocess.run(initdb, check=True, capture_output=True, cwd="/", **owner)
        options = f"-k {folder} -p {port} -c listen_addresses=127.0.0.1 -c fsync=off"
        control = [programs() / "pg_ctl", data, f"--log={folder}/log", "--wait"]
        start = [*control, f"--options={options}", "start"]
        subprocess.run(start, check=True, stdout=subprocess.DEVNULL, cwd="/", **owner)
        try:
            yield f"postgresql+psycopg://feast:{PASSWORD}@127.0.0.1:{port}/postgres"
        finally:
            subprocess.run(
                [*control, "--mode=immediate", "stop"],
                check=True,
                stdout=subprocess.DEVNULL,
                cwd="/",
                **owner,
            )
