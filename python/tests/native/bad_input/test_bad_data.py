"""Data that is wrong behind definitions that are right."""

from __future__ import annotations

import pytest
from inputs import (
    HEADER,
    MATERIALIZE,
    file_source,
    write_definitions,
)

SOURCES: dict[str, tuple[str | bytes | None, str]] = {
    "gone": (None, "there is no file at `stats.csv`"),
    "no CSV any more": (b"\x00\xff\xfe", "is not a readable CSV file"),
    "no time": (HEADER + "1,yesterday,2020-01-01,5,x\n", "`yesterday`, which is not a time"),
    "no number": (HEADER + "1,2026-11-20,2026-11-20,many,x\n", "`trips`"),
    "a fraction": (HEADER + "1,2026-11-20,2026-11-20,5.5,x\n", "`trips`"),
    "fewer columns": (
        "driver_id,event_timestamp,created,city\n1,2026-11-20,2026-11-20,x\n",
        "no column for `trips`",
    ),
}


@pytest.mark.parametrize("name", SOURCES)
def test_wrong_data_is_refused(name, feast, tmp_path):
    data, expected = SOURCES[name]
    write_definitions(
        tmp_path,
        {
            "defs.py": file_source("stats.csv"),
            "stats.csv": HEADER + "1,2026-11-20,2026-11-20,5,x\n",
        },
    )
    assert feast.run(tmp_path, "apply")[0] == 0
    registry = (tmp_path / "registry.db").read_bytes()
    (tmp_path / "stats.csv").unlink()
    if data is not None:
        (tmp_path / "stats.csv").write_bytes(data if isinstance(data, bytes) else data.encode())

    feast.refuses(tmp_path, MATERIALIZE, expected)
    rows = '[{"driver_id": 1, "event_timestamp": "2026-11-21T00:00:00Z"}]'
    feast.refuses(
        tmp_path, ["get-historical-features", "-f", "v:trips", "--dataframe", rows], expected
    )

    assert (tmp_path / "registry.db").read_bytes() == registry
    code, text = feast.run(tmp_path, "get-online-features", "-e", "driver_id=1", "-f", "v:trips")
    assert (code, '"trips": [\n    null' in text) == (0, True), text
