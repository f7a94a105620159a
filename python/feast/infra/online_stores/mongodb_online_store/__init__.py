from feast.infra.online_stores.mongodb_online_store.mongodb import MongoDBOnlineStoreConfig

__all__ = ["MongoDBOnlineStoreConfig"]
