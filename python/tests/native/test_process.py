"""What the engine does to the process it lives in: forks, threads, signals, event loops, imported libraries."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from drivers import HOUR, T0, definitions

from feast import Entity, FeatureStore
from feast.data_source import PushMode

FEATURES = ["driver_stats:conv_rate", "driver_stats:trips"]
TRIPS = {1001: 30, 1002: 40, 1003: 50}


@pytest.fixture
def full(store: FeatureStore) -> FeatureStore:
    """The store with all drivers online."""
    store.materialize(T0 - 100 * HOUR, T0)
    return store


def online(store: FeatureStore, driver: int, view: str = "driver_stats") -> Any:
    return store.get_online_features([f"{view}:trips"], [{"driver_id": driver}]).to_dict()["trips"][
        0
    ]


def fresh(trips: int, driver: int = 1001, at: Any = T0 + HOUR) -> pa.Table:
    row = {
        "driver_id": driver,
        "event_timestamp": at,
        "created": at,
        "conv_rate": 0.9,
        "trips": trips,
        "city": "z",
    }
    return pa.Table.from_pylist([row])


def history(store: FeatureStore) -> list[Any]:
    rows = {"driver_id": [1001, 1002], "event_timestamp": [T0, T0]}
    return store.get_historical_features(pa.table(rows), FEATURES).to_arrow()["trips"].to_pylist()


def work(store: FeatureStore, driver: int) -> None:
    """Uses every part of the store: online and offline, registry, reading and writing."""
    assert online(store, 1002) == 40
    assert history(store) == [30, 40]
    store.push("push", fresh(driver, driver), to=PushMode.ONLINE)
    assert online(store, driver, "driver_push") == driver
    store.apply(Entity(name=f"entity_{driver}", join_keys=[f"key_{driver}"]))
    assert store.get_entity(f"entity_{driver}").join_key == f"key_{driver}"
    store.materialize_incremental(T0 + HOUR)


def fork(child: Callable[[], None]) -> int:
    """Runs a function in a fork of this process and returns the fork's number."""
    with warnings.catch_warnings():
        # Newer Pythons warn of forks among threads.
        warnings.simplefilter("ignore", DeprecationWarning)
        number = os.fork()
    if number == 0:
        code = 1
        try:
            child()
            code = 0
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            os._exit(code)
    return number


def ended_well(child: int) -> bool:
    """Whether a fork succeeded; one that hangs is ended."""
    for _ in range(600):
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return status == 0
        time.sleep(0.05)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return False


# Forks.


def test_parent_and_children_of_a_fork_go_on(full: FeatureStore) -> None:
    work(full, 2000)
    children = [fork(lambda driver=driver: work(full, driver)) for driver in (2001, 2002)]
    work(full, 2003)

    assert [ended_well(child) for child in children] == [True, True]
    # All wrote to the same files, and nothing was lost.
    assert [online(full, driver, "driver_push") for driver in (2000, 2001, 2002, 2003)] == [
        2000,
        2001,
        2002,
        2003,
    ]
    assert {f"entity_{driver}" for driver in (2000, 2001, 2002, 2003)} <= {
        entity.name for entity in full.list_entities()
    }
    check = "import sqlite3; print(sqlite3.connect('online.db').execute('PRAGMA integrity_check').fetchall())"
    assert program(full.repo_path, check).stdout == "[('ok',)]\n"


def test_a_fork_of_a_fork_works(full: FeatureStore) -> None:
    def child() -> None:
        work(full, 2001)
        assert ended_well(fork(lambda: work(full, 2002)))
        work(full, 2003)

    assert ended_well(fork(child))


def test_forks_while_other_threads_work(full: FeatureStore) -> None:
    done = threading.Event()

    def busy(driver: int) -> None:
        while not done.is_set():
            full.push("push", fresh(driver, driver))
            assert online(full, driver, "driver_push") == driver
            assert history(full) == [30, 40]

    def child() -> None:
        assert online(full, 1001) == 30
        full.push("push", fresh(7, 3000 + os.getpid()))
        assert online(full, 3000 + os.getpid(), "driver_push") == 7

    with ThreadPoolExecutor(3) as pool:
        threads = [pool.submit(busy, driver) for driver in (4001, 4002, 4003)]
        try:
            assert all(ended_well(fork(child)) for _ in range(10))
        finally:
            done.set()
        for thread in threads:
            thread.result()
    assert online(full, 4001, "driver_push") == 4001


def _trips_of(store: FeatureStore, driver: int) -> Any:
    return online(store, driver)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_pool_of_processes(full: FeatureStore, method: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        with multiprocessing.get_context(method).Pool(2) as pool:
            answers = pool.starmap(_trips_of, [(full, driver) for driver in TRIPS] * 4)
    assert answers == list(TRIPS.values()) * 4


def test_a_job_made_before_a_fork_is_run_after_it(full: FeatureStore) -> None:
    job = full.get_historical_features(
        pa.table({"driver_id": [1001], "event_timestamp": [T0]}), FEATURES
    )

    def child() -> None:
        assert job.to_arrow()["trips"].to_pylist() == [30]

    assert ended_well(fork(child))


def test_rows_that_were_being_read_are_not_in_the_child(full: FeatureStore) -> None:
    rows = 200_000
    entity = pa.table(
        {
            "driver_id": np.full(rows, 1001),
            "event_timestamp": np.full(rows, np.datetime64(T0.replace(tzinfo=None), "us")),
        }
    )
    batches = iter(full.get_historical_features(entity, FEATURES))
    first = next(batches)

    def child() -> None:
        with pytest.raises(
            Exception, match="were being read when the process forked.*ask for them again"
        ):
            next(batches)

    assert ended_well(fork(child))
    assert len(first) + sum(len(batch) for batch in batches) == rows


# Threads.


def test_many_threads_read_at_once(full: FeatureStore) -> None:
    start = threading.Barrier(16)

    def read(number: int) -> None:
        driver = 1001 + number % 3
        start.wait()
        for _ in range(20):
            assert online(full, driver) == TRIPS[driver]

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(read, range(16)))


@contextmanager
def interrupted_inside(
    function: str, signal_number: int | None = signal.SIGINT
) -> Iterator[list[float]]:
    """Runs a Python thread beside the main one, which sends a signal once the main thread is in a call of the engine.

    The call must be longer than anybody waits: it only ends if the thread can run, and the signal is heard.
    """
    main = threading.main_thread().ident
    over = threading.Event()
    sent: list[float] = []

    def interrupt() -> None:
        inside = 0
        while inside < 100 and not over.wait(0.001):
            frame = sys._current_frames()[main]  # type: ignore[index]
            inside = inside + 1 if frame.f_code.co_name == function else 0
        sent.append(time.monotonic())
        if signal_number is not None and not over.is_set():
            os.kill(os.getpid(), signal_number)

    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        yield sent
    finally:
        over.set()
        thread.join()


# A query that looks at 5 ** 16 combinations of rows.
ENDLESS = (
    f"SELECT event_timestamp, driver_id FROM (SELECT a.event_timestamp, a.driver_id, {' + '.join(f'{t}.trips' for t in 'abcdefghijklmnop')} AS sum "
    f"FROM {', '.join(f'stats {t}' for t in 'abcdefghijklmnop')}) WHERE sum = -1"
)


def test_ctrl_c_ends_a_query_and_the_store_goes_on(full: FeatureStore) -> None:
    job = full.get_historical_features(ENDLESS, FEATURES)
    with interrupted_inside("to_arrow") as sent, pytest.raises(KeyboardInterrupt):
        job.to_arrow()

    assert time.monotonic() - sent[0] < 10
    assert history(full) == [30, 40]


def test_ctrl_c_ends_the_reading_of_rows(full: FeatureStore) -> None:
    rows = 500_000
    times = np.datetime64(T0.replace(tzinfo=None), "us") - np.arange(rows)
    job = full.get_historical_features(
        pa.table({"driver_id": np.full(rows, 1001), "event_timestamp": times}), FEATURES
    )

    def read_for_ever() -> None:
        while True:
            job.to_arrow()

    with interrupted_inside("to_table"), pytest.raises(KeyboardInterrupt):
        read_for_ever()
    assert history(full) == [30, 40]


def test_ctrl_c_reaches_whoever_reads_with_a_library_of_their_own(full: FeatureStore) -> None:
    rows = 500_000
    times = np.datetime64(T0.replace(tzinfo=None), "us") - np.arange(rows)
    job = full.get_historical_features(
        pa.table({"driver_id": np.full(rows, 1001), "event_timestamp": times}), FEATURES
    )

    def foreign() -> None:
        while True:
            pa.table(job)

    # The library reports a stream that broke; Python's own interrupt follows at once.
    with interrupted_inside("foreign"), pytest.raises(KeyboardInterrupt):
        with pytest.raises(pa.ArrowException, match="interrupted"):
            foreign()
        threading.Event().wait(10)
    assert history(full) == [30, 40]


LOCK = """
import sqlite3, sys
store = sqlite3.connect(sys.argv[1], isolation_level=None)
store.execute("BEGIN IMMEDIATE")
print("locked", flush=True)
sys.stdin.read()
"""


@contextmanager
def locked(store: FeatureStore) -> Iterator[None]:
    """The online store, while another program writes to it."""
    # Locks belong to processes: in this one, Python's own SQLite and the engine's would take them from each other.
    command = [sys.executable, "-c", LOCK, str(store.repo_path / "online.db")]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "locked\n"
        try:
            yield
        finally:
            other.communicate()


def test_ctrl_c_ends_a_materialization_and_the_store_goes_on(store: FeatureStore) -> None:
    with locked(store), interrupted_inside("materialize") as sent, pytest.raises(KeyboardInterrupt):
        store.materialize(T0 - 100 * HOUR, T0)

    assert time.monotonic() - sent[0] < 10
    assert store.get_feature_view("driver_stats").materialization_intervals == []
    store.materialize(T0 - 100 * HOUR, T0)
    assert online(store, 1001) == 30


def test_ctrl_c_ends_a_push(full: FeatureStore) -> None:
    with locked(full), interrupted_inside("push"), pytest.raises(KeyboardInterrupt):
        full.push("push", fresh(99))
    full.push("push", fresh(100, at=T0 + 2 * HOUR))
    assert online(full, 1001, "driver_push") == 100


class Alarm(Exception):
    """Raised by a signal handler of the user's own."""


def test_a_signal_handler_that_raises_ends_the_call(full: FeatureStore) -> None:
    def ring(*_: Any) -> None:
        raise Alarm

    before = signal.signal(signal.SIGUSR1, ring)
    try:
        job = full.get_historical_features(ENDLESS, FEATURES)
        with interrupted_inside("to_arrow", signal.SIGUSR1), pytest.raises(Alarm):
            job.to_arrow()
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_a_query_ends_at_its_timeout(full: FeatureStore) -> None:
    job = full.get_historical_features(
        pa.table({"driver_id": [1001], "event_timestamp": [T0]}), FEATURES
    )

    for read in (job.to_arrow, job.to_df):
        with pytest.raises(TimeoutError, match="longer than the timeout of 0 s"):
            read(timeout=0)
        assert len(read(timeout=600)) == 1


def test_a_command_in_this_process_leaves_signals_alone(full: FeatureStore) -> None:
    done = program(
        full.repo_path,
        "import os, signal, socket, threading, time",
        "from feast._feast import cli_main",
        "with socket.socket() as free:",
        "    free.bind(('127.0.0.1', 0))",
        "    address = free.getsockname()",
        "def stop():",
        "    while True:",
        "        try: socket.create_connection(address).close()",
        "        except OSError: time.sleep(0.01)",
        "        else: break",
        "    os.kill(os.getpid(), signal.SIGTERM)",
        "threading.Thread(target=stop).start()",
        "code = cli_main(['feast', 'serve', '--port', str(address[1])])",
        "print('served', code, flush=True)",
        "os.kill(os.getpid(), signal.SIGTERM)",
        "time.sleep(60)",
    )
    assert (done.stdout.splitlines()[-1], done.returncode) == ("served 0", -signal.SIGTERM), (
        done.stderr
    )


# Event loops.


def test_async_calls_do_what_the_others_do(full: FeatureStore) -> None:
    rows = [{"driver_id": 1001}, {"driver_id": 9}]

    async def calls() -> Any:
        await full.initialize()
        await full.push_async("push", fresh(1), to=PushMode.ONLINE, transform_on_write=True)
        await full.write_to_online_store_async("driver_stats", fresh(2))
        answer = await full.get_online_features_async([*FEATURES, "driver_push:city"], rows)
        with pytest.raises(Exception, match="driver_stat"):
            await full.get_online_features_async(["driver_stat:trips"], rows)
        with pytest.raises(Exception, match="driver_stat"):
            await full.write_to_online_store_async("driver_stat", fresh(2))
        with pytest.raises(Exception, match="`df` or `inputs`"):
            await full.write_to_online_store_async("driver_stats")
        await full.close()
        return answer.to_dict(include_event_timestamps=True)

    answer = asyncio.run(calls())
    assert answer["trips"] == [2, None]
    assert answer["city"] == ["z", None]
    # Closed connections open again.
    again = full.get_online_features([*FEATURES, "driver_push:city"], rows)
    assert answer == again.to_dict(include_event_timestamps=True)


def test_the_event_loop_runs_during_a_call(full: FeatureStore) -> None:
    async def calls() -> int:
        ticks = 0
        with locked(full):
            push = asyncio.ensure_future(full.push_async("push", fresh(99)))
            while ticks < 100:
                await asyncio.sleep(0)
                ticks += 1
            assert not push.done()
        await push
        return ticks

    assert asyncio.run(calls()) == 100
    assert online(full, 1001, "driver_push") == 99


def test_a_cancelled_call_is_given_up(full: FeatureStore) -> None:
    async def calls() -> None:
        with locked(full), pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(full.push_async("push", fresh(99)), timeout=0.2)
        await full.push_async("push", fresh(100, at=T0 + 2 * HOUR))

    asyncio.run(calls())
    assert online(full, 1001, "driver_push") == 100


def program(repository: Path, *lines: str) -> subprocess.CompletedProcess[str]:
    """Runs Python lines in a process of their own that has opened the store."""
    start = "import sys, feast\nfrom datetime import datetime, timezone\n"
    text = start + textwrap.dedent("\n".join(lines))
    return subprocess.run(
        [sys.executable, "-c", text],
        cwd=repository,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_a_program_ends_well_after_awaited_calls(full: FeatureStore) -> None:
    # The thread that hands over the last answer may still be at it when Python ends.
    lines = """
        import asyncio
        store = feast.FeatureStore(repo_path=".")
        async def calls():
            for _ in range(30):
                await store.get_online_features_async(["driver_stats:trips"], [{"driver_id": 1001}])
        asyncio.run(calls())
    """
    for _ in range(12):
        ended = program(Path(full.repo_path), *textwrap.dedent(lines).splitlines())
        assert ended.returncode == 0, ended.stderr


def test_a_process_may_end_in_the_middle_of_calls(full: FeatureStore) -> None:
    done = program(
        full.repo_path,
        "import asyncio, threading",
        "store = feast.FeatureStore('.')",
        "rows = {'driver_id': [1001] * 1000}",
        "async def main():",
        "    for _ in range(50):",
        "        asyncio.ensure_future(store.get_online_features_async(['driver_stats:trips'], rows))",
        "    await asyncio.sleep(0)",
        "asyncio.run(main())",
        "def read():",
        "    while True: store.get_online_features(['driver_stats:trips'], rows)",
        "for _ in range(4): threading.Thread(target=read, daemon=True).start()",
        "print('end')",
    )
    assert (done.returncode, done.stdout) == (0, "end\n"), done.stderr


# Copies.


def test_stores_and_errors_can_be_pickled(full: FeatureStore) -> None:
    copy = pickle.loads(pickle.dumps(full))
    assert online(copy, 1001) == 30
    assert copy.config.project == full.config.project
    with pytest.raises(Exception, match="nope") as raised:
        full.get_feature_view("nope")
    again = pickle.loads(pickle.dumps(raised.value))
    assert (type(again), str(again)) == (type(raised.value), str(raised.value))


def test_a_store_from_a_configuration_can_be_pickled(
    full: FeatureStore, tmp_path_factory: pytest.TempPathFactory
) -> None:
    from feast import RepoConfig

    place = full.repo_path
    config = RepoConfig(
        project="proj",
        registry=str(place / "registry.db"),
        online_store={"type": "sqlite", "path": str(place / "online.db")},
    )
    copy = pickle.loads(pickle.dumps(FeatureStore(config=config)))
    assert online(copy, 1002) == 40


# Libraries.


def test_libraries_are_imported_when_they_are_asked_for(full: FeatureStore) -> None:
    done = program(
        full.repo_path,
        "from pathlib import Path",
        "def loaded():",
        "    names = {'pandas', 'pyarrow', 'numpy', 'polars', 'google.protobuf', 'yaml', 'pydantic'}",
        "    print(' '.join(sorted(names & sys.modules.keys())))",
        "loaded()",
        "store = feast.FeatureStore('.')",
        "answer = store.get_online_features(['driver_stats:trips'], [{'driver_id': 1001}])",
        "assert answer.to_dict() == {'driver_id': [1001], 'trips': [30]}",
        "store.materialize(datetime(2026, 1, 1), datetime(2027, 1, 1))",
        "loaded()",
        "sql = 'SELECT driver_id, event_timestamp FROM stats'",
        "job = store.get_historical_features(sql, ['driver_stats:trips'])",
        "job.to_remote_storage()",
        "loaded()",
        "assert job.to_arrow().num_rows == 5",
        "loaded()",
        "assert len(job.to_df()) == 5",
        "loaded()",
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "",
        "",
        "",
        "numpy pyarrow",  # pyarrow imports numpy
        "numpy pandas pyarrow",
    ]


def test_polars_needs_no_other_library(full: FeatureStore) -> None:
    done = program(
        full.repo_path,
        "import polars",
        "store = feast.FeatureStore('.')",
        "rows = polars.DataFrame({'driver_id': [1001], 'event_timestamp': [datetime(2026, 11, 20, 12)]})",
        "job = store.get_historical_features(rows, ['driver_stats:trips'])",
        "assert job.to_polars()['trips'].to_list() == [30]",
        "print(sorted({'pandas', 'pyarrow', 'google.protobuf'} & sys.modules.keys()))",
    )
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr


def test_definitions_reach_a_new_process(full: FeatureStore) -> None:
    done = program(
        full.repo_path,
        "store = feast.FeatureStore('.')",
        "print(sorted(view.name for view in store.list_feature_views()))",
    )
    assert (
        done.stdout == f"{sorted(name for name in definitions() if name.startswith('driver_'))}\n"
    ), done.stderr


def test_frames_of_pandas_are_written_by_any_thread(full: FeatureStore) -> None:
    frames = [fresh(100 + number, 5000 + number).to_pandas() for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda frame: full.push("push", frame), frames))
    assert [online(full, 5000 + number, "driver_push") for number in range(8)] == [
        100 + number for number in range(8)
    ]
    assert isinstance(frames[0], pd.DataFrame)
