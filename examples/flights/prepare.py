"""Turns raw flights and weather into feature tables: the batch step in front of the feature store.

A row's `event_timestamp` is the moment from which its values are known. Three clocks matter:

* a departure delay is known when the flight leaves the gate: scheduled departure + departure delay;
* an outcome (with the arrival delay) is known once the flight is at its gate. The raw `actual_arr` is departure plus
  time in the air, without taxiing, and therefore too early; `TAXI_ALLOWANCE` covers what is missing;
* a weather row describes a whole hour (its precipitation is the hour's total), so it is known when the hour ends.

All times are UTC, where no flight lands before it has left and no clock is turned back. Cancelled flights have no
departure, diverted ones no arrival: they never enter the statistics that would need it.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import pandas as pd

EXAMPLE = Path(__file__).resolve().parent
RAW = EXAMPLE / "data" / "raw"

TAXI_ALLOWANCE = pd.Timedelta(hours=5)
WEATHER_HOUR = pd.Timedelta(hours=1)
PREDICTION_LEAD = pd.Timedelta(hours=1)
LATE_MINUTES = 15
ORIGIN_WINDOW = pd.Timedelta(hours=3)
CARRIER_WINDOW = pd.Timedelta(days=7)
ROUTE_FLIGHTS = 50
FASTEST_WIND = 200.0  # miles per hour; the raw data hold one reading of 1,048

UTC_MICROSECONDS = "datetime64[us, UTC]"
MICROSECONDS_PER_MINUTE = 60_000_000


def read_flights(raw: Path = RAW, limit: int | None = None) -> pd.DataFrame:
    """Reads the first `limit` flights (all by default) in order of scheduled departure, with their three clocks."""
    flights = pd.read_parquet(raw / "flights.parquet")
    flights = flights.sort_values(["sched_dep", "carrier", "flight"], kind="stable", ignore_index=True).head(limit)
    delay = pd.to_timedelta(flights["dep_delay"].astype("float64"), unit="min")
    flights["flight_id"] = np.arange(len(flights), dtype="int64")
    flights["predicted_at"] = (flights["sched_dep"] - PREDICTION_LEAD).astype(UTC_MICROSECONDS)
    flights["left_at"] = (flights["sched_dep"] + delay).astype(UTC_MICROSECONDS)
    flights["outcome_at"] = (flights["actual_arr"] + TAXI_ALLOWANCE).astype(UTC_MICROSECONDS)
    flights["late"] = (flights["dep_delay"] >= LATE_MINUTES).astype("int64")
    return flights


def rolling(
    flights: pd.DataFrame,
    keys: list[str],
    known_at: str,
    sums: list[str],
    window: pd.Timedelta | int,
) -> tuple[pd.DataFrame, np.ndarray, dict[str, np.ndarray]]:
    """Sums `sums` over the flights of a key known at a moment: those of the last `window`, or the last so many.

    Returns one row of keys and `event_timestamp` per key and moment at which a flight became known, the number of
    flights behind it, and the sums. A time window is open at its start and closed at its end. The values to sum are
    whole minutes, so that running totals in 64-bit integers are exact.
    """
    known = flights[flights[known_at].notna()]
    group = known.groupby(keys, sort=True).ngroup().to_numpy()
    moment = known[known_at].astype("int64").to_numpy() // MICROSECONDS_PER_MINUTE
    order = np.lexsort((known["flight_id"].to_numpy(), moment, group))
    known, group, moment = known.iloc[order], group[order], moment[order]

    # One axis for all keys: each key gets a stretch of time of its own, which no window of the next one reaches.
    lookback = window // pd.Timedelta(minutes=1) if isinstance(window, pd.Timedelta) else 0
    moment_range = int(moment.max() - moment.min()) + lookback + 1 if len(moment) else 1
    axis = group * moment_range + (moment - moment.min() if len(moment) else moment)

    last_of_moment = np.flatnonzero(np.append(axis[1:] != axis[:-1], True)) if len(axis) else np.array([], dtype=int)
    end = last_of_moment + 1
    if isinstance(window, pd.Timedelta):
        start = np.searchsorted(axis, axis[last_of_moment] - lookback, side="right")
    else:
        group_start = np.searchsorted(group, group[last_of_moment], side="left")
        start = np.maximum(group_start, end - window)

    totals = {}
    for name in sums:
        running = np.concatenate([[0], np.cumsum(known[name].to_numpy().astype("int64"))])
        totals[name] = running[end] - running[start]
    table = known.iloc[last_of_moment][[*keys, known_at]].rename(columns={known_at: "event_timestamp"})
    return table.reset_index(drop=True), (end - start).astype("int64"), totals


def mean(total: np.ndarray, count: np.ndarray) -> np.ndarray:
    """Divides in double precision and stores what the feature declares."""
    return (total / count).astype("float32")


def origin_departures(flights: pd.DataFrame) -> pd.DataFrame:
    """How punctually flights left an origin in the last three hours."""
    table, count, total = rolling(flights, ["origin"], "left_at", ["dep_delay", "late"], ORIGIN_WINDOW)
    table["origin_departures_3h"] = count
    table["origin_mean_dep_delay_3h"] = mean(total["dep_delay"], count)
    table["origin_late_share_3h"] = mean(total["late"], count)
    return table


def carrier_delays(flights: pd.DataFrame) -> pd.DataFrame:
    """How punctual a carrier was in the last seven days."""
    table, count, total = rolling(
        flights, ["carrier"], "outcome_at", ["dep_delay", "arr_delay", "late"], CARRIER_WINDOW
    )
    table["carrier_flights_7d"] = count
    table["carrier_mean_dep_delay_7d"] = mean(total["dep_delay"], count)
    table["carrier_mean_arr_delay_7d"] = mean(total["arr_delay"], count)
    table["carrier_late_share_7d"] = mean(total["late"], count)
    return table


def route_delays(flights: pd.DataFrame) -> pd.DataFrame:
    """How punctual the last fifty flights of a route were."""
    table, count, total = rolling(
        flights, ["origin", "dest"], "outcome_at", ["dep_delay", "arr_delay", "late"], ROUTE_FLIGHTS
    )
    table["route_flights_50"] = count
    table["route_mean_dep_delay_50"] = mean(total["dep_delay"], count)
    table["route_mean_arr_delay_50"] = mean(total["arr_delay"], count)
    table["route_late_share_50"] = mean(total["late"], count)
    return table


def weather(raw: Path = RAW) -> pd.DataFrame:
    """The hourly weather, usable from the end of its hour, without the impossible wind."""
    table = pd.read_parquet(raw / "weather.parquet")
    table["event_timestamp"] = (table["event_timestamp"] + WEATHER_HOUR).astype(UTC_MICROSECONDS)
    table.loc[table["wind_speed"] > FASTEST_WIND, "wind_speed"] = np.nan
    return table


def timetable(flights: pd.DataFrame) -> pd.DataFrame:
    """The entity frame: one row per flight, what its timetable says, and the answer the model has to learn.

    `event_timestamp` is the moment of prediction. `dep_delay` is null where a flight was cancelled.
    """
    local = flights["sched_dep"].dt.tz_convert("America/New_York")  # all three origins share this clock
    return pd.DataFrame(
        {
            "flight_id": flights["flight_id"],
            "origin": flights["origin"],
            "dest": flights["dest"],
            "carrier": flights["carrier"],
            "event_timestamp": flights["predicted_at"],
            "distance": flights["distance"],
            "hour": local.dt.hour.astype("int64"),
            "weekday": local.dt.day_of_week.astype("int64"),
            "dep_delay": flights["dep_delay"],
        }
    )


def prepare(repo: Path, raw: Path = RAW, limit: int | None = None) -> dict[str, int]:
    """Writes all tables into `repo`/data and returns the number of rows of each."""
    flights = read_flights(raw, limit)
    tables = {
        "weather": weather(raw),
        "origin_departures": origin_departures(flights),
        "carrier_delays": carrier_delays(flights),
        "route_delays": route_delays(flights),
        "timetable": timetable(flights),
    }
    (repo / "data").mkdir(parents=True, exist_ok=True)
    for name, table in tables.items():
        table.to_parquet(repo / "data" / f"{name}.parquet", index=False)
    return {name: len(table) for name, table in tables.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repo", type=Path, default=EXAMPLE / "feature_repo", help="feature repository to write to")
    parser.add_argument("--raw", type=Path, default=RAW, help="directory with flights.parquet and weather.parquet")
    parser.add_argument("--limit", type=int, help="use only the first N flights of the year")
    arguments = parser.parse_args()
    if arguments.limit is not None and arguments.limit < 1:
        parser.error(f"--limit must be at least 1, found {arguments.limit}")
    try:
        rows = prepare(arguments.repo, arguments.raw, arguments.limit)
    except FileNotFoundError as error:
        print(f"error: raw data not found: `{error.filename}`; pass their directory with --raw", file=sys.stderr)
        return 1
    for name, count in rows.items():
        print(f"{name:20} {count:>9,} rows")
    return 0


if __name__ == "__main__":
    sys.exit(main())
