"""Settings of the HBase online store."""

from __future__ import annotations

from feast._settings import Settings


class HbaseOnlineStoreConfig(Settings):
    """Settings of the HBase online store."""

    type: str = "hbase"
    host: str
    port: str
    connection_pool_size: int = 4
    protocol: str = "binary"
    transport: str = "buffered"
