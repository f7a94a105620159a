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
from sides import HERE, SIDES, command, run
from test_stores import NAMES, SPAN, THINGS

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
        assert program, (
            "`redis-server` is not installed, which these tests need: run `scripts/services.sh`"
        )
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.process = subprocess.Popen(
            [
                program,
                "--port",
                str(self.port),
                "--save",
                "",
                "--bind",
                "127.0.0.1",
                "--dir",
                str(folder),
            ],
            stdout=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 60
        while self.command("PING") != "PONG":
            assert self.process.poll() is None and time.monotonic() < deadline, (
                "redis-server does not start"
            )

    def command(self, *arguments: str) -> str:
        """Runs a command with `redis-cli`."""
        done = subprocess.run(
            ["redis-cli", "-p", str(self.port), *arguments],
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stdout.strip("\n")

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


# What the values of maps, structs and sets start with: they have no order in bytes, and Feast makes floats of integers
# inside of structs. Their values are compared above.
UNORDERED = ("a201", "9202", "ba01", "ca01")
# Feast writes a missing time as the smallest number, we as nothing, like every other missing value.
MISSING_TIME = " 4080808080808080808001"


def test_both_write_the_same_bytes(repository: Path, server: Redis) -> None:
    dumps = {}
    for side in ("ours", "feast"):
        command("ours", repository, "apply")
        command(side, repository, "materialize", *SPAN)
        lines = [line.replace(MISSING_TIME, " ") for line in server.dump()]
        dumps[side] = [line for line in lines if not line.split(" ")[2].startswith(UNORDERED)]
        server.command("FLUSHALL")
    assert len(dumps["ours"]) > 2 * len(NAMES)
    assert dumps["ours"] == dumps["feast"]


def test_each_side_reads_what_the_other_pushed(repository: Path) -> None:
    command("ours", repository, "apply")
    request = {"features": ["pushed:an_int64", "pushed:a_string"], "rows": [{"thing_id": 7}]}

    def push(side: str, at: str, number: int) -> None:
        row = {
            "thing_id": 7,
            "an_int64": number,
            "a_string": side,
            "event_timestamp": at,
            "created": at,
        }
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


FORK = """
import os, sys
from feast import FeatureStore

store = FeatureStore(repo_path=sys.argv[1])


def read():
    answer = store.get_online_features(["every_type:a_string"], [{"thing_id": 1}, {"thing_id": 2}])
    return answer.to_dict()["a_string"]


assert read() == ["abc", "é"]
child = os.fork()
if child == 0:
    os._exit(0 if all(read() == ["abc", "é"] for _ in range(20)) else 1)
assert all(read() == ["abc", "é"] for _ in range(20))
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert read() == ["abc", "é"]
"""


def test_parent_and_child_read_on_after_a_fork(repository: Path) -> None:
    command("ours", repository, "apply")
    command("ours", repository, "materialize", *SPAN)
    done = subprocess.run(
        [SIDES["ours"], "-c", FORK, str(repository)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
