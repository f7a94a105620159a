"""The examples that need nothing but feast-rs; those of Spark and Beam are in `check_pipelines.py`."""

from __future__ import annotations

from pathlib import Path

import pyarrow.dataset
import pytest
from feast.data_source import PushMode
from push_many import push_all
from taxis import open_store, reports


def test_batches_arrive_with_progress(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    store = open_store(tmp_path)
    push_all(store, 60_000, 4_000, PushMode.ONLINE_AND_OFFLINE)
    told = capfd.readouterr().err
    assert "60,000 of 60,000 rows" in told and "rows/s" in told
    # The history was one row long; 15 pushes later it is not 16 files.
    history = pyarrow.dataset.dataset(tmp_path / "data/history", format="parquet")
    assert history.count_rows() == 60_001
    assert len(history.files) < 12
    answer = store.get_online_features(
        features=["taxi_state:speed"], entity_rows=[{"taxi_id": taxi} for taxi in (7, 49_999)]
    ).to_dict()
    # Taxi 7 reported twice: as number 7 and as number 50,007.
    last = reports(50_007, 1)["speed"][0].as_py()
    assert answer["speed"] == [last, reports(49_999, 1)["speed"][0].as_py()]
