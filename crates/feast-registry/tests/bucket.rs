//! The registry in a bucket: the promises of every registry, and what is special to buckets; on S3 as moto serves it,
//! and on the calls of Google Cloud Storage's XML interface.
//!
//! Runs without the test harness: the program starts itself again with credentials and endpoints in the environment,
//! from which the clients of the clouds take them. Arguments are parts of names of tests.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

mod records;

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use feast_core::{
    Entity, Error, ErrorCode, ObjectKind, RegistryChange, RegistryChanges, RegistryObject, RegistryStore, ValueType,
};
use feast_registry::RegistrySettings;
use feast_testing::registry_suite::RegistryUnderTest;
use feast_testing::services::google::GoogleServer;
use feast_testing::services::s3::S3Server;
use object_store::ObjectStoreExt;
use object_store::aws::AmazonS3Builder;
use serde_json::{Value, json};

const FEAST_REGISTRY: &[u8] = include_bytes!("../../../tests/formats/registry/feast-0.67.0.pb");
const KEY_ID: &str = "AKIAOFTHETESTS";
const SECRET: &str = "s3cret-of-the-bucket";

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|argument| argument == "--with-credentials") {
        return run(arguments[1].parse().unwrap(), &arguments[2..]);
    }
    if arguments.first().is_some_and(|argument| argument == "--with-profile") {
        return with_profile();
    }
    let server = S3Server::start();
    let google = GoogleServer::start();
    server.create_bucket("registries");
    let port = server.endpoint().rsplit_once(':').unwrap().1.to_owned();
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["--with-credentials", &port])
        .args(arguments.iter().filter(|argument| !argument.starts_with('-')))
        .envs([("AWS_ACCESS_KEY_ID", KEY_ID), ("AWS_SECRET_ACCESS_KEY", SECRET), ("AWS_REGION", "eu-north-1")])
        // Feast's own variable comes first.
        .envs([("AWS_ENDPOINT_URL", "http://127.0.0.1:1"), ("FEAST_S3_ENDPOINT_URL", &server.endpoint())])
        .env("STORAGE_EMULATOR_HOST", google.endpoint())
        .status()
        .unwrap();
    assert!(status.success());
    if arguments.iter().all(|argument| argument.starts_with('-') || "a_profile".contains(argument.as_str())) {
        profiles_have_the_keys();
    }
}

/// Without keys in the environment, those of the chosen profile sign, in its region.
fn profiles_have_the_keys() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: String| {
        std::fs::write(folder.path().join(name), text).unwrap();
        folder.path().join(name)
    };
    let keys = format!("[rides]\naws_access_key_id = {KEY_ID}\naws_secret_access_key = {SECRET}\n");
    let mut program = Command::new(std::env::current_exe().unwrap())
        .args(["--with-profile"])
        .env_clear()
        .env("FEAST_S3_ENDPOINT_URL", endpoint)
        .env("AWS_PROFILE", "rides")
        .env("AWS_SHARED_CREDENTIALS_FILE", write("credentials", keys))
        .env("AWS_CONFIG_FILE", write("config", "[profile rides]\nregion = eu-south-1\n".to_owned()))
        .spawn()
        .unwrap();
    let (mut client, _) = listener.accept().unwrap();
    let mut asked = String::new();
    let mut lines = std::io::BufReader::new(client.try_clone().unwrap());
    while !asked.ends_with("\r\n\r\n") {
        assert!(std::io::BufRead::read_line(&mut lines, &mut asked).unwrap() > 0, "{asked}");
    }
    std::io::Write::write_all(&mut client, b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n").unwrap();
    assert!(program.wait().unwrap().success());
    assert!(asked.contains(&format!("Credential={KEY_ID}/")) && asked.contains("/eu-south-1/s3/"), "{asked}");
    println!("test profiles_have_the_keys ... ok");
}

fn with_profile() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let snapshot = runtime.block_on(open("s3://registries/registry.db").load()).unwrap();
    assert!(snapshot.projects.is_empty());
}

fn run(port: u16, wanted: &[String]) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build().unwrap();
    let test = |name: &str, test: &dyn Fn()| {
        if wanted.is_empty() || wanted.iter().any(|wanted| name.contains(wanted)) {
            let started = Instant::now();
            test();
            println!("test {name} ... ok ({} ms)", started.elapsed().as_millis());
        }
    };
    for (name, promise) in feast_testing::registry_store_conformance!(list || new("s3")) {
        test(&format!("s3::{name}"), &|| promise(&runtime));
    }
    for (name, promise) in feast_testing::registry_store_conformance!(list || new("gs")) {
        test(&format!("gs::{name}"), &|| promise(&runtime));
    }
    for scheme in ["s3", "gs"] {
        let url = fresh(scheme, "records");
        test(&format!("{scheme}::records_at_the_same_time_lose_nothing"), &|| {
            runtime.block_on(records::lose_nothing(|| open(&url)));
        });
    }
    test("feasts_object_is_read_and_committed_to", &|| {
        runtime.block_on(feasts_object_is_read_and_committed_to(port));
    });
    test("a_lost_answer_is_no_lost_commit", &|| runtime.block_on(a_lost_answer_is_no_lost_commit()));
    test("numbers_of_commits_are_not_given_twice", &|| runtime.block_on(numbers_of_commits_are_not_given_twice()));
    test("reading_needs_no_right_to_write", &|| runtime.block_on(reading_needs_no_right_to_write()));
    test("what_is_no_registry_is_no_empty_registry", &|| {
        runtime.block_on(what_is_no_registry_is_no_empty_registry(port));
    });
    test("failures_tell_no_secrets", &|| runtime.block_on(failures_tell_no_secrets()));
}

/// The URL of an object that does not exist.
fn fresh(scheme: &str, name: &str) -> String {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    format!("{scheme}://registries/{name}/{}/registry.db", COUNT.fetch_add(1, Ordering::Relaxed))
}

fn open_with(path: &str, options: &Value) -> Result<Arc<dyn RegistryStore>, Error> {
    let options = options.as_object().unwrap();
    let settings = RegistrySettings { path, options, repo_path: Path::new("/"), author: "ada@example" };
    feast_registry::connect("file", &settings)
}

fn open(path: &str) -> Arc<dyn RegistryStore> {
    open_with(path, &json!({})).unwrap()
}

async fn new(scheme: &str) -> RegistryUnderTest {
    let url = fresh(scheme, "promises");
    RegistryUnderTest { open: Box::new(move || open(&url)), guard: Box::new(()) }
}

fn put(name: &str) -> RegistryChanges {
    let entity = Entity::new(name, name, ValueType::Int64);
    RegistryChanges::new("rides", vec![RegistryChange::Put(RegistryObject::Entity(entity.into()))])
}

/// Writes an object as another program would.
async fn upload(port: u16, key: &str, bytes: &[u8]) {
    let client = AmazonS3Builder::from_env().with_bucket_name("registries").with_allow_http(true);
    let client = client.with_endpoint(format!("http://127.0.0.1:{port}")).build().unwrap();
    client.put(&key.into(), bytes.to_vec().into()).await.unwrap();
}

/// A client of Feast knows neither conditions nor numbers.
async fn feasts_object_is_read_and_committed_to(port: u16) {
    let kwargs = json!({"s3_additional_kwargs": {"StorageClass": "STANDARD", "Metadata": {"team": "rides"}}});
    let registry = open_with("s3://registries/feast.db", &kwargs).unwrap();
    upload(port, "feast.db", FEAST_REGISTRY).await;
    let before = registry.load().await.unwrap();
    let version = registry.commit(before.version.as_ref(), &put("new")).await.unwrap();
    let after = open("s3://registries/feast.db").load().await.unwrap();
    assert_eq!(after.version.as_ref(), Some(&version));
    for kind in ObjectKind::ALL {
        let list = |snapshot: &feast_core::RegistrySnapshot| snapshot.projects["rides"].list(*kind);
        let added = usize::from(*kind == ObjectKind::Entity);
        assert_eq!(list(&after).len(), list(&before).len() + added, "{kind}");
        assert_eq!(list(&after)[..list(&before).len()], list(&before));
    }
    // What it overwrites is noticed, and the history goes on.
    upload(port, "feast.db", FEAST_REGISTRY).await;
    let stale = registry.commit(Some(&version), &put("lost")).await.unwrap_err();
    assert_eq!(stale.code(), ErrorCode::Conflict);
    registry.commit(before.version.as_ref(), &put("newer")).await.unwrap();
    let commits = registry.history().unwrap().commits("rides", 0, 10).await.unwrap();
    let told: Vec<_> = commits.iter().map(|one| (one.number, one.revisions[0].object.name.clone())).collect();
    assert_eq!(told, [(1, "new".to_owned()), (2, "newer".to_owned())]);
    assert_eq!(commits[1].author, "ada@example");
}

/// The server wrote, and its answer never came: the second attempt meets the first one.
async fn a_lost_answer_is_no_lost_commit() {
    let registry = open("gs://bucket-of-lost/lost.db");
    let first = registry.commit(None, &put("a")).await.unwrap();
    let second = registry.commit(Some(&first), &put("b")).await.unwrap();
    assert_eq!(open("gs://bucket-of-lost/lost.db").version().await.unwrap(), Some(second));
}

/// A commit whose number cannot be told is none; without the right to list it has no history.
async fn numbers_of_commits_are_not_given_twice() {
    let error = open("gs://registries/broken.db").commit(None, &put("a")).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::Unavailable, "{error}");
    assert_eq!(open("gs://registries/broken.db").version().await.unwrap(), None);
    let hidden = open("gs://registries/hidden.db");
    let first = hidden.commit(None, &put("a")).await.unwrap();
    hidden.commit(Some(&first), &put("b")).await.unwrap();
    assert_eq!(hidden.load().await.unwrap().projects["rides"].entities.len(), 2);
}

async fn reading_needs_no_right_to_write() {
    let registry = open("gs://registries/read-only.db");
    let version = registry.commit(None, &put("a")).await.unwrap();
    let snapshot = open("gs://registries/read-only.db").load().await.unwrap();
    assert_eq!(snapshot.projects["rides"].entities.len(), 1);
    for error in [registry.commit(Some(&version), &put("b")).await.unwrap_err(), registry.teardown().await.unwrap_err()]
    {
        assert_eq!(error.code(), ErrorCode::ReadOnlyRegistry);
        let expected = "registry file `gs://registries/read-only.db` is read-only for these credentials";
        assert_eq!(error.message(), expected);
    }
}

async fn what_is_no_registry_is_no_empty_registry(port: u16) {
    let missing = open("s3://no-such-bucket/registry.db");
    for error in [missing.load().await.unwrap_err(), missing.commit(None, &put("a")).await.unwrap_err()] {
        assert_eq!(error.code(), ErrorCode::InvalidConfiguration, "{error}");
        assert!(error.message().contains("a bucket that does not exist"), "{error}");
    }
    let newer = b"\x1a\x01\x32";
    let truncated = &FEAST_REGISTRY[..FEAST_REGISTRY.len() - 7];
    for (at, bytes) in [b"".as_slice(), b"foreign", truncated, newer].into_iter().enumerate() {
        upload(port, &format!("damaged/{at}.db"), bytes).await;
        let registry = open(&format!("s3://registries/damaged/{at}.db"));
        assert_eq!(registry.load().await.unwrap_err().code(), ErrorCode::CorruptRegistry, "{at}");
        let error = registry.commit(None, &put("a")).await.unwrap_err();
        assert_eq!(error.code(), ErrorCode::CorruptRegistry, "{at}");
    }
}

async fn failures_tell_no_secrets() {
    let registry = open("s3://no-such-bucket/registry.db");
    let error = registry.load().await.unwrap_err();
    let text = format!("{registry:?} {registry} {error} {error:?} {:?}", error.hint());
    assert!(!text.contains(SECRET) && !text.contains(KEY_ID), "{text}");
}
