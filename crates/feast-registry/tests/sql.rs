//! The SQL registry on real servers: the promises of every registry, and what is special to SQL.

#![allow(clippy::unwrap_used, reason = "tests")]

mod records;

use std::path::Path;
use std::sync::Arc;

use feast_core::{
    Entity, ErrorCode, ObjectKind, ObjectRef, RegistryChange, RegistryChanges, RegistryObject, RegistrySnapshot,
    RegistryStore, Result, ValueType,
};
use feast_registry::{RegistryHandle, RegistrySettings};
use feast_testing::registry_suite::RegistryUnderTest;
use feast_testing::services::mysql::{self, MysqlServer};
use feast_testing::services::postgres::{self, PostgresServer};
use serde_json::{Map, Value, json};

fn open_with(path: &str, options: &Value) -> Result<Arc<dyn RegistryStore>> {
    let options = options.as_object().cloned().unwrap_or_default();
    let settings = RegistrySettings { path, options: &options, repo_path: Path::new("/"), author: "ada@example" };
    feast_registry::connect("sql", &settings)
}

fn open(path: &str) -> Arc<dyn RegistryStore> {
    open_with(path, &Value::Object(Map::new())).unwrap()
}

/// A database, and how to run statements in it apart from the code under test.
struct Database {
    url: String,
    execute: Box<dyn Fn(&str) -> String>,
    _guard: Option<tempfile::TempDir>,
}

impl Database {
    /// Bytes as they stand in a statement.
    fn literal(&self, bytes: &[u8]) -> String {
        let digits = hexadecimal(bytes);
        if self.url.starts_with("postgres") { format!("'\\x{digits}'") } else { format!("X'{digits}'") }
    }
}

fn sqlite_database() -> Database {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data/registry.db");
    let url = format!("sqlite:///{}", path.display());
    let execute = move |statements: &str| {
        rusqlite::Connection::open(&path).unwrap().execute_batch(statements).unwrap();
        String::new()
    };
    Database { url, execute: Box::new(execute), _guard: Some(folder) }
}

fn postgres_database() -> Database {
    let server = PostgresServer::shared();
    let name = server.create_database();
    let url = server.url(&name).replace("postgresql://", "postgresql+psycopg://");
    Database { url, execute: Box::new(move |statements| server.execute(&name, statements)), _guard: None }
}

fn mysql_database() -> Database {
    let server = MysqlServer::shared();
    let name = server.create_database();
    let url = server.url(&name).replace("mysql://", "mysql+pymysql://");
    Database { url, execute: Box::new(move |statements| server.execute(&name, statements)), _guard: None }
}

fn changes(changes: Vec<RegistryChange>) -> RegistryChanges {
    RegistryChanges::new("rides", changes)
}

fn entity(name: &str, description: &str) -> RegistryChange {
    let entity = Entity { description: description.to_owned(), ..Entity::new(name, name, ValueType::Int64) };
    RegistryChange::Put(RegistryObject::Entity(entity.into()))
}

/// All objects of a snapshot, for comparison.
fn told(snapshot: &RegistrySnapshot) -> Vec<String> {
    let objects = snapshot.projects.values().flat_map(|contents| contents.objects());
    objects.map(|object| format!("{object:?}")).collect()
}

async fn commit(store: &Arc<dyn RegistryStore>, change: Vec<RegistryChange>) {
    let base = store.version().await.unwrap();
    store.commit(base.as_ref(), &changes(change)).await.unwrap();
}

/// A reader that refreshes has what a new reader has, whatever happened in between.
async fn a_refresh_equals_a_first_read(database: Database) {
    let (reader, writer) = (open(&database.url), open(&database.url));
    for round in 0..4 {
        let mut change: Vec<RegistryChange> = (0..40)
            .map(|number| entity(&format!("e{}", number * (round + 1) % 50), &format!("round {round}")))
            .collect();
        change.push(RegistryChange::Delete(ObjectRef::new(ObjectKind::Entity, format!("e{round}"))));
        if round == 2 {
            change.push(RegistryChange::Delete(ObjectRef::new(ObjectKind::Project, "other")));
        }
        commit(&writer, change).await;
        let base = writer.version().await.unwrap();
        let other = RegistryChanges::new("other", vec![entity("e", "of another project")]);
        writer.commit(base.as_ref(), &other).await.unwrap();
        let refreshed = reader.load().await.unwrap();
        let first = open(&database.url).load().await.unwrap();
        assert_eq!(told(&refreshed), told(&first));
        assert_eq!(refreshed.version, first.version);
        assert_eq!(told(&writer.load().await.unwrap()), told(&first));
    }
}

/// A Feast client knows no versions and no lock: a row that it changed, even within the same second and to the same
/// length, is not overwritten by somebody who has not seen the change.
async fn what_a_client_without_versions_changed_survives(database: Database) {
    let store = open(&database.url);
    commit(&store, vec![entity("driver", "ours"), entity("city", "")]).await;
    let base = store.load().await.unwrap();
    // The description of the entity, one letter of it.
    let message = feast_proto::encode_object(
        &base.projects["rides"].get(&ObjectRef::new(ObjectKind::Entity, "driver")).unwrap(),
        "rides",
    );
    let literal = database.literal(&message).replace(&hexadecimal(b"ours"), &hexadecimal(b"hers"));
    (database.execute)(&format!("UPDATE entities SET entity_proto = {literal} WHERE entity_name = 'driver'"));
    let stale = store.commit(base.version.as_ref(), &changes(vec![entity("driver", "mine")])).await.unwrap_err();
    assert_eq!(stale.code(), ErrorCode::Conflict);
    assert!(stale.message().contains("entity `driver`"), "{stale}");
    let description = |snapshot: &RegistrySnapshot| snapshot.projects["rides"].entities["driver"].description.clone();
    let now = store.load().await.unwrap();
    assert_eq!(description(&now), "hers");
    // Other objects can be changed all the while.
    commit(&store, vec![entity("city", "new")]).await;
    assert_eq!(description(&open(&database.url).load().await.unwrap()), "hers");
    // And a client that appears with a new row makes a new version.
    let before = store.version().await.unwrap();
    (database.execute)(
        "INSERT INTO entities (entity_name, project_id, last_updated_timestamp, entity_proto) \
         SELECT 'hers', project_id, last_updated_timestamp, entity_proto FROM entities WHERE entity_name = 'city'",
    );
    assert_ne!(store.version().await.unwrap(), before);
}

/// Rows are found by their times; those that a clock has written which is behind are found all the same, as are those that
/// are gone.
async fn a_refresh_finds_old_rows_and_gone_ones(database: Database) {
    let (reader, writer) = (open(&database.url), open(&database.url));
    let names = async || {
        let snapshot = reader.load().await.unwrap();
        assert_eq!(told(&snapshot), told(&open(&database.url).load().await.unwrap()));
        snapshot.projects["rides"].entities.keys().cloned().collect::<Vec<String>>()
    };
    commit(&writer, vec![entity("driver", ""), entity("city", "")]).await;
    assert_eq!(names().await, ["city", "driver"]);
    let late = RegistryObject::Entity(Entity::new("late", "late", ValueType::Int64).into());
    let literal = database.literal(&feast_proto::encode_object(&late, "rides"));
    (database.execute)(&format!(
        "INSERT INTO entities (entity_name, project_id, last_updated_timestamp, entity_proto) \
         VALUES ('late', 'rides', 5, {literal})"
    ));
    assert_eq!(names().await, ["city", "driver", "late"]);
    (database.execute)("DELETE FROM entities WHERE entity_name = 'city'");
    assert_eq!(names().await, ["driver", "late"]);
    commit(&writer, vec![entity("zone", ""), entity("late", "changed")]).await;
    assert_eq!(names().await, ["driver", "late", "zone"]);
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

async fn records_at_the_same_time_lose_nothing(database: Database) {
    records::lose_nothing(|| open(&database.url)).await;
}

/// A row that somebody damaged is named; it is never taken as nothing.
#[tokio::test]
async fn hostile_rows_are_read_or_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("registry.db");
    let url = format!("sqlite:///{}", path.display());
    let store = open(&url);
    commit(&store, vec![entity("driver", "of a car")]).await;
    let database = rusqlite::Connection::open(&path).unwrap();
    let whole: Vec<u8> = database.query_row("SELECT entity_proto FROM entities", [], |row| row.get(0)).unwrap();
    let cut = (1..whole.len()).map(|length| whole[..length].to_vec());
    let tipped = (0..whole.len() * 8).map(|bit| {
        let mut bytes = whole.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        bytes
    });
    let foreign = [b"\xff".repeat(40), b"\x33".repeat(5_000), b"\x0a\xff\xff\xff\xff\x0f".to_vec(), b"{}".to_vec()];
    let mut refused = 0;
    for bytes in cut.chain(tipped).chain(foreign) {
        database.execute("UPDATE entities SET entity_proto = ?1", [&bytes]).unwrap();
        match open(&url).load().await {
            Ok(snapshot) => assert_eq!(snapshot.projects["rides"].entities.len(), 1),
            Err(error) => {
                assert_eq!(error.code(), ErrorCode::CorruptRegistry, "{error}");
                assert!(error.to_string().contains("`driver`"), "{error}");
                refused += 1;
            }
        }
    }
    assert!(refused > 100, "{refused}");
    database.execute("UPDATE entities SET entity_proto = ?1", [&whole]).unwrap();
    assert_eq!(store.load().await.unwrap().projects["rides"].entities.len(), 1);
}

/// Who creates tables is a setting, and so is the metadata that Feast keeps beside objects.
async fn schema_modes_and_metadata(database: Database) {
    let verifying = open_with(&database.url, &json!({"schema_mode": "verify"})).unwrap();
    let missing = verifying.load().await.unwrap_err();
    assert_eq!(missing.code(), ErrorCode::InvalidConfiguration);
    assert!(missing.message().contains("`entities`"), "{missing}");
    let purging = open_with(&database.url, &json!({"purge_feast_metadata": true})).unwrap();
    commit(&purging, vec![entity("driver", "")]).await;
    let rows = (database.execute)("SELECT count(*) FROM feast_metadata");
    assert!(rows.is_empty() || rows == "0", "{rows}");
    commit(&verifying, vec![entity("city", "")]).await;
    let rows = (database.execute)("SELECT metadata_key FROM feast_metadata ORDER BY metadata_key");
    assert!(
        rows.is_empty() || rows == "last_updated_timestamp" || rows == "last_updated_timestamp\nproject_uuid",
        "{rows}"
    );
}

/// Messages longer than the columns of other tools (65,535 bytes in MySQL's `BLOB`) come back whole.
async fn long_messages_survive(database: Database) {
    let text = "x".repeat(100_000);
    commit(&open(&database.url), vec![entity("driver", &text)]).await;
    let snapshot = open(&database.url).load().await.unwrap();
    assert_eq!(snapshot.projects["rides"].entities["driver"].description, text);
}

macro_rules! on {
    ($module:ident: $database:path) => {
        mod $module {
            use super::*;

            async fn start() -> RegistryUnderTest {
                let Database { url, _guard: guard, .. } = $database();
                RegistryUnderTest { open: Box::new(move || open(&url)), guard: Box::new(guard) }
            }

            feast_testing::registry_store_conformance!(start);

            on!(@each $database: a_refresh_equals_a_first_read a_refresh_finds_old_rows_and_gone_ones
                what_a_client_without_versions_changed_survives records_at_the_same_time_lose_nothing
                schema_modes_and_metadata long_messages_survive);
        }
    };
    (@each $database:path: $($name:ident)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
            async fn $name() {
                super::$name($database()).await;
            }
        )*
    };
}

on!(on_sqlite: sqlite_database);
on!(on_postgres: postgres_database);
on!(on_mysql: mysql_database);

/// Reading needs no more than `SELECT`; writing is refused in one sentence.
async fn a_reader_may_only_read(database: &Database, reader: &str) {
    commit(&open(&database.url), vec![entity("driver", "")]).await;
    let store = open(reader);
    assert_eq!(told(&store.load().await.unwrap()).len(), 1);
    let base = store.version().await.unwrap();
    let refused = store.commit(base.as_ref(), &changes(vec![entity("city", "")])).await.unwrap_err();
    assert_eq!(refused.code(), ErrorCode::ReadOnlyRegistry, "{refused:?}");
}

#[tokio::test]
async fn a_reader_of_postgres_needs_select_only() {
    let database = postgres_database();
    (database.execute)(
        "CREATE ROLE reader LOGIN PASSWORD 'r'; ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO reader",
    );
    let reader = database.url.replace(&format!("{}:{}", postgres::USER, postgres::PASSWORD), "reader:r");
    a_reader_may_only_read(&database, &reader).await;

    // Without the rights that reading needs, nothing looks empty.
    for (taken, what) in [
        ("REVOKE SELECT ON feature_views FROM reader", "may not be read by this user"),
        ("REVOKE USAGE ON SCHEMA public FROM PUBLIC", "its tables are in the schema `public`"),
    ] {
        (database.execute)(taken);
        let error = open(&reader).load().await.unwrap_err();
        assert_eq!(error.code(), ErrorCode::PermissionDenied, "{error:?}");
        assert!(error.to_string().contains(what), "{error}");
    }
}

#[tokio::test]
async fn a_reader_of_mysql_needs_select_only() {
    let database = mysql_database();
    (database.execute)("CREATE USER 'reader'@'%' IDENTIFIED BY 'r'; GRANT SELECT ON *.* TO 'reader'@'%'");
    let reader = database.url.replace(&format!("{}:{}", mysql::USER, mysql::PASSWORD), "reader:r");
    a_reader_may_only_read(&database, &reader).await;
}

/// A replica answers reads, late as it may be; commits go to the primary and are compared with what it has.
#[tokio::test]
async fn reads_go_to_the_replica_and_commits_to_the_primary() {
    let primary = sqlite_database();
    let replica = primary.url.replace("registry.db", "replica.db");
    let file = |url: &str| url.trim_start_matches("sqlite:///").to_owned();
    let replicate = || std::fs::copy(file(&primary.url), file(&replica)).map(drop).unwrap();
    commit(&open(&primary.url), vec![entity("driver", "")]).await;
    replicate();
    let store = open_with(&primary.url, &json!({ "read_path": replica })).unwrap();
    let base = store.load().await.unwrap().version;
    store.commit(base.as_ref(), &changes(vec![entity("city", "")])).await.unwrap();
    let names = |snapshot: &RegistrySnapshot| snapshot.projects["rides"].entities.len();
    assert_eq!(names(&open(&primary.url).load().await.unwrap()), 2);
    assert_eq!(names(&open(&replica).load().await.unwrap()), 1);
    // What the replica has not seen yet cannot be overwritten.
    let behind = open_with(&primary.url, &json!({ "read_path": replica })).unwrap();
    let base = behind.load().await.unwrap().version;
    let stale = behind.commit(base.as_ref(), &changes(vec![entity("city", "mine")])).await.unwrap_err();
    assert_eq!(stale.code(), ErrorCode::Conflict);
    replicate();
    let base = behind.load().await.unwrap().version;
    behind.commit(base.as_ref(), &changes(vec![entity("city", "mine")])).await.unwrap();
}

#[tokio::test]
async fn wrong_accounts_and_databases_are_told_apart_without_secrets() {
    for database in [postgres_database(), mysql_database()] {
        let (head, name) = database.url.rsplit_once('/').unwrap();
        let failure = |url: String| async move {
            let error = open(&url).load().await.unwrap_err();
            (error.code(), format!("{error} {error:?}"))
        };
        let (code, text) = failure(format!("{}/{name}", head.replace(":s3cret", ":hush"))).await;
        assert_eq!(code, ErrorCode::PermissionDenied, "{text}");
        assert!(!text.contains("hush"), "{text}");
        let (code, text) = failure(format!("{head}/nowhere")).await;
        assert_eq!(code, ErrorCode::InvalidConfiguration, "{text}");
        assert!(!text.contains("s3cret"), "{text}");
        let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let (start, _) = head.rsplit_once(':').unwrap();
        let (code, text) = failure(format!("{start}:{nobody}/{name}")).await;
        assert_eq!(code, ErrorCode::Unavailable, "{text}");
        assert!(!text.contains("s3cret"), "{text}");
    }
}

/// Connections are cut in the middle of commits: what was acknowledged is there, and what failed can be repeated.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn lost_connections_lose_no_commit() {
    let database = postgres_database();
    let name = database.url.rsplit_once('/').unwrap().1.to_owned();
    let handle = RegistryHandle::new(open(&database.url), None);
    commit(handle.store(), vec![entity("first", "")]).await;
    // All connections are cut three times during each commit; without an end to it no commit would have to succeed.
    let (begun, commits) = std::sync::mpsc::channel::<()>();
    let cutting = std::thread::spawn(move || {
        let sql = format!("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = '{name}'");
        let cut = || PostgresServer::shared().execute("postgres", &sql).parse::<usize>().unwrap();
        commits.iter().map(|()| cut() + cut() + cut()).sum::<usize>()
    });
    for number in 0..60 {
        begun.send(()).unwrap();
        let name = format!("entity_{number}");
        let mut attempts = 0;
        while let Err(error) = handle.commit_with(|_| Ok(changes(vec![entity(&name, "")]))).await {
            assert_eq!(error.code(), ErrorCode::Unavailable, "{error:?}");
            attempts += 1;
            assert!(attempts < 200, "{error}");
        }
    }
    drop(begun);
    assert!(cutting.join().unwrap() > 0, "nothing was cut");
    assert_eq!(open(&database.url).load().await.unwrap().projects["rides"].entities.len(), 61);
}

#[tokio::test]
async fn a_file_that_was_removed_is_no_registry() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("registry.db");
    let store = open(&format!("sqlite:///{}", path.display()));
    commit(&store, vec![entity("driver", "")]).await;
    assert_eq!(told(&store.load().await.unwrap()).len(), 1);
    std::fs::remove_file(&path).unwrap();
    assert_eq!(store.version().await.unwrap(), None);
    assert!(told(&store.load().await.unwrap()).is_empty());
    assert!(!path.exists(), "reading makes no file");
    commit(&store, vec![entity("city", "")]).await;
    assert_eq!(told(&store.load().await.unwrap()).len(), 1);
}

#[tokio::test]
async fn a_file_that_is_no_database_is_corrupt() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("registry.db");
    std::fs::write(&path, vec![7; 5000]).unwrap();
    let error = open(&format!("sqlite:///{}", path.display())).load().await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::CorruptRegistry);
}
