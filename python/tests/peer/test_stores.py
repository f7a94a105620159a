"""One repository, used by our package and by Feast 0.67 in turn: registry, online store and history are shared."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from every_type import make_data
from sides import HERE, SIDES, command, run

NAMES = re.findall(r'^    "(\w+)":', (HERE / "every_type/definitions.py").read_text(), re.MULTILINE)
THINGS = [{"thing_id": 1}, {"thing_id": 2}, {"thing_id": 3}, {"thing_id": 9}]
SPAN = ["2026-11-01T00:00:00", "2026-11-22T00:00:00"]


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """The repository with its data, applied by nobody yet."""
    for name in ("definitions.py", "feature_store.yaml"):
        shutil.copy(HERE / "every_type" / name, tmp_path / name)
    make_data.write(tmp_path)
    return tmp_path


def without_source_times(text: str) -> str:
    """Feast compares the times at which sources were declared, so that its own plan never is empty."""
    while (shorter := re.sub(r"\s*meta \{(?:[^{}]|\{[^{}]*\})*\}", "", text)) != text:
        text = shorter
    return text


def changes_seen_by_feast(output: str) -> list[str]:
    """The changed fields of a plan of Feast's, without those that differ in the times of sources only."""
    changes = []
    for block in re.split(r"\n(?=Created |Deleted |Updated |No changes)|\n\t(?=\w+: )", output):
        before, arrow, after = block.partition(" -> ")
        if arrow:
            field, _, before = before.strip().partition(": ")
            if without_source_times(before).strip() != without_source_times(after).strip():
                changes.append(f"{field}: {before} -> {after}")
        elif re.match(r"(Created|Deleted) ", block):
            changes.append(block)
    return changes


@pytest.mark.parametrize(("writer", "reader"), [("ours", "feast"), ("feast", "ours")])
def test_registry_and_online_store_are_shared(repository: Path, writer: str, reader: str) -> None:
    command(writer, repository, "apply")
    command(writer, repository, "materialize", *SPAN)
    objects = [run(side, "objects", repository) for side in (writer, reader)]
    assert objects[0] == objects[1]
    request = {"features": [f"every_type:{name}" for name in NAMES], "rows": THINGS}
    written, read = (run(side, "online", repository, request) for side in (writer, reader))
    assert set(read) == set(written)
    for name in sorted(written):
        assert read[name] == written[name], name
    assert read["a_string"] == ["abc", "é", None, None]


def test_our_plan_is_empty_after_feasts_apply(repository: Path) -> None:
    command("feast", repository, "apply")
    done = command("ours", repository, "plan", "--exit-code")
    assert "No changes" in done


def test_feasts_plan_is_empty_after_our_apply(repository: Path) -> None:
    command("ours", repository, "apply")
    output = command("feast", repository, "plan")
    assert changes_seen_by_feast(output) == []
    assert "No changes to infrastructure" in output


def test_each_side_reads_what_the_other_pushed(repository: Path) -> None:
    command("ours", repository, "apply")
    request = {"features": ["pushed:an_int64", "pushed:a_string"], "rows": [{"thing_id": 7}]}
    for number, side in enumerate(("ours", "feast", "ours")):
        # The batch source has all columns; a push carries those of the view.
        at = f"2026-11-21T0{number}:00:00Z"
        row = {
            "thing_id": 7,
            "an_int64": number,
            "a_string": side,
            "event_timestamp": at,
            "created": at,
        }
        run(side, "push", repository, {"source": "fresh", "rows": [row]})
        for reader in ("ours", "feast"):
            answer = run(reader, "online", repository, request)
            assert (answer["an_int64"], answer["a_string"]) == ([number], [side]), reader


def test_an_interval_recorded_by_one_is_continued_by_the_other(repository: Path) -> None:
    command("feast", repository, "apply")
    command("feast", repository, "materialize", "2026-11-01T00:00:00", "2026-11-10T00:00:00")
    command("ours", repository, "materialize-incremental", "2026-11-21T00:00:00")
    for side in SIDES:
        intervals = run(side, "objects", repository)["intervals"]["every_type"]
        assert intervals[-1][1] == {"time": "2026-11-21T00:00:00+00:00"}, side


def test_history_equals_feasts_where_feast_keeps_every_row(repository: Path) -> None:
    command("ours", repository, "apply")
    # One entity row per key, each with a value in its past: here Feast's default store loses nothing.
    rows = [
        {"thing_id": thing, "event_timestamp": f"2026-11-20T1{hour}:30:00Z", "label": thing * 10}
        for thing, hour in ((1, 2), (2, 3), (3, 4))
    ]
    features = [
        "every_type:an_int64",
        "every_type:a_string",
        "every_type:a_double",
        "every_type:a_bool",
    ]
    answers = {
        side: sorted(
            run(side, "historical", repository, {"rows": rows, "features": features}),
            key=lambda row: row["thing_id"],
        )
        for side in SIDES
    }
    for ours, feasts in zip(answers["ours"], answers["feast"], strict=True):
        for name in ("thing_id", "label", "a_string", "a_double", "a_bool"):
            assert ours[name] == feasts[name], name
    assert [row["an_int64"] for row in answers["ours"]] == [0, -(2**62), None]
