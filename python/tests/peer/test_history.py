"""Training data of random repositories, three times: by our engine, by a naive reading of the rule, and by Feast."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from history import Case, View, ask, entity_frame, random_case, write_sources

OUR_CASES = range(100)
FEAST_CASES = range(1000, 1020)
FEAST_STORES = ["dask", "duckdb"]


def expected(case: Case) -> dict[int, list[Any]]:
    """The rule, word by word: of the rows with the same keys that are no younger than the entity row and, if the view
    has a ttl, no older than that, the one with the latest event time; of several, the one created last; of several,
    the one that comes last in the source."""
    return {
        entity["row"]: [_value(case, view, feature, entity) for view, feature, _ in case.outputs]
        for entity in case.entity_rows
    }


def _value(case: Case, view: View, feature: str, entity: dict[str, Any]) -> Any:
    found = _candidates(case, view, entity)
    return max(found)[-1][feature] if found else None


def _candidates(
    case: Case, view: View, entity: dict[str, Any]
) -> list[tuple[int, int, int, dict[str, Any]]]:
    keys = [entity[view.column_of(key)] for key in view.keys]
    at = entity["event_timestamp"]
    return [
        (row["at"], row.get("made", 0), position, row)
        for position, row in enumerate(view.rows)
        if None not in keys
        and [row[key] for key in view.keys] == keys
        and row["at"] <= at
        and (not view.ttl or row["at"] >= at - view.ttl)
        and (not case.known or row["made"] <= at)
    ]


def _is_tied(case: Case, entity: dict[str, Any]) -> bool:
    """Whether the created time decides for one of the views: Feast's default store sorts by it, and then by the event
    time in a way that forgets the first order."""
    found = [_candidates(case, view, entity) for view in case.views]
    return any(len([row for row in rows if row[0] == max(rows)[0]]) > 1 for rows in found if rows)


def test_answers_are_those_of_the_rule(tmp_path: Path) -> None:
    n_rows = n_found = 0
    for seed in OUR_CASES:
        case = random_case(seed, for_feast=False)
        write_sources(case, tmp_path / str(seed))
        answer = ask(case, tmp_path / str(seed), "file", entity_frame(case))
        assert list(answer) == [row["row"] for row in case.entity_rows], (
            f"order of rows, seed {seed}"
        )
        assert answer == expected(case), f"seed {seed}"
        n_rows += len(answer)
        n_found += sum(value is not None for row in answer.values() for value in row)
    assert n_rows > 4000
    assert n_found > n_rows  # the cases are not empty ones


@pytest.fixture(scope="module")
def questions(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Path, Case]]:
    """The cases for Feast, with their sources."""
    root = tmp_path_factory.mktemp("history")
    found = []
    for seed in FEAST_CASES:
        case = random_case(seed, for_feast=True)
        write_sources(case, root / str(seed))
        found.append((root / str(seed), case))
    return found


@pytest.fixture(scope="module")
def feasts(peer: str, questions: list[tuple[Path, Case]]) -> Iterator[dict[str, list[Any]]]:
    """What Feast's stores answer; one process for all, because Feast takes seconds to start."""
    asked = [
        (str(folder), store, asdict(case)) for store in FEAST_STORES for folder, case in questions
    ]
    file = questions[0][0].parent / "questions.json"
    file.write_text(json.dumps(asked))
    script = Path(__file__).parent / "history.py"
    done = subprocess.run(
        [peer, str(script), str(file)], capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr
    answers = json.loads(done.stdout)
    yield {
        store: answers[number * len(questions) :][: len(questions)]
        for number, store in enumerate(FEAST_STORES)
    }


@pytest.mark.parametrize("offline_store", FEAST_STORES)
def test_answers_are_feasts_for_the_rows_it_keeps(
    questions: list[tuple[Path, Case]], feasts: dict[str, list[Any]], offline_store: str
) -> None:
    n_compared = 0
    for (folder, case), answer in zip(questions, feasts[offline_store], strict=True):
        ours = ask(case, folder, "file", entity_frame(case))
        assert ours == expected(case), folder.name
        assert not isinstance(answer, str), f"{folder.name}: {answer}"
        tied = {
            row["row"]
            for row in case.entity_rows
            if offline_store == "dask" and _is_tied(case, row)
        }
        for row, values in answer:
            if row not in tied:
                assert ours[row] == values, f"{folder.name}, row {row}"
                n_compared += 1
    assert n_compared > 500
