"""Registry files that are cut, of something else, damaged, or not to be written."""

from __future__ import annotations

import random

from inputs import (
    MATERIALIZE,
    ONLINE,
    PRELUDE,
    VIEW,
    foreign_database,
    tables_of,
)
from told import contents, is_clear


def test_a_registry_file_cut_anywhere_is_refused(feast, broken):
    registry = broken / "registry.db"
    whole = registry.read_bytes()
    for length in range(0, len(whole), 100):
        registry.write_bytes(whole[:length])
        feast.refuses(broken, ["entities", "list"], "registry.db")
        assert registry.read_bytes() == whole[:length]


def test_a_registry_file_of_something_else_is_refused_and_kept(feast, broken):
    registry = broken / "registry.db"
    chance = random.Random(7)
    others = [
        foreign_database(),
        b"PK\x03\x04" + bytes(100),
        b"hello\n",
        bytes(1000),
        b"\xff" * 1000,
    ]
    others += [chance.randbytes(length) for length in (1, 10, 100, 1000, 10_000)]
    for other in others:
        registry.write_bytes(other)
        before = contents(broken)
        commands = [
            ["entities", "list"],
            ["plan"],
            ["apply"],
            MATERIALIZE,
            ONLINE,
            ["teardown"],
            ["delete", "v"],
        ]
        for command in commands if other is others[0] else commands[:1]:
            feast.refuses(broken, command, "registry.db")
            assert contents(broken) == before


def test_a_registry_file_with_flipped_bytes_never_ends_in_a_panic(feast, broken):
    registry = broken / "registry.db"
    whole = registry.read_bytes()
    chance = random.Random(11)
    for _ in range(40):
        bytes_ = bytearray(whole)
        for _ in range(chance.randrange(1, 5)):
            bytes_[chance.randrange(len(bytes_))] = chance.randrange(256)
        registry.write_bytes(bytes_)
        for command in (["registry-dump"], ["feature-views", "list"], ["plan"], ONLINE):
            code, text = feast.run(broken, *command)
            assert code in (0, 1), text
            is_clear(text)
            assert code == 0 or "hint: " in text, text


def test_a_registry_that_cannot_be_written_stays_as_it_is(feast, broken):
    registry = broken / "registry.db"
    registry.chmod(0o444)
    (broken / "defs.py").write_text(PRELUDE + VIEW + 'extra = Entity(name="extra")\n')
    before = registry.read_bytes()
    tables = tables_of(broken)
    for command in (["apply"], ["delete", "v"], ["teardown"], MATERIALIZE):
        feast.refuses(broken, command, "registry.db` is read-only")
        assert registry.read_bytes() == before
        assert tables_of(broken) == tables
    assert feast.run(broken, "plan")[0] == 0


def test_a_folder_in_place_of_the_registry_is_refused(feast, broken):
    (broken / "registry.db").unlink()
    (broken / "registry.db").mkdir()
    for command in (["entities", "list"], ["plan"], ["apply"], ["teardown"], ONLINE):
        feast.refuses(broken, command, "names a file, such as `data/registry.db`, not a folder")
