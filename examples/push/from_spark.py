"""Pushes from a PySpark job: a streaming query hands each micro-batch to the feature store as Arrow columns.

    python examples/push/from_spark.py FEATURE_REPO FOLDER_OF_PARQUET_FILES

Runs on the local master; on a cluster only the driver needs feast-rs, since micro-batches come to it. Where they are
too large for that, push from the executors with `foreachPartition` instead, as `from_beam.py` does from its workers.
"""

from __future__ import annotations

import sys

from feast import FeatureStore
from feast.data_source import PushMode
from pyspark.sql import DataFrame, SparkSession

SCHEMA = "taxi_id LONG, event_timestamp TIMESTAMP, speed FLOAT, passengers LONG, zone STRING"


def run(repository: str, folder: str) -> int:
    """Pushes all rows of the files in a folder; returns how many. Files that come later are for the next run."""
    spark = (
        SparkSession.builder.master("local[2]")
        .appName("push")
        .config("spark.sql.session.timeZone", "UTC")
        .config("spark.ui.enabled", "false")
        .config("spark.sql.shuffle.partitions", "2")
        .getOrCreate()
    )
    store = FeatureStore(repo_path=repository)
    pushed = 0

    def push(rows: DataFrame, number: int) -> None:
        nonlocal pushed
        table = rows.toArrow()
        if table.num_rows:
            # When this raises, the query stops, and its checkpoint hands the same rows out again.
            store.push("taxi_reports", table, to=PushMode.ONLINE_AND_OFFLINE)
            pushed += table.num_rows

    try:
        stream = spark.readStream.schema(SCHEMA).option("maxFilesPerTrigger", 1).parquet(folder)
        query = stream.writeStream.foreachBatch(push).trigger(availableNow=True)
        query.option("checkpointLocation", f"{repository}/data/checkpoint").start().awaitTermination()
        return pushed
    finally:
        spark.stop()


if __name__ == "__main__":
    print(run(*sys.argv[1:3]), "rows pushed")
