"""Made-up frames about drivers, customers and places, for templates, examples and tests.

Event times are hourly or daily, in UTC; values are random. `created` is the time of the call.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, timedelta, timezone
from enum import Enum
from itertools import permutations
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd


class EventTimestampType(Enum):
    """How a time says its zone."""

    TZ_NAIVE = 0
    TZ_AWARE_UTC = 1
    TZ_AWARE_FIXED_OFFSET = 2
    TZ_AWARE_US_PACIFIC = 3


_ZONES = {
    EventTimestampType.TZ_AWARE_UTC: UTC,
    EventTimestampType.TZ_AWARE_FIXED_OFFSET: timezone(timedelta(hours=1)),
    EventTimestampType.TZ_AWARE_US_PACIFIC: ZoneInfo("US/Pacific"),
}
# The quickstart asks for features at this instant, whatever range was asked for.
_QUICKSTART = pd.Timestamp("2021-04-12 07:00", tz="UTC")


def create_orders_df(
    customers: Sequence[int],
    drivers: Sequence[int],
    start_date: Any,
    end_date: Any,
    order_count: int,
    locations: Sequence[int] | None = None,
) -> pd.DataFrame:
    """Orders as entity rows: ids, success, and event times that take turns in all kinds of zones."""
    orders = pd.DataFrame(
        {
            "order_id": range(100, 100 + order_count),
            "driver_id": np.random.choice(drivers, order_count),
            "customer_id": np.random.choice(customers, order_count),
        }
    )
    if locations:
        trips = np.array(list(permutations(locations, 2)))
        chosen = trips[np.random.choice(len(trips), order_count)]
        orders["origin_id"], orders["destination_id"] = chosen[:, 0], chosen[:, 1]
    orders["order_is_success"] = np.random.randint(0, 2, order_count).astype(np.int32)
    times = pd.date_range(start_date, end_date, periods=order_count, tz="UTC").round("ms")
    orders["event_timestamp"] = pd.Series(
        [_in_zone(time, EventTimestampType(number % 4)) for number, time in enumerate(times)],
        dtype=object,
    )
    return orders


def create_driver_hourly_stats_df(
    drivers: Sequence[int], start_date: Any, end_date: Any
) -> pd.DataFrame:
    """Hourly figures per driver: rates, trips, and columns of the map, JSON and struct types."""
    hours = _times(start_date, end_date, "1h").append(pd.DatetimeIndex([_QUICKSTART]))
    stats = _per_key("driver_id", drivers, hours)
    n_rows = len(stats)
    stats["conv_rate"] = np.random.random(n_rows).astype(np.float32)
    stats["acc_rate"] = np.random.random(n_rows).astype(np.float32)
    stats["avg_daily_trips"] = np.random.randint(0, 1000, n_rows).astype(np.int64)
    stats["created"] = _now()
    kinds, ratings = (
        np.random.choice(["sedan", "suv", "truck"], n_rows),
        np.random.uniform(3, 5, n_rows),
    )
    stats["driver_metadata"] = [
        {"vehicle_type": str(kind), "rating": f"{rating:.1f}"}
        for kind, rating in zip(kinds, ratings)
    ]
    stats["driver_config"] = [
        json.dumps({"max_distance_km": int(distance), "preferred_zones": zones})
        for distance, zones in zip(
            np.random.randint(10, 200, n_rows), (_two_zones() for _ in range(n_rows))
        )
    ]
    ages = np.random.randint(25, 60, n_rows)
    stats["driver_profile"] = [
        {"name": f"driver_{driver}", "age": str(age)}
        for driver, age in zip(stats["driver_id"], ages)
    ]
    # A row that is there three times: whatever joins it must not multiply its own rows.
    repeated = stats.iloc[[n_rows // 2] * 2]
    return pd.concat([stats, repeated], ignore_index=True)


def create_customer_daily_profile_df(
    customers: Sequence[int], start_date: Any, end_date: Any
) -> pd.DataFrame:
    """Daily figures per customer: balance, passengers, trips."""
    profile = _per_key("customer_id", customers, _times(start_date, end_date, "1D"))
    n_rows = len(profile)
    profile["current_balance"] = np.random.random(n_rows).astype(np.float32)
    profile["avg_passenger_count"] = np.random.random(n_rows).astype(np.float32)
    profile["lifetime_trip_count"] = np.random.randint(0, 1000, n_rows).astype(np.int32)
    profile["created"] = _now()
    return profile


def create_location_stats_df(
    locations: Sequence[int], start_date: Any, end_date: Any
) -> pd.DataFrame:
    """The temperature per place and hour."""
    stats = _per_key("location_id", locations, _times(start_date, end_date, "1h"))
    stats["temperature"] = np.random.randint(50, 100, len(stats)).astype(np.int32)
    stats["created"] = _now()
    return stats


def create_global_daily_stats_df(start_date: Any, end_date: Any) -> pd.DataFrame:
    """Daily figures that belong to no entity: rides and their length."""
    stats = pd.DataFrame({"event_timestamp": _times(start_date, end_date, "1D")})
    stats["num_rides"] = np.random.randint(50, 100, len(stats)).astype(np.int32)
    stats["avg_ride_length"] = np.random.random(len(stats)).astype(np.float32)
    stats["created"] = _now()
    return stats


def create_field_mapping_df(start_date: Any, end_date: Any) -> pd.DataFrame:
    """Ten rows with a column that a field mapping may rename."""
    times = pd.date_range(start_date, end_date, periods=10, tz="UTC").round("ms")
    frame = pd.DataFrame(
        {"column_name": np.random.randint(1, 100, 10).astype(np.int32), "event_timestamp": times}
    )
    frame["created"] = _now()
    return frame


def _per_key(name: str, keys: Sequence[int], times: pd.DatetimeIndex) -> pd.DataFrame:
    index = pd.MultiIndex.from_product([keys, times], names=[name, "event_timestamp"])
    return index.to_frame(index=False)[["event_timestamp", name]]


def _times(start_date: Any, end_date: Any, step: str) -> pd.DatetimeIndex:
    return pd.date_range(start_date, end_date, freq=step, inclusive="left", tz="UTC").round("ms")


def _in_zone(time: pd.Timestamp, kind: EventTimestampType) -> pd.Timestamp:
    return time.tz_convert(_ZONES[kind]) if kind in _ZONES else time.tz_localize(None)


def _now() -> pd.Timestamp:
    return pd.Timestamp.now().round("ms")


def _two_zones() -> list[str]:
    return [
        str(zone) for zone in np.random.choice(["north", "south", "east", "west"], 2, replace=False)
    ]
