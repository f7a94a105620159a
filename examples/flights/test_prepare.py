"""Holds `prepare.py` against slow, obvious code: no statistic knows the future, and every value is what it says.

python -m pytest examples/flights
"""

from __future__ import annotations

import pytest

import prepare

SAMPLE = 250
COMPARED = [
    ("origin_departures", ["origin"], "left_at", prepare.ORIGIN_WINDOW),
    ("carrier_delays", ["carrier"], "outcome_at", prepare.CARRIER_WINDOW),
    ("route_delays", ["origin", "dest"], "outcome_at", prepare.ROUTE_FLIGHTS),
]
VALUES = {
    "origin_departures": {
        "origin_departures_3h": len,
        "origin_mean_dep_delay_3h": lambda flights: flights["dep_delay"].mean(),
        "origin_late_share_3h": lambda flights: (flights["dep_delay"] >= 15).mean(),
    },
    "carrier_delays": {
        "carrier_flights_7d": len,
        "carrier_mean_dep_delay_7d": lambda flights: flights["dep_delay"].mean(),
        "carrier_mean_arr_delay_7d": lambda flights: flights["arr_delay"].mean(),
        "carrier_late_share_7d": lambda flights: (flights["dep_delay"] >= 15).mean(),
    },
    "route_delays": {
        "route_flights_50": len,
        "route_mean_dep_delay_50": lambda flights: flights["dep_delay"].mean(),
        "route_mean_arr_delay_50": lambda flights: flights["arr_delay"].mean(),
        "route_late_share_50": lambda flights: (flights["dep_delay"] >= 15).mean(),
    },
}


@pytest.fixture(scope="module")
def flights():
    return prepare.read_flights()


@pytest.mark.parametrize(("name", "keys", "known_at", "window"), COMPARED)
def test_rolling_values_equal_a_naive_recomputation(flights, name, keys, known_at, window):
    table = getattr(prepare, name)(flights)
    by_key = dict(tuple(flights.groupby(keys)))
    for _, row in table.sample(SAMPLE, random_state=1).iterrows():
        now = row["event_timestamp"]
        mine = by_key[tuple(row[key] for key in keys)]
        known = mine[mine[known_at] <= now]
        if isinstance(window, int):
            used = known.sort_values([known_at, "flight_id"]).tail(window)
        else:
            used = known[known[known_at] > now - window]
        for column, value in VALUES[name].items():
            assert row[column] == pytest.approx(value(used), rel=1e-5, abs=1e-5), (name, column, row.to_dict())


@pytest.mark.parametrize(("name", "keys", "known_at", "window"), COMPARED)
def test_flights_that_become_known_later_change_no_earlier_row(flights, name, keys, known_at, window):
    """Falsifies the future instead of reading the code: whatever happens after `now`, rows up to `now` stay."""
    now = flights["sched_dep"].iloc[20_000]
    few = flights.head(30_000).copy()
    build = getattr(prepare, name)
    truth = build(few)
    later = ~(few[known_at] <= now)
    few.loc[later, ["dep_delay", "arr_delay"]] = 999.0
    few.loc[later, "late"] = 1
    falsified = build(few)
    assert (truth["event_timestamp"] > now).any()
    assert not truth.equals(falsified)
    past, falsified_past = (t[t["event_timestamp"] <= now].reset_index(drop=True) for t in (truth, falsified))
    assert len(past) > 1000
    assert past.equals(falsified_past)


@pytest.mark.parametrize(("name", "keys", "known_at", "window"), COMPARED)
def test_every_moment_of_a_key_has_one_row(flights, name, keys, known_at, window):
    table = getattr(prepare, name)(flights)
    known = flights[flights[known_at].notna()]
    assert not table.duplicated([*keys, "event_timestamp"]).any()
    assert len(table) == len(known[[*keys, known_at]].drop_duplicates())


def test_an_outcome_is_known_only_after_landing(flights):
    landed = flights[flights["outcome_at"].notna()]
    assert (landed["left_at"] < landed["actual_arr"]).all()
    assert (landed["outcome_at"] > landed["actual_arr"]).all()
    assert flights.loc[flights["dep_delay"].isna(), "left_at"].isna().all()
    assert flights.loc[flights["arr_delay"].isna(), "outcome_at"].isna().all()


def test_taxi_allowance_covers_the_longest_taxi(flights):
    """Delays and time in the air give the time on the ground, up to the constant block time of a scheduled flight."""
    landed = flights[flights["outcome_at"].notna()]
    schedule = [landed[column] for column in ("carrier", "flight", "origin", "dest")]
    local = landed["sched_dep"].dt.tz_convert("America/New_York")
    schedule += [local.dt.hour * 60 + local.dt.minute, local.dt.month]
    ground = (landed["arr_delay"] - landed["dep_delay"] - landed["air_time"]).astype("float64")
    more_than_the_shortest = ground - ground.groupby(schedule).transform("min")
    generous_shortest = 45
    assert more_than_the_shortest.max() + generous_shortest <= prepare.TAXI_ALLOWANCE.total_seconds() / 60


def test_weather_is_usable_from_the_end_of_its_hour():
    import pandas as pd

    raw, table = pd.read_parquet(prepare.RAW / "weather.parquet"), prepare.weather()
    assert ((table["event_timestamp"] - raw["event_timestamp"]) == pd.Timedelta(hours=1)).all()
    assert table["wind_speed"].max() <= prepare.FASTEST_WIND


def test_timetable_has_every_flight_before_it_leaves(flights):
    table = prepare.timetable(flights)
    assert len(table) == 336_776
    assert (table["event_timestamp"] == flights["sched_dep"] - prepare.PREDICTION_LEAD).all()


def test_limit_of_few_flights_builds_all_tables(tmp_path):
    assert prepare.prepare(tmp_path, limit=1)["timetable"] == 1
