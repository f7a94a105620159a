"""Settings of the ClickHouse offline store."""

from __future__ import annotations

from feast.infra.utils.clickhouse.clickhouse_config import ClickhouseConfig


class ClickhouseOfflineStoreConfig(ClickhouseConfig):
    """Settings of the ClickHouse offline store."""

    type: str = "clickhouse"
