"""One Redis, used by our package and by Feast 0.67 in turn."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from every_type import make_data
from test_stores import HERE, NAMES, SPAN, THINGS, command, run

# All hashes as lines `key field value` in hexadecimal digits.
DUMP = """
local function hex(s) return (s:gsub('.', function(c) return ('%02x'):format(c:byte()) end)) end
local lines = {}
for _, key in ipairs(redis.call('KEYS', '*')) do
  local all = redis.call('HGETALL', key)
  for i = 1, #all, 2 do lines[#lines + 1] = hex(key)..' '..hex(all[i])..' '..hex(all[i + 1]) end
end
table.sort(lines)
return table.concat(lines, '\\n')
"""


class Redis:
    """A running server."""

    def __init__(self, folder: Path) -> None:
        program = shutil.which("redis-server")
        assert program, "`redis-server` is not installed, which these tests need: run `scripts/services.sh`"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.process = subprocess.Popen(
            [program, "--port", str(self.port), "--save", "", "--bind", "127.0.0.1", "--dir", str(folder)],
            stdout=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 60
        while self.command("PING") != "PONG":
            assert self.process.poll() is None and time.monotonic() < deadline, "redis-server does not start"

    def command(self, *arguments: str) -> str:
        """Runs a command with `redis-cli`."""
        done = subprocess.run(
            ["redis-cli", "-p", str(self.port), *arguments], capture_output=True, text=True, check=False
        )
        return done.stdout.strip()

    def dump(self) -> list[str]:
        """All hashes."""
        return self.command("EVAL", DUMP, "0").splitlines()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    """A server for all tests here."""
    server = Redis(tmp_path_factory.mktemp("redis"))
    yield server
    server.process.kill()
    server.process.wait()


@pytest.fixture
def repository(tmp_path: Path, server: Redis) -> Path:
    """The repository with its data, over an empty Redis; applied by nobody yet."""
    server.command("FLUSHALL")
    shutil.copy(HERE / "every_type/definitions.py", tmp_path / "definitions.py")
    settings = (HERE / "every_type/feature_store.yaml").read_text()
    sqlite = "  type: sqlite\n  path: data/online.db\n"
    assert sqlite in settings
    redis = f'  type: redis\n  connection_string: "127.0.0.1:{server.port},db=0"\n'
    (tmp_path / "feature_store.yaml").write_text(settings.replace(sqlite, redis))
    make_data.write(tmp_path)
    return tmp_path


REQUEST = {"features": [f"every_type:{name}" for name in NAMES], "rows": THINGS}


@pytest.mark.parametrize(("writer", "reader"), [("ours", "feast"), ("feast", "ours")])
def test_values_of_every_type_are_shared(repository: Path, writer: str, reader: str) -> None:
    command(writer, repository, "apply")
    command(writer, repository, "materialize", *SPAN)
    written, read = (run(side, "online", repository, REQUEST) for side in (writer, reader))
    assert set(read) == set(written)
    for name in sorted(written):
        assert read[name] == written[name], name
    assert read["a_string"] == ["abc", "é", None, None]


def test_both_write_the_same_bytes(repository: Path, server: Redis) -> None:
    dumps = {}
    for side in ("ours", "feast"):
        command("ours", repository, "apply")
        command(side, repository, "materialize", *SPAN)
        dumps[side] = server.dump()
        server.command("FLUSHALL")
    assert len(dumps["ours"]) > 2 * len(NAMES)
    assert dumps["ours"] == dumps["feast"]


def test_each_side_reads_what_the_other_pushed(repository: Path) -> None:
    command("ours", repository, "apply")
    request = {"features": ["pushed:an_int64", "pushed:a_string"], "rows": [{"thing_id": 7}]}

    def push(side: str, at: str, number: int) -> None:
        row = {"thing_id": 7, "an_int64": number, "a_string": side, "event_timestamp": at, "created": at}
        run(side, "push", repository, {"source": "fresh", "rows": [row]})

    for number, side in enumerate(("ours", "feast", "ours")):
        push(side, f"2026-11-21T0{number}:00:00.000001Z", number)
        for reader in ("ours", "feast"):
            answer = run(reader, "online", repository, request)
            assert (answer["an_int64"], answer["a_string"]) == ([number], [side]), reader
    # Older rows lose on both sides, whoever wrote the newer one; a correction of ours lands.
    for side in ("ours", "feast"):
        push(side, "2026-11-21T02:00:00Z", 8)
        assert run("feast", "online", repository, request)["an_int64"] == [2], side
    push("ours", "2026-11-21T02:00:00.000001Z", 9)
    assert run("feast", "online", repository, request)["an_int64"] == [9]


def test_each_side_deletes_what_the_other_wrote(repository: Path, server: Redis) -> None:
    definitions = repository / "definitions.py"
    whole = definitions.read_text()
    for writer, remover in (("ours", "feast"), ("feast", "ours")):
        definitions.write_text(whole)
        command(writer, repository, "apply")
        command(writer, repository, "materialize", *SPAN)
        assert server.dump()
        command(remover, repository, "teardown", *([] if remover == "feast" else ["--yes"]))
        assert server.dump() == [], (writer, remover)
