"""Writes the rows of the example."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

folder = Path(__file__).parent / "data"
folder.mkdir(exist_ok=True)
hours = [datetime(2026, 11, 1, tzinfo=UTC) + timedelta(hours=hour) for hour in range(24)]
rows = [(driver, hour, driver * 100 + hour.hour) for hour in hours for driver in range(1, 6)]
driver_id, event_timestamp, trips = zip(*rows)
table = pa.table({"driver_id": driver_id, "event_timestamp": event_timestamp, "trips": trips})
pq.write_table(table, folder / "trips.parquet")
