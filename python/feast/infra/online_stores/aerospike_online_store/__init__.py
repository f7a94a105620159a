from feast.infra.online_stores.aerospike_online_store.aerospike import AerospikeOnlineStoreConfig

__all__ = ["AerospikeOnlineStoreConfig"]
