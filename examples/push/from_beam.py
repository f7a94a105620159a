"""Pushes from an Apache Beam pipeline: every worker opens the feature store once and pushes bundles of rows.

python examples/push/from_beam.py FEATURE_REPO FOLDER_OF_PARQUET_FILES
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions

MOST_ROWS = 10_000


class Push(beam.DoFn):
    """Pushes lists of rows and passes on how many there were."""

    def __init__(self, repository: str) -> None:
        self.repository = repository

    def setup(self) -> None:
        from feast import FeatureStore

        self.store = FeatureStore(repo_path=self.repository)

    def process(self, rows: list[dict[str, Any]]) -> Iterator[int]:
        import pyarrow as pa
        from feast.data_source import PushMode

        # When this raises, Beam tries the bundle again: the same rows twice change nothing online.
        self.store.push("taxi_reports", pa.Table.from_pylist(rows), to=PushMode.ONLINE)
        yield len(rows)


def run(repository: str, folder: str) -> None:
    """Pushes all rows of the files in a folder, on the local runner."""
    options = PipelineOptions(["--runner=DirectRunner", "--direct_num_workers=1"])
    with beam.Pipeline(options=options) as pipeline:
        (
            pipeline
            | "read" >> beam.io.ReadFromParquet(f"{folder}/*.parquet")
            | "bundle" >> beam.BatchElements(min_batch_size=100, max_batch_size=MOST_ROWS)
            | "push" >> beam.ParDo(Push(repository))
            | "count" >> beam.CombineGlobally(sum)
            | "tell" >> beam.Map(lambda rows: print(rows, "rows pushed"))
        )


if __name__ == "__main__":
    run(*sys.argv[1:3])
