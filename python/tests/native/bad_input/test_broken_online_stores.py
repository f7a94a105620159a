"""Files of the online store that are broken, foreign, or in use."""

from __future__ import annotations

import random
import sqlite3
import time

from inputs import (
    MATERIALIZE,
    foreign_database,
    without_online_store,
)

READ = ["get-online-features", "-e", "driver_id=1001", "-f", "v:trips"]


def test_a_broken_online_store_is_refused(feast, broken):
    whole = (broken / "online.db").read_bytes()
    registry = (broken / "registry.db").read_bytes()
    others = [whole[:length] for length in (50, 99, 100, 500, 4096, 5000, 8192)]
    others += [random.Random(3).randbytes(5000), b"hello" * 500, bytes(8192)]
    for other in others:
        without_online_store(broken)
        (broken / "online.db").write_bytes(other)
        for command in (READ, MATERIALIZE, ["apply"], ["teardown"]):
            feast.refuses(broken, command, "online store", "online.db")
        assert (broken / "registry.db").read_bytes() == registry


def test_an_online_store_without_our_tables_asks_for_apply(feast, broken):
    for other in (foreign_database(), b"", None):
        without_online_store(broken)
        if other is not None:
            (broken / "online.db").write_bytes(other)
        for command in (READ, MATERIALIZE):
            feast.refuses(broken, command, "has no table in the online store", "run `feast apply`")
        assert feast.run(broken, "apply")[0] == 0
        assert feast.run(broken, *MATERIALIZE)[0] == 0
        assert "30" in feast.run(broken, *READ)[1]


def test_a_folder_in_place_of_the_online_store_leaves_the_registry_alone(feast, broken):
    registry = (broken / "registry.db").read_bytes()
    without_online_store(broken)
    (broken / "online.db").mkdir()
    for command in (READ, MATERIALIZE, ["apply"], ["delete", "v"], ["teardown"]):
        feast.refuses(broken, command, "could not open the online store")
        assert (broken / "registry.db").read_bytes() == registry


def test_reads_go_on_while_another_process_writes(feast, broken):
    other = sqlite3.connect(broken / "online.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    started = time.monotonic()
    assert "30" in feast.run(broken, *READ)[1]
    assert time.monotonic() - started < 5
    other.close()
