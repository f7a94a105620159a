"""Runs the examples of PySpark and Apache Beam, each in a process of its own, and reads the stores afterwards.

    make pipelines

Not among the tests that `make test` runs: their two libraries weigh more than everything else together.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pyarrow.dataset
import pyarrow.parquet as pq
import pytest
from taxis import HERE, open_store, reports

ROWS = 2_000


@pytest.mark.parametrize("name", ["from_spark.py", "from_beam.py"])
def test_every_row_arrives(tmp_path: Path, name: str) -> None:
    repository, files = tmp_path / "repository", tmp_path / "files"
    repository.mkdir()
    files.mkdir()
    store = open_store(repository)
    for part in range(2):
        pq.write_table(reports(1 + part * ROWS // 2, ROWS // 2), files / f"{part}.parquet")
    done = subprocess.run(
        [sys.executable, str(HERE / name), str(repository), str(files)],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert f"{ROWS} rows pushed" in done.stdout
    taxis = [1, 500, ROWS]
    answer = store.get_online_features(
        features=["taxi_state:speed", "taxi_state:zone"], entity_rows=[{"taxi_id": taxi} for taxi in taxis]
    ).to_dict()
    for at, taxi in enumerate(taxis):
        expected = reports(taxi, 1).to_pylist()[0]
        assert (answer["speed"][at], answer["zone"][at]) == (expected["speed"], expected["zone"])
    if name == "from_spark.py":
        history = pyarrow.dataset.dataset(repository / "data/history", format="parquet")
        assert history.count_rows() == ROWS + 1
