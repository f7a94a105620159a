"""Arguments of the command line that are wrong."""

from __future__ import annotations

import pytest
from inputs import (
    MATERIALIZE,
    ONLINE,
)
from told import contents, is_clear

FRAME = ["get-historical-features", "-f", "driver_stats:trips", "--dataframe"]
ARGUMENTS: list[tuple[list[str], str]] = [
    ([], "Usage: feast"),
    (["aply"], "a similar subcommand exists: 'apply'"),
    (["--nope"], "unexpected argument '--nope'"),
    (["apply", "x"], "unexpected argument 'x'"),
    (["-f", "/nope.yaml", "plan"], "there is no configuration file `/nope.yaml`"),
    (["-f", "/etc/passwd", "plan"], "the configuration is text"),
    (["-f", "/", "plan"], "`/` is a folder, not a configuration file"),
    (["--log-level", "loud", "plan"], "[possible values: debug"),
    (["--output", "xml", "entities", "list"], "[possible values: table"),
    (["materialize"], "START_TS and END_TS are required"),
    (["materialize", "2026-01-01"], "START_TS and END_TS are required"),
    (["materialize", "foo", "bar"], "invalid value 'foo'"),
    (["materialize", "2026-13-01", "2026-12-01"], "invalid value '2026-13-01'"),
    (["materialize", "2026-01-01T25:00:00", "2026-12-01"], "not a time"),
    (["materialize", "", "2026-12-01"], "not a time"),
    (["materialize", "99999-01-01", "2026-12-01"], "not a time"),
    (["materialize", "2026-12-01", "2026-01-01"], "lies after the end"),
    ([*MATERIALIZE, "--disable-event-timestamp"], "do not go together"),
    ([*MATERIALIZE, "-v", "driver_stat"], "did you mean `driver_stats`?"),
    ([*MATERIALIZE, "-v", ""], "feature view `` does not exist"),
    ([*MATERIALIZE, "-v", "driver"], "feature view `driver` does not exist"),
    (["materialize-incremental"], "<END_TS>"),
    (["materialize-incremental", "nope"], "not a time"),
    (["materialize-incremental", "2026-01-01", "-v", "nope"], "valid names are"),
    (["entities", "describe"], "<NAME>"),
    (["entities", "describe", "drivr"], "did you mean `driver`?"),
    (["feature-views", "describe", "driver_stat"], "did you mean `driver_stats`?"),
    (["feature-services", "describe", "x"], "valid names are `model`"),
    (["data-sources", "describe", "x"], "valid names are `push`, `pushed` and `stats`"),
    (["projects", "describe", "x"], "project `x` does not exist"),
    (["saved-datasets", "describe", "x"], "saved dataset `x` does not exist"),
    (["validation-references", "describe", "x"], "validation reference `x` does not exist"),
    (["permissions", "describe", "x"], "permission `x` does not exist"),
    (["on-demand-feature-views", "describe", "x"], "feature view `x` does not exist"),
    (["stream-feature-views", "describe", "x"], "stream feature view `x` does not exist"),
    (["label-views", "describe", "x"], "label view `x` does not exist"),
    (["features", "describe", "x"], "valid names are `conv_rate`, `trips` and `city`"),
    (["feature-views", "list", "--tags", "x"], "write `key:value`"),
    (["delete", "driver_stat"], "did you mean `driver_stats`?"),
    (["delete", "x'; DROP TABLE y"], "has no object `x'; DROP TABLE y`"),
    (["delete", "driver"], "is still used by feature view `driver_push`"),
    (["delete", "stats"], "is still used by feature view `driver_stats`"),
    (["delete", "driver_stats"], "is still used by feature service `model`"),
    (["get-online-features"], "--entities <KEY=VALUE>"),
    ([*ONLINE[:3], "-f", "driver_stats:tripz"], "did you mean `trips`?"),
    ([*ONLINE[:3], "-f", "driver_stat:trips"], "did you mean `driver_stats`?"),
    ([*ONLINE[:3], "-f", "trips"], "invalid feature reference `trips`"),
    ([*ONLINE[:3], "-f", ""], "invalid feature reference ``"),
    ([*ONLINE[:3], "-f", ":"], "invalid feature reference `:`"),
    ([*ONLINE[:3], "-f", "driver_stats@vx:trips"], "invalid feature reference"),
    ([*ONLINE, "-f", "driver_push:trips"], "would both be called `trips`"),
    ([*ONLINE[:3], "--feature-service", "nope"], "valid names are `model`"),
    ([*ONLINE[:1], *ONLINE[3:], "-e", "driver_id"], "write it as `driver_id=1001`"),
    ([*ONLINE[:1], *ONLINE[3:], "-e", "driver_id=abc"], "has `abc` in row 0"),
    ([*ONLINE[:1], *ONLINE[3:], "-e", "driver_id="], "has `` in row 0"),
    ([*ONLINE[:1], *ONLINE[3:], "-e", "driver_id=1.5"], "which is not a value of type INT64"),
    ([*ONLINE[:1], *ONLINE[3:], "-e", "driver_id=" + "9" * 20], "not a value of type INT64"),
    ([*ONLINE[:1], *ONLINE[3:], "-e", "customer=1"], "`driver_id`"),
    (FRAME, "a value is required"),
    ([*FRAME, "{"], "JSON, but not valid"),
    ([*FRAME, "[]"], "are empty"),
    ([*FRAME, "[1]"], "--dataframe"),
    ([*FRAME, '"x"'], "neither JSON nor CSV"),
    ([*FRAME, "@nope.csv"], "nope.csv"),
    ([*FRAME, "driver_id,event_timestamp\n1001"], "--dataframe"),
    ([*FRAME, '[{"driver_id": 1001, "event_timestamp": "nope"}]'], "`nope`"),
    ([*FRAME, '[{"driver_id": 1001}]'], "`event_timestamp`"),
    ([*FRAME, '[{"event_timestamp": "2026-11-20"}]'], "have no column `driver_id`"),
    ([*FRAME, '[{"driver_id": "x", "event_timestamp": "2026-11-20"}]'], "join key `driver_id`"),
    ([*FRAME, '{"driver_id": [1, 2], "event_timestamp": ["2026-11-20"]}'], "has 1 values"),
    ([*FRAME[:3], "--start-date", "x"], "not a time"),
    ([*FRAME[:3], "--start-date", "2026-12-01", "--end-date", "2026-01-01"], "is after the end"),
    (["serve", "--port", "x"], "invalid value 'x'"),
    (["serve", "--port", "99999"], "99999 is not in 0..=65535"),
    (["serve", "-h", "300.1.1.1"], "cannot listen on `300.1.1.1:6566`"),
    (["init", "a b!"], "`a b!` cannot be the name of a project"),
    (["init", "x", "-t", "nope"], "[possible values: local, flights]"),
    (["completion", "klingon"], "[possible values: bash"),
    (["projects", "delete", "nope"], "project `nope` does not exist"),
]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    ARGUMENTS,
    ids=lambda each: " ".join(each)[:60] if isinstance(each, list) else "",
)
def test_wrong_arguments_are_refused(arguments, expected, feast, applied):
    before = contents(applied)
    code, text = feast.run(applied, *arguments)
    assert code in (1, 2), text
    is_clear(text, expected)
    assert code == 2 or "hint: " in text, text
    assert contents(applied) == before


@pytest.mark.parametrize("folder", ["nope", "feature_store.yaml"])
def test_a_repository_that_is_none_is_refused(folder, feast, applied):
    feast.refuses(applied / folder, ["plan"], "there is no directory")
