"""Servers for tests, from Debian's packages: each in a temporary directory, on a free port."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

PASSWORD = "s3cret"
INSTALL = "is not installed, which these tests need: run `scripts/services.sh`"


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def find(name: str, *patterns: str) -> str:
    """The path of a program."""
    found = [str(path) for pattern in patterns for path in sorted(Path("/").glob(pattern))]
    path = found[-1] if found else shutil.which(name)
    assert path, f"`{name}` {INSTALL}"
    return path


def wait_until(ready: Callable[[], bool], process: subprocess.Popen[Any], log: Path) -> None:
    """Waits for a server to answer."""
    deadline = time.monotonic() + 120
    while not ready():
        alive = process.poll() is None and time.monotonic() < deadline
        assert alive, f"the server did not start:\n{log.read_text()}"
        time.sleep(0.1)


@contextmanager
def server(
    arguments: list[str], log: Path, ready: Callable[[], bool], **how: Any
) -> Iterator[None]:
    """Runs a server until the end of the block."""
    with log.open("w") as output:
        # A group of its own: Feast's server has workers, which outlive it when it alone is killed.
        process = subprocess.Popen(
            arguments, stdout=output, stderr=subprocess.STDOUT, start_new_session=True, **how
        )
        try:
            wait_until(ready, process, log)
            yield
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def listens(port: int) -> bool:
    """Whether somebody accepts connections."""
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def without_privileges(command: list[str]) -> list[str]:
    """A command for which the modes of files count, also when root runs it."""
    if os.geteuid() != 0:
        return command
    return ["setpriv", "--bounding-set=-dac_override,-dac_read_search,-fowner", *command]


@contextmanager
def folder_of(account: str) -> Iterator[tuple[Path, dict[str, Any]]]:
    """A folder of the account that runs a server, and how to run as that account: servers refuse to be root."""
    folder = Path(mkdtemp(prefix="feast-"))
    how: dict[str, Any] = {"cwd": folder}
    if os.getuid() == 0:
        entry = pwd.getpwnam(account)
        os.chown(folder, entry.pw_uid, entry.pw_gid)
        how |= {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
    try:
        yield folder, how
    finally:
        shutil.rmtree(folder)


class Database:
    """A running database: its part of `feature_store.yaml`, and a client apart from the code under test."""

    DRIVERS = {"postgres": "postgresql+psycopg", "mysql": "mysql+pymysql"}

    def __init__(self, options: Callable[[str], dict[str, Any]], client: list[str]) -> None:
        self.options = options
        self.client = client
        self.count = 0

    def url(self, database: str) -> str:
        """A database as a SQL registry names it, in SQLAlchemy's grammar."""
        of = self.options(database)
        return f"{self.DRIVERS[of['type']]}://{of['user']}:{of['password']}@{of['host']}:{of['port']}/{database}"

    def execute(self, database: str, statement: str) -> list[str]:
        """Runs statements; gives the lines of their answers."""
        arguments = [part.replace("DATABASE", database) for part in self.client]
        done = subprocess.run([*arguments, statement], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    def create(self) -> str:
        """An empty database."""
        self.count += 1
        name = f"feast_{self.count}"
        self.execute("postgres" if "psql" in self.client[0] else "mysql", f"CREATE DATABASE {name}")
        return name


@contextmanager
def postgres() -> Iterator[Database]:
    """A PostgreSQL server."""
    programs = Path(find("initdb", "usr/lib/postgresql/*/bin/initdb")).parent
    with folder_of("postgres") as (folder, how):
        (folder / "password").write_text(PASSWORD)
        initdb = [str(programs / "initdb"), "--pgdata", "data", "--pwfile", "password", "--no-sync"]
        initdb += ["--username=postgres", "--auth-local=trust", "--auth-host=scram-sha-256"]
        initdb += ["--encoding=UTF8", "--locale=C"]
        subprocess.run(initdb, check=True, capture_output=True, **how)
        port = free_port()
        run = [str(programs / "postgres"), "-D", "data", "-k", str(folder), "-p", str(port)]
        run += ["-c", "fsync=off", "-c", "listen_addresses=127.0.0.1", "-c", "timezone=UTC"]
        client = [str(programs / "psql"), "-h", str(folder), "-p", str(port), "-U", "postgres"]
        client += ["-XqAt", "-v", "ON_ERROR_STOP=1", "-d", "DATABASE", "-c"]

        def ready() -> bool:
            asked = [str(programs / "pg_isready"), "-h", str(folder), "-p", str(port)]
            return subprocess.run(asked, check=False, capture_output=True).returncode == 0

        def options(database: str) -> dict[str, Any]:
            return {
                "type": "postgres",
                "host": "127.0.0.1",
                "port": port,
                "database": database,
                "user": "postgres",
                "password": PASSWORD,
                "sslmode": "disable",
            }

        with server(run, folder / "log", ready, **how):
            yield Database(options, client)


@contextmanager
def mysql() -> Iterator[Database]:
    """A MariaDB server."""
    with folder_of("mysql") as (folder, how):
        install = [find("mariadb-install-db"), "--no-defaults", f"--datadir={folder}/data"]
        install += ["--auth-root-authentication-method=normal", "--skip-test-db"]
        subprocess.run(install, check=True, capture_output=True, **how)
        user = (
            f"CREATE USER feast@'%' IDENTIFIED BY '{PASSWORD}';\nGRANT ALL ON *.* TO feast@'%';\n"
        )
        (folder / "init.sql").write_text(user)
        port, path = free_port(), f"--socket={folder}/socket"
        run = [
            find("mariadbd", "usr/sbin/mariadbd"),
            "--no-defaults",
            f"--datadir={folder}/data",
            path,
        ]
        run += [f"--port={port}", "--bind-address=127.0.0.1", f"--pid-file={folder}/pid"]
        run += [
            f"--init-file={folder}/init.sql",
            "--default-time-zone=+00:00",
            "--skip-name-resolve",
        ]
        client = [find("mariadb"), "--no-defaults", path, "--user=root", "--batch"]
        client += ["--skip-column-names", "--database=DATABASE", "--execute"]

        def ready() -> bool:
            asked = [
                find("mariadb-admin"),
                "--no-defaults",
                path,
                "--user=root",
                "--silent",
                "ping",
            ]
            return subprocess.run(asked, check=False, capture_output=True).returncode == 0

        def options(database: str) -> dict[str, Any]:
            return {
                "type": "mysql",
                "host": "127.0.0.1",
                "port": port,
                "database": database,
                "user": "feast",
                "password": PASSWORD,
            }

        with server(run, folder / "log", ready, **how):
            yield Database(options, client)


@contextmanager
def moto(log: Path) -> Iterator[str]:
    """moto, which stands in for the services of AWS; gives its address."""
    port = free_port()
    program = Path(sys.executable).parent / "moto_server"
    assert program.exists(), f"`moto_server` is not in {program.parent}: run `make venv`"
    arguments = [str(program), "-H", "127.0.0.1", "-p", str(port)]
    with server(arguments, log, lambda: listens(port)):
        yield f"http://127.0.0.1:{port}"
