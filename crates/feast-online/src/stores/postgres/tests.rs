//! The store against a real server.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::array::{
    Array, ArrayRef, AsArray, Int64Array, ListArray, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{Float32Type, Int64Type};
use feast_core::{EntityKeyEncoder, EntityKeys, ErrorCode, Field, ValueType};
use feast_testing::StartedStore;
use feast_testing::services::postgres::{PASSWORD, PostgresServer, USER};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_postgres::NoTls;

use super::config::SecurityMode;
use super::*;
use crate::write::record_batch;

fn options(server: &PostgresServer, database: &str, more: Value) -> Value {
    let mut options = json!({
        "type": "postgres", "host": server.host(), "port": server.port(), "database": database, "user": USER,
        "password": PASSWORD, "sslmode": "disable",
    });
    options.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    options
}

fn store(server: &PostgresServer, database: &str, more: Value) -> PostgresStore {
    PostgresStore::connect(&options(server, database, more)).unwrap()
}

/// An empty schema of the shared server.
fn schema() -> (&'static PostgresServer, Value) {
    static SCHEMAS: AtomicUsize = AtomicUsize::new(0);
    let schema = format!("Schema {}", SCHEMAS.fetch_add(1, Ordering::Relaxed));
    (PostgresServer::shared(), json!({ "db_schema": schema }))
}

async fn start() -> StartedStore {
    let (server, schema) = schema();
    StartedStore::new(Arc::new(store(server, "postgres", schema)))
}

feast_testing::online_store_conformance!(super::start);

fn table(columns: &[(&str, ValueType)]) -> OnlineTable {
    OnlineTable {
        project: "p".to_owned(),
        view: "v".to_owned(),
        join_keys: vec![Field::new("id", ValueType::Int64)],
        columns: columns.iter().map(|(name, value_type)| Field::new(*name, *value_type)).collect(),
        tags: feast_core::Tags::new(),
    }
}

fn keys(ids: &[i64]) -> EntityKeys {
    let encoder = EntityKeyEncoder::new(&[Field::new("id", ValueType::Int64)], 3).unwrap();
    let ids = Arc::new(Int64Array::from(ids.to_vec())) as ArrayRef;
    encoder.encode(RecordBatch::try_from_iter([("id", ids)]).unwrap()).unwrap()
}

/// Writes one row of one entity.
async fn write(store: &PostgresStore, table: &OnlineTable, id: i64, event: i64, row: Vec<ArrayRef>) -> Result<()> {
    let write = OnlineWrite {
        table,
        keys: &keys(&[id]),
        rows: &record_batch(&table.columns, row, 1).unwrap(),
        event_timestamps: &TimestampMicrosecondArray::from(vec![event]),
        created_timestamps: None,
    };
    store.write(write).await
}

fn int(value: i64) -> ArrayRef {
    Arc::new(Int64Array::from(vec![value]))
}

async fn ensure(store: &PostgresStore, table: &OnlineTable) {
    store.update(&[TableChange::Ensure(table.clone())]).await.unwrap();
}

/// Event time and numbers of one entity.
async fn read(store: &PostgresStore, table: &OnlineTable, id: i64) -> Result<(Option<i64>, Vec<Option<i64>>)> {
    let wanted = table.clone().wanted(0..table.columns.len());
    let mut answers = store.read(&[OnlineRead { wanted: &wanted, keys: &keys(&[id]) }]).await?;
    let answer = answers.remove(0);
    let number = |column: &ArrayRef| column.is_valid(0).then(|| column.as_primitive::<Int64Type>().value(0));
    let time = answer.event_timestamps.is_valid(0).then(|| answer.event_timestamps.value(0));
    Ok((time, answer.values.columns().iter().map(number).collect()))
}

#[tokio::test]
async fn tables_are_what_feast_makes() {
    let server = PostgresServer::shared();
    let text = table(&[("a", ValueType::String)]);
    let number = OnlineTable { view: "Number".to_owned(), ..table(&[("a", ValueType::Int64)]) };
    for (with, value_num) in [(false, ""), (true, "value_num DOUBLE PRECISION NULL,")] {
        let (ours, theirs) = (server.create_database(), server.create_database());
        let store = store(server, &ours, json!({"enable_openai_compatible_store": with}));
        store.update(&[TableChange::Ensure(text.clone()), TableChange::Ensure(number.clone())]).await.unwrap();
        for (name, fts) in [("p_v", true), ("p_Number", false)] {
            server.execute(
                &theirs,
                &format!(
                    "CREATE TABLE \"{name}\" (entity_key BYTEA, feature_name TEXT, value BYTEA, value_text TEXT NULL, \
                     {value_num} vector_value BYTEA NULL, event_ts TIMESTAMPTZ, created_ts TIMESTAMPTZ, \
                     PRIMARY KEY(entity_key, feature_name)); CREATE INDEX \"{name}_ek\" ON \"{name}\" (entity_key);"
                ),
            );
            if fts {
                let index = "CREATE INDEX p_v_fts_idx ON p_v USING GIN (to_tsvector('english', value_text))";
                server.execute(&theirs, index);
            }
        }
        let described = |database: &str| {
            server.execute(
                database,
                "SELECT attrelid::regclass, attnum, attname, format_type(atttypid, atttypmod), attnotnull, atthasdef \
                 FROM pg_attribute WHERE attrelid::regclass::text LIKE '%p_%' \
                 AND attrelid IN (SELECT oid FROM pg_class WHERE relnamespace = 'public'::regnamespace) ORDER BY 1, 2; \
                 SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY 1; \
                 SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint WHERE contype = 'p' ORDER BY 1",
            )
        };
        assert_eq!(described(&ours), described(&theirs));
        assert!(described(&ours).contains("p_v_fts_idx"));
    }
}

#[tokio::test]
async fn cells_are_what_feast_writes() {
    let server = PostgresServer::shared();
    let database = server.create_database();
    let store = store(server, &database, json!({"enable_openai_compatible_store": true}));
    let columns = [("t", ValueType::String), ("f", ValueType::Float), ("b", ValueType::Bool), ("n", ValueType::Int64)];
    let table = table(&columns);
    ensure(&store, &table).await;
    let row: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from(vec!["a\0é"])),
        Arc::new(arrow::array::Float32Array::from(vec![0.3])),
        Arc::new(arrow::array::BooleanArray::from(vec![true])),
        Arc::new(Int64Array::from(vec![None])),
    ];
    write(&store, &table, 1001, 1_795_176_000_000_001, row).await.unwrap();
    let found = server.execute(
        &database,
        "SELECT feature_name, value, value_text, value_num, vector_value IS NULL, event_ts AT TIME ZONE 'UTC', \
         created_ts IS NULL FROM p_v WHERE entity_key = \
         '\\x01000000020000000200000069640400000008000000e903000000000000' ORDER BY feature_name",
    );
    let at = "2026-11-20 12:00:00.000001|t";
    assert_eq!(
        found.lines().collect::<Vec<_>>(),
        [
            format!("b|\\x3801|True|1|t|{at}"),
            format!("f|\\x359a99993e|0.30000001192092896|0.30000001192092896|t|{at}"),
            format!("n|\\x|||t|{at}"),
            format!("t|\\x12046100c3a9|aé||t|{at}"),
        ]
    );
}

#[tokio::test]
async fn tables_of_old_versions_are_written_and_brought_up_to_date() {
    let server = PostgresServer::shared();
    let database = server.create_database();
    server.execute(
        &database,
        "CREATE TABLE p_v (entity_key BYTEA, feature_name TEXT, value BYTEA, event_ts TIMESTAMPTZ, \
         created_ts TIMESTAMPTZ, PRIMARY KEY(entity_key, feature_name))",
    );
    let store = store(server, &database, json!({"enable_openai_compatible_store": true}));
    let table = table(&[("a", ValueType::Int64)]);
    write(&store, &table, 1, 1, vec![int(5)]).await.unwrap();
    assert_eq!(read(&store, &table, 1).await.unwrap(), (Some(1), vec![Some(5)]));
    let missing = ["value_text", "vector_value", "value_num"].map(str::to_owned).to_vec();
    let listed = StoredTable { name: "p_v".to_owned(), missing_columns: missing };
    assert_eq!(store.stored_tables("p").await.unwrap(), Some(vec![listed.clone()]));
    assert_eq!(store.stored_tables("q").await.unwrap(), Some(vec![]));
    ensure(&store, &table).await;
    let listed = StoredTable { missing_columns: vec![], ..listed };
    assert_eq!(store.stored_tables("p").await.unwrap(), Some(vec![listed]));
    write(&store, &table, 1, 1, vec![int(6)]).await.unwrap();
    assert_eq!(server.execute(&database, "SELECT value_text, value_num, vector_value FROM p_v"), "6|6|");
    // Somebody else takes a column away.
    server.execute(&database, "ALTER TABLE p_v DROP COLUMN value_num");
    write(&store, &table, 1, 1, vec![int(7)]).await.unwrap();
    assert_eq!(read(&store, &table, 1).await.unwrap(), (Some(1), vec![Some(7)]));
}

#[tokio::test]
async fn vectors_are_written_as_pgvector_reads_them() {
    let server = PostgresServer::shared();
    let database = server.create_database();
    let table = table(&[("f", ValueType::FloatList), ("i", ValueType::Int64List), ("n", ValueType::Int64)]);
    let without = store(server, &database, json!({"vector_enabled": true}));
    let error = without.update(&[TableChange::Ensure(table.clone())]).await.unwrap_err();
    assert!(error.hint().unwrap().contains("CREATE EXTENSION vector"), "{error:?}");
    // Debian has no pgvector for each release: a type that shows the text it is given.
    server.execute(&database, "CREATE DOMAIN vector AS text");
    let store = store(server, &database, json!({"vector_enabled": true}));
    ensure(&store, &table).await;
    let floats = ListArray::from_iter_primitive::<Float32Type, _, _>([Some([Some(1.0), Some(0.5)])]);
    let integers = ListArray::from_iter_primitive::<Int64Type, _, _>([Some([Some(1), Some(-2)])]);
    write(&store, &table, 1, 1, vec![Arc::new(floats), Arc::new(integers), int(7)]).await.unwrap();
    let found = server.execute(&database, "SELECT feature_name, vector_value FROM p_v ORDER BY 1");
    assert_eq!(found, "f|[1.0, 0.5]\ni|[1, -2]\nn|");
}

#[tokio::test]
async fn all_features_of_a_row_decide_together() {
    let (server, schema) = schema();
    let store = store(server, "postgres", schema);
    let (narrow, wide) =
        (table(&[("a", ValueType::Int64)]), table(&[("a", ValueType::Int64), ("b", ValueType::Int64)]));
    ensure(&store, &narrow).await;
    write(&store, &narrow, 1, 10, vec![int(1)]).await.unwrap();
    // An older row must not give a value to the feature that is new.
    write(&store, &wide, 1, 9, vec![int(2), int(2)]).await.unwrap();
    assert_eq!(read(&store, &wide, 1).await.unwrap(), (Some(10), vec![Some(1), None]));
    write(&store, &wide, 1, 10, vec![int(3), int(3)]).await.unwrap();
    assert_eq!(read(&store, &wide, 1).await.unwrap(), (Some(10), vec![Some(3), Some(3)]));
}

#[tokio::test]
async fn more_features_than_a_statement_holds_are_one_row() {
    let (server, schema) = schema();
    let store = store(server, "postgres", schema);
    let names: Vec<String> = (0..2 * MOST_STATEMENT_FEATURES + 1).map(|n| format!("f{n}")).collect();
    let table = table(&names.iter().map(|name| (name.as_str(), ValueType::Int64)).collect::<Vec<_>>());
    ensure(&store, &table).await;
    let row = |value: i64| (0..names.len()).map(|_| int(value)).collect::<Vec<_>>();
    write(&store, &table, 1, 2, row(2)).await.unwrap();
    write(&store, &table, 1, 1, row(1)).await.unwrap();
    assert_eq!(read(&store, &table, 1).await.unwrap(), (Some(2), vec![Some(2); names.len()]));
    write(&store, &table, 1, 2, row(3)).await.unwrap();
    assert_eq!(read(&store, &table, 1).await.unwrap(), (Some(2), vec![Some(3); names.len()]));
}

/// Writers that share nothing but the server, as processes do, write equally old and older rows of the same few
/// entities; whoever reads meanwhile sees each row whole and never going back in time.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn rows_are_never_torn() {
    let (server, schema) = schema();
    let names: Vec<String> = (0..8).map(|n| format!("f{n}")).collect();
    let table = table(&names.iter().map(|name| (name.as_str(), ValueType::Int64)).collect::<Vec<_>>());
    ensure(&store(server, "postgres", schema.clone()), &table).await;
    let writer = |number: i64| {
        let (store, table) = (store(server, "postgres", schema.clone()), table.clone());
        async move {
            for round in 0..40 {
                // Half of the events are shared by all writers, so that ties are frequent.
                let event = round / 2 * 2;
                let ids: Vec<i64> = if number % 2 == 0 { vec![1, 2, 3] } else { vec![3, 1] };
                let value = Arc::new(Int64Array::from(vec![round * 10 + number; ids.len()])) as ArrayRef;
                let columns = (0..table.columns.len()).map(|_| Arc::clone(&value)).collect();
                let write = OnlineWrite {
                    table: &table,
                    keys: &keys(&ids),
                    rows: &record_batch(&table.columns, columns, ids.len()).unwrap(),
                    event_timestamps: &TimestampMicrosecondArray::from(vec![event; ids.len()]),
                    created_timestamps: None,
                };
                store.write(write).await.unwrap();
            }
        }
    };
    let writers: Vec<_> = (0..6).map(|number| tokio::spawn(writer(number))).collect();
    let reader = store(server, "postgres", schema.clone());
    let mut newest = None;
    let mut seen = 0;
    while seen < 20 || !writers.iter().all(JoinHandle::is_finished) {
        let (time, values) = read(&reader, &table, 1).await.unwrap();
        assert!(values.windows(2).all(|pair| pair[0] == pair[1]), "torn: {values:?}");
        assert!(time >= newest, "{time:?} after {newest:?}");
        assert!(values[0].is_none_or(|value| time == Some(value / 10 / 2 * 2)), "{time:?} with {values:?}");
        newest = time;
        seen += 1;
    }
    for writer in writers {
        writer.await.unwrap();
    }
    assert_eq!(read(&reader, &table, 1).await.unwrap().0, Some(38));
}

#[tokio::test]
async fn tables_may_be_made_by_many_at_once() {
    let (server, schema) = schema();
    let table = table(&[("a", ValueType::String)]);
    let update = || async {
        let store = store(server, "postgres", schema.clone());
        for _ in 0..3 {
            store.update(&[TableChange::Ensure(table.clone())]).await.unwrap();
            store.update(&[TableChange::Drop(table.clone()), TableChange::Ensure(table.clone())]).await.unwrap();
        }
    };
    futures::future::join_all((0..6).map(|_| update())).await;
    write(&store(server, "postgres", schema.clone()), &table, 1, 1, vec![Arc::new(StringArray::from(vec!["a"]))])
        .await
        .unwrap();
}

#[tokio::test]
async fn a_cancelled_call_returns_its_place_in_the_pool() {
    let (server, schema) = schema();
    let mut only_one = schema.clone();
    only_one["max_conn"] = json!(1);
    let store = store(server, "postgres", only_one);
    let table = table(&[("a", ValueType::Int64)]);
    ensure(&store, &table).await;
    write(&store, &table, 1, 1, vec![int(5)]).await.unwrap();
    let mut other = tokio_postgres::Config::new();
    other.host(server.host()).port(server.port()).user(USER).password(PASSWORD).dbname("postgres");
    let (mut other, connection) = other.connect(NoTls).await.unwrap();
    tokio::spawn(connection);
    let lock = other.transaction().await.unwrap();
    let name = format!("\"{}\".\"p_v\"", schema["db_schema"].as_str().unwrap());
    lock.batch_execute(&format!("LOCK TABLE {name} IN ACCESS EXCLUSIVE MODE")).await.unwrap();
    for _ in 0..3 {
        let read = tokio::time::timeout(Duration::from_millis(100), read(&store, &table, 1)).await;
        assert!(read.is_err(), "the table is locked");
    }
    lock.rollback().await.unwrap();
    assert_eq!(read(&store, &table, 1).await.unwrap(), (Some(1), vec![Some(5)]));
}

#[tokio::test]
async fn a_restarted_server_is_found_again() {
    let server = PostgresServer::start();
    let store = store(&server, "postgres", json!({"min_conn": 3}));
    let table = table(&[("a", ValueType::Int64)]);
    ensure(&store, &table).await;
    for number in 0..3 {
        write(&store, &table, 1, number, vec![int(number)]).await.unwrap();
        let reads = futures::future::join_all((0..4).map(|_| read(&store, &table, 1))).await;
        assert!(reads.into_iter().all(|read| read.unwrap() == (Some(number), vec![Some(number)])));
        server.restart();
    }
    assert_eq!(read(&store, &table, 1).await.unwrap(), (Some(2), vec![Some(2)]));
    store.check().await.unwrap();
    let dropped = server.execute(
        "postgres",
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
                                              WHERE application_name = 'feast'",
    );
    assert_ne!(dropped, "0");
    write(&store, &table, 1, 3, vec![int(3)]).await.unwrap();
    drop(server);
    let error = store.check().await.unwrap_err();
    assert_eq!(
        (error.code(), error.hint()),
        (ErrorCode::Unavailable, Some("check `host` and `port`, and that the server runs"))
    );
}

#[tokio::test]
async fn what_is_wrong_is_said_without_the_password() {
    let server = PostgresServer::shared();
    let table = table(&[("a", ValueType::Int64)]);
    let error_with = |more: Value| {
        let (store, table) = (store(server, "postgres", more), table.clone());
        async move {
            let error = read(&store, &table, 1).await.unwrap_err();
            let shown = format!("{store:?} {store} {error:?}");
            assert!(!shown.contains(PASSWORD) && !shown.contains("s3cret"), "{shown}");
            error
        }
    };
    let error = error_with(json!({"password": "s3cret"})).await;
    assert_eq!(error.code(), ErrorCode::PermissionDenied, "{error:?}");
    assert!(error.to_string().ends_with("password authentication failed for user \"postgres\""), "{error}");
    let error = error_with(json!({"database": "nowhere"})).await;
    assert!(error.hint().unwrap().starts_with("create the database"), "{error:?}");
    let error = error_with(json!({"sslmode": "require"})).await;
    assert!(error.hint().unwrap().contains("`sslmode: disable`"), "{error:?}");
    let error = error_with(json!({"db_schema": "nowhere"})).await;
    assert_eq!(error.code(), ErrorCode::FeatureViewNotFound);
    let error = error_with(json!({"port": 1})).await;
    assert_eq!(error.code(), ErrorCode::Unavailable);
}

#[tokio::test]
async fn tls_is_as_strict_as_the_configuration_says() {
    let server = PostgresServer::start();
    let folder = server.socket_folder().display().to_string();
    let sh = |command: &str| {
        // The program reads the one row before it starts.
        let command = format!("cat >/dev/null; cd {folder} && {command}").replace('\'', "''");
        server.execute("postgres", &format!("COPY (SELECT 1) TO PROGRAM '{command}'"))
    };
    sh("openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=authority -keyout ca.key -out ca.crt");
    for (name, alternative) in [("server", "DNS:localhost"), ("client", "DNS:client")] {
        sh(&format!("echo subjectAltName={alternative} > {name}.ext"));
        sh(&format!("openssl req -newkey rsa:2048 -nodes -subj /CN={USER} -keyout {name}.key -out {name}.csr"));
        sh(&format!(
            "openssl x509 -req -in {name}.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile {name}.ext \
             -out {name}.crt && chmod 600 {name}.key"
        ));
    }
    sh("openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=other -keyout other.key -out other.crt");
    for (name, value) in [("ssl_cert_file", "server.crt"), ("ssl_key_file", "server.key"), ("ssl_ca_file", "ca.crt")] {
        server.execute("postgres", &format!("ALTER SYSTEM SET {name} = '{folder}/{value}'"));
    }
    server.execute("postgres", "ALTER SYSTEM SET ssl = on");
    server.restart();
    let check = |host: &str, sslmode: &str, root: Option<&str>| {
        let root = root.map(|root| format!("{folder}/{root}"));
        let more = json!({"host": host, "sslmode": sslmode, "sslrootcert_path": root});
        let store = store(&server, "postgres", more);
        async move { store.check().await }
    };
    for mode in ["disable", "allow", "prefer", "require"] {
        check("127.0.0.1", mode, None).await.unwrap();
    }
    check("127.0.0.1", "require", Some("ca.crt")).await.unwrap();
    check("127.0.0.1", "verify-ca", Some("ca.crt")).await.unwrap();
    check("localhost", "verify-full", Some("ca.crt")).await.unwrap();
    check("localhost", "verify-full", Some("server.crt")).await.unwrap();
    let refused = [
        ("127.0.0.1", "verify-full", Some("ca.crt")),
        ("127.0.0.1", "verify-full", Some("server.crt")),
        ("localhost", "verify-ca", Some("other.crt")),
        ("localhost", "require", Some("other.crt")),
        ("localhost", "verify-full", None),
        ("localhost", "verify-full", Some("nowhere.crt")),
    ];
    for (host, mode, root) in refused {
        let error = check(host, mode, root).await.expect_err(mode);
        assert!(error.hint().unwrap().contains("`sslmode`"), "{error:?}");
    }
    // Only encrypted connections, and only of clients with a certificate.
    sh("echo 'hostssl all all all cert' > data/pg_hba.conf && echo 'local all all trust' >> data/pg_hba.conf");
    server.execute("postgres", "SELECT pg_reload_conf()");
    check("localhost", "disable", None).await.unwrap_err();
    check("localhost", "require", None).await.unwrap_err();
    for mode in ["allow", "verify-full"] {
        let more = json!({
            "host": "localhost", "sslmode": mode, "sslrootcert_path": format!("{folder}/ca.crt"),
            "sslcert_path": format!("{folder}/client.crt"), "sslkey_path": format!("{folder}/client.key"),
        });
        store(&server, "postgres", more).check().await.unwrap();
    }
    // A socket is as it is in PostgreSQL's own library: without TLS.
    store(&server, "postgres", json!({"host": folder, "sslmode": "require"})).check().await.unwrap();
}

#[test]
fn options_are_those_of_feast() {
    let given = |more: Value| {
        let mut options = json!({"host": "h", "database": "d", "user": "u", "password": "p"});
        options.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        PostgresConfig::parse(&options)
    };
    let config = given(json!({"type": "postgres", "port": "5433", "db_schema": "", "keepalives_idle": null})).unwrap();
    assert_eq!((config.port, config.schema(), config.sslmode), (5433, "u", SecurityMode::Require));
    assert_eq!(config.n_connections(), 10);
    assert_eq!(given(json!({"conn_type": "singleton", "max_conn": 5})).unwrap().n_connections(), 1);
    assert_eq!(given(json!({"conn_type": "pool", "max_conn": 5})).unwrap().n_connections(), 5);
    let error = given(json!({"hots": "h"})).unwrap_err();
    assert_eq!(error.message(), "`online_store.hots` is not a key of online store `postgres`");
    let hint = error.hint().unwrap();
    assert!(hint.starts_with("did you mean `host`?") && hint.contains("`max_batched_result_rows`"), "{hint}");
    let error = PostgresConfig::parse(&json!({"host": "h", "user": "u"})).unwrap_err();
    assert_eq!(error.message(), "online store `postgres` lacks `database` and `password`");
    let error = given(json!({"password": 12345})).unwrap_err();
    assert_eq!(error.message(), "`online_store.password` is wrong, found a number");
    assert_eq!(error.hint(), Some("put it in quotes"));
    let error = given(json!({"sslmode": "verify"})).unwrap_err();
    assert!(error.hint().unwrap().contains("`verify-full`"), "{error:?}");
    assert!(given(json!({"max_conn": 0})).is_err());
    assert!(given(json!({"sslkey_path": "k"})).is_err());
}

#[test]
fn views_with_one_table_are_refused() {
    let named = |view: String| TableChange::Ensure(OnlineTable { view, ..table(&[]) });
    let long = "é".repeat(30);
    refuse_shared_tables(&[named(format!("a{long}b")), named(format!("b{long}"))]).unwrap();
    let error = refuse_shared_tables(&[named(format!("{long}ab")), named(format!("{long}ac"))]).unwrap_err();
    assert!(error.message().contains("would be one"), "{error:?}");
}
