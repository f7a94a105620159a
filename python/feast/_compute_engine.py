"""Runs a compute engine that a team wrote in Python, one task at a time, for the engine in Rust."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from feast import _own_thread
from feast._frames import moment
from feast._objects import KINDS
from feast._own_class import own_class
from feast.infra.common.materialization_job import (
    MaterializationJob,
    MaterializationJobStatus,
    MaterializationTask,
)
from feast.infra.compute_engines.base import ComputeEngine

_FAILED = (MaterializationJobStatus.ERROR, MaterializationJobStatus.CANCELLED)
_LONGEST_PAUSE = 5.0


class Engine:
    """The engine of one feature store. The class is imported and made when there is a task for it."""

    def __init__(self, path: str, configuration: str, repo_path: str) -> None:
        from feast.feature_store import FeatureStore

        store = FeatureStore.__new__(FeatureStore)
        store.repo_path = Path(repo_path)
        store._open(configuration, None, interpolate=False)
        options = json.loads(configuration).get("batch_engine")
        self._store = store

        def made() -> ComputeEngine:
            return own_class(path, repo_path, ComputeEngine)(
                repo_config=store.config,
                offline_store=EngineOfflineStore(store),
                online_store=EngineOnlineStore(store),
                **(options if isinstance(options, dict) else {}),
            )

        self._engine = _own_thread.run(made)

    def materialize(
        self, project: str, kind: str, message: bytes, start: int, end: int
    ) -> int | None:
        """Runs a task to its end. Returns the number of rows, if the engine says it."""
        return _own_thread.run(self._materialize, project, kind, message, start, end)

    def _materialize(
        self, project: str, kind: str, message: bytes, start: int, end: int
    ) -> int | None:
        task = MaterializationTask(
            project=project,
            feature_view=KINDS[kind].decode(message),
            start_time=moment(start),
            end_time=moment(end),
            tqdm_builder=_no_bar,
        )
        jobs = self._engine.materialize(self._store.registry, task)
        if not isinstance(jobs, list) or not jobs:
            raise TypeError(
                f"`{type(self._engine).__name__}.materialize` must return a list of jobs, but returned {jobs!r:.80}"
            )
        for job in jobs:
            _finish(job)
        written = [getattr(job, "rows", None) for job in jobs]
        return sum(written) if all(isinstance(rows, int) for rows in written) else None


def _finish(job: MaterializationJob) -> None:
    """Waits until a job has ended; raises what it failed with."""
    pause = 0.05
    while True:
        status = job.status()
        if status is MaterializationJobStatus.SUCCEEDED:
            return
        if status in _FAILED:
            error = job.error()
            raise error if error is not None else RuntimeError(f"job `{job.job_id()}` has failed")
        time.sleep(pause)
        pause = min(pause * 2, _LONGEST_PAUSE)


class _NoBar:
    """A progress bar that shows nothing: the engine in Rust tells progress its own way."""

    def __enter__(self) -> _NoBar:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def update(self, _: int = 1) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


def _no_bar(_: int) -> _NoBar:
    return _NoBar()


class PulledRows:
    """Rows of a source; read when they are asked for."""

    def __init__(self, read: Callable[[], Any]) -> None:
        self._read = read

    def to_arrow(self, *_: Any, **__: Any) -> Any:
        """The rows as an Arrow table."""
        return self._read()

    def to_df(self, *_: Any, **__: Any) -> Any:
        """The rows as a pandas frame."""
        return self._read().to_pandas()


class EngineOfflineStore:
    """The offline store, with the calls by which Feast's engines read."""

    def __init__(self, store: Any) -> None:
        self._store = store

    def pull_all_from_table_or_query(
        self,
        config: Any,
        data_source: Any,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None = None,
        start_date: datetime | None = None,
        end_date: datetime | None = None,
    ) -> PulledRows:
        """All rows of a source between two times, both included; without names of features, all of its columns."""
        from feast import _frames

        start = -(2**62) if start_date is None else _frames.microseconds(start_date, "start_date")
        end = 2**62 if end_date is None else _frames.microseconds(end_date, "end_date")
        columns = [*join_key_columns, *feature_name_columns, timestamp_field]
        if created_timestamp_column:
            columns.append(created_timestamp_column)

        def read() -> Any:
            message = data_source.to_proto().SerializeToString()
            table = _frames.to_table(self._store._native.source_rows(message, start, end))
            return table.select(list(dict.fromkeys(columns))) if feature_name_columns else table

        return PulledRows(read)

    def pull_latest_from_table_or_query(
        self,
        config: Any,
        data_source: Any,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None,
        start_date: datetime,
        end_date: datetime,
    ) -> PulledRows:
        """The newest row of each key between two times; the greater created time decides between equals."""
        everything = self.pull_all_from_table_or_query(
            config,
            data_source,
            join_key_columns,
            feature_name_columns,
            timestamp_field,
            created_timestamp_column,
            start_date,
            end_date,
        )
        times = [timestamp_field, *([created_timestamp_column] if created_timestamp_column else [])]

        def read() -> Any:
            import pyarrow

            table = everything.to_arrow()
            frame = table.to_pandas().sort_values(times, kind="stable", na_position="first")
            newest = frame.drop_duplicates(join_key_columns or None, keep="last")
            if not join_key_columns:
                newest = frame.tail(1)
            return table.take(pyarrow.array(sorted(newest.index)))

        return PulledRows(read)


class EngineOnlineStore:
    """The online store, with the call by which Feast's engines write."""

    def __init__(self, store: Any) -> None:
        self._store = store

    def online_write_batch(
        self,
        config: Any,
        table: Any,
        data: list[tuple[Any, dict[str, Any], datetime, datetime | None]],
        progress: Callable[[int], Any] | None,
    ) -> None:
        """Writes rows: entity key, values by feature, event time and created time."""
        import pyarrow

        if not data:
            return
        columns: dict[str, list[Any]] = {}
        for key, values, event, created in data:
            row = dict(zip(key.join_keys, key.entity_values))
            row.update({feature.name: values.get(feature.name) for feature in table.features})
            for name, value in row.items():
                columns.setdefault(name, []).append(_plain(value))
            columns.setdefault(table.batch_source.timestamp_field, []).append(event)
            if table.batch_source.created_timestamp_column:
                columns.setdefault(table.batch_source.created_timestamp_column, []).append(created)
        self._store._native.write_to_online_store(table.name, pyarrow.table(columns), True)
        if progress is not None:
            progress(len(data))


def _plain(value: Any) -> Any:
    """The Python value of a `feast.types.Value`; plain values stay."""
    if value is None or not hasattr(value, "WhichOneof"):
        return value
    which = value.WhichOneof("val")
    if which is None or which == "null_val":
        return None
    found = getattr(value, which)
    return list(found.val) if hasattr(found, "val") else found
