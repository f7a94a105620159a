"""Writes the Delta table of the tests with the deltalake package: `write.py PLACE [ENDPOINT]`."""

import sys
from datetime import UTC, datetime

import pyarrow as pa
from deltalake import DeltaTable, write_deltalake

PLACE = sys.argv[1]
OPTIONS = {}
if len(sys.argv) > 2:
    OPTIONS = {"AWS_ENDPOINT_URL": sys.argv[2], "AWS_ALLOW_HTTP": "true"}


def rows(*rows):
    drivers, times, trips, cities = zip(*rows, strict=True)
    return pa.table(
        {
            "driver_id": pa.array(drivers, pa.int64()),
            "event_timestamp": pa.array([datetime.fromtimestamp(at, UTC) for at in times], pa.timestamp("us", "UTC")),
            "trips": pa.array(trips, pa.int64()),
            "city": pa.array(cities, pa.string()),
        }
    )


def add(table, **more):
    write_deltalake(PLACE, table, mode="append", storage_options=OPTIONS, **more)


add(rows((1, 10, 1, "New York"), (2, 10, 2, None)), partition_by=["city"])  # version 0
add(rows((1, 20, 3, "Oslo")))  # version 1
table = DeltaTable(PLACE, storage_options=OPTIONS)
table.update(updates={"trips": "trips + 100"}, predicate="driver_id = 2")  # version 2
table.delete("event_timestamp >= '1970-01-01T00:00:20Z'")  # version 3
# A column more; files before it do not have it.
more = rows((3, 30, 7, "Oslo")).append_column("rating", pa.array([4.5]))
add(more, schema_mode="merge")  # version 4
table = DeltaTable(PLACE, storage_options=OPTIONS)
table.create_checkpoint()
