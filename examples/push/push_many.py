"""Pushes many rows in batches and shows how far it is.

    python examples/push/push_many.py [--rows 1000000] [--batch 50000] [--to online_and_offline] [--first 0]

A push is all or nothing: when it returns, its rows are in both stores; when it raises, the batch can be pushed again,
because the same rows written twice change nothing online. After an interruption, `--first` goes on where it stopped.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from feast import FeatureStore
from feast.data_source import PushMode
from taxis import open_store, reports


def push_all(store: FeatureStore, rows: int, batch: int, to: PushMode, first: int = 0) -> None:
    """Pushes the reports from `first` on, batch by batch."""
    started = time.monotonic()
    for start in range(first, rows, batch):
        count = min(batch, rows - start)
        store.push("taxi_reports", reports(start, count), to=to)
        done = start + count
        seconds = time.monotonic() - started
        rate = (done - first) / seconds
        left = (rows - done) / rate
        print(
            f"\r{done:>12,} of {rows:,} rows, {rate:,.0f} rows/s, {left:.0f} s left ",
            end="",
            file=sys.stderr,
            flush=True,
        )
    print(file=sys.stderr)


def main() -> None:
    """Pushes into a feature store in a temporary folder, and reads one taxi back."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--batch", type=int, default=50_000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--to", default="online_and_offline", choices=["online", "offline", "online_and_offline"])
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        store = open_store(Path(folder))
        push_all(store, given.rows, given.batch, PushMode[given.to.upper()], given.first)
        answer = store.get_online_features(
            features=["taxi_state:speed", "taxi_state:zone"], entity_rows=[{"taxi_id": 7}]
        ).to_dict()
        files = len(list((Path(folder) / "data/history").iterdir()))
        print(f"taxi 7: {answer['speed'][0]} in {answer['zone'][0]}; {files} files of history")


if __name__ == "__main__":
    main()
