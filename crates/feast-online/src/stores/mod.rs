//! The online stores: one file each, and the table of their names.

mod cells;
mod entity_id;
mod forking;
mod newest;
mod options;
mod per_process;
mod retry;
mod sql;

pub mod datastore;
pub mod dynamodb;
pub mod memory;
pub mod mysql;
pub mod postgres;
pub mod redis;
pub mod remote;
pub mod sqlite;

pub use forking::{after_fork, before_fork};

use std::path::Path;
use std::sync::Arc;

use feast_core::{Error, ErrorCode, KnownStore, ManagedTable, OnlineStore, Result, did_you_mean};
use serde_json::Value;

/// A store that Feast has and this product does not have yet.
macro_rules! not_built {
    ($name:literal) => {
        not_built!($name, &[])
    };
    ($name:literal, $aliases:expr) => {
        KnownStore {
            name: $name,
            aliases: $aliases,
            connect: |_, _| {
                Err(Error::unsupported(concat!("online store `", $name, "` is not built yet"))
                    .with_hint("use `online_store: sqlite`, which needs no server"))
            },
        }
    };
}

/// Every online store that `feature_store.yaml` can name.
pub static KNOWN_STORES: &[KnownStore] = &[
    KnownStore {
        name: "sqlite",
        aliases: &["feast.infra.online_stores.sqlite.SqliteOnlineStore"],
        connect: |options, base| Ok(Arc::new(sqlite::SqliteStore::connect(options, base)?)),
    },
    KnownStore {
        name: "redis",
        aliases: &["feast.infra.online_stores.redis.RedisOnlineStore"],
        connect: |options, _| Ok(Arc::new(redis::RedisStore::connect(options)?)),
    },
    KnownStore { name: "memory", aliases: &[], connect: |options, _| Ok(Arc::new(memory::connect(options)?)) },
    KnownStore {
        name: "dynamodb",
        aliases: &["feast.infra.online_stores.dynamodb.DynamoDBOnlineStore"],
        connect: |options, _| Ok(Arc::new(dynamodb::DynamoStore::connect(options)?)),
    },
    KnownStore {
        name: "datastore",
        aliases: &["feast.infra.online_stores.datastore.DatastoreOnlineStore"],
        connect: |options, _| Ok(Arc::new(datastore::DatastoreStore::connect(options)?)),
    },
    not_built!("bigtable", &["feast.infra.online_stores.bigtable.BigtableOnlineStore"]),
    KnownStore {
        name: "postgres",
        aliases: &[
            "feast.infra.online_stores.postgres_online_store.postgres.PostgreSQLOnlineStore",
            "feast.infra.online_stores.contrib.postgres.PostgreSQLOnlineStore",
        ],
        connect: |options, _| Ok(Arc::new(postgres::connect(options)?)),
    },
    KnownStore {
        name: "mysql",
        aliases: &["feast.infra.online_stores.mysql_online_store.mysql.MySQLOnlineStore"],
        connect: |options, _| Ok(Arc::new(mysql::connect(options)?)),
    },
    not_built!("cassandra"),
    not_built!("scylladb"),
    not_built!("hbase"),
    not_built!("hazelcast"),
    not_built!("elasticsearch"),
    not_built!("singlestore"),
    not_built!("qdrant"),
    not_built!("milvus"),
    not_built!("mongodb"),
    not_built!("couchbase.online"),
    not_built!("snowflake.online"),
    not_built!("aerospike"),
    KnownStore {
        name: "remote",
        aliases: &["feast.infra.online_stores.remote.RemoteOnlineStore"],
        connect: |options, base| Ok(Arc::new(remote::RemoteStore::connect(options, base)?)),
    },
    not_built!("hybrid"),
    not_built!("chronon"),
];

/// The store with this name or alias.
///
/// # Errors
/// `UnknownOnlineStore` with the closest name.
pub fn known_store(name: &str) -> Result<&'static KnownStore> {
    KNOWN_STORES.iter().find(|known| known.name == name || known.aliases.contains(&name)).ok_or_else(|| {
        Error::new(ErrorCode::UnknownOnlineStore, format!("there is no online store of type `{name}`"))
            .with_hint_opt(did_you_mean(name, KNOWN_STORES.iter().map(|known| known.name)))
    })
}

/// Connects to the store named `name` with its part of the configuration; relative paths start at `base`. Nothing is
/// opened before the first call.
///
/// # Errors
/// `UnknownOnlineStore`, `Unsupported` for stores that are not built yet, `InvalidConfiguration`.
pub fn connect(name: &str, options: &Value, base: &Path) -> Result<Arc<dyn OnlineStore>> {
    (known_store(name)?.connect)(options, base)
}

/// How Feast records a table of its SQLite store in the registry; other stores have no such record.
pub fn managed_table(store: &str, options: &Value, base: &Path, table: &str) -> Option<ManagedTable> {
    known_store(store).ok().filter(|known| known.name == "sqlite")?;
    let file = sqlite::SqliteConfig::parse(options).ok()?.file(base);
    Some(ManagedTable {
        class_type: "feast.infra.online_stores.sqlite.SqliteTable".to_owned(),
        name: table.to_owned(),
        path: file.display().to_string(),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn names_lead_to_stores_or_say_why_not() {
        let base = Path::new("/repo");
        let connect = |name: &str| connect(name, &Value::Null, base);
        assert_eq!(connect("sqlite").unwrap().to_string(), "sqlite at `/repo/data/online.db`");
        assert_eq!(connect("memory").unwrap().to_string(), "memory");
        assert_eq!(connect("redis").unwrap().to_string(), "redis at `localhost:6379`");
        let error = connect("bigtable").unwrap_err();
        assert_eq!(
            (error.code(), error.message()),
            (ErrorCode::Unsupported, "online store `bigtable` is not built yet")
        );
        let error = connect("sqlit").unwrap_err();
        assert_eq!(error.code(), ErrorCode::UnknownOnlineStore);
        assert_eq!(error.hint(), Some("did you mean `sqlite`?"));
    }
}
