//! The file registry: the promises of every registry, and what is special to files.

#![allow(clippy::unwrap_used, reason = "tests")]

mod records;

use std::fs;
use std::path::Path;
use std::sync::Arc;

use feast_core::{
    Entity, ErrorCode, ObjectKind, RegistryChange, RegistryChanges, RegistryObject, RegistryStore, ValueType,
};
use feast_registry::FileRegistry;
use feast_testing::registry_suite::RegistryUnderTest;

const FEAST_REGISTRY: &[u8] = include_bytes!("../../../tests/formats/registry/feast-0.67.0.pb");

async fn start() -> RegistryUnderTest {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data/registry.db");
    RegistryUnderTest { open: Box::new(move || Arc::new(FileRegistry::new(&path))), guard: Box::new(folder) }
}

feast_testing::registry_store_conformance!(start);

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn records_at_the_same_time_lose_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("registry.db");
    records::lose_nothing(|| Arc::new(FileRegistry::new(&path))).await;
}

fn put(name: &str) -> RegistryChanges {
    let entity = Entity::new(name, name, ValueType::Int64);
    RegistryChanges::new("rides", vec![RegistryChange::Put(RegistryObject::Entity(entity.into()))])
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[tokio::test]
async fn feasts_file_is_read_and_committed_to() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("registry.db");
    fs::write(&path, FEAST_REGISTRY).unwrap();
    let registry = FileRegistry::new(&path);
    let before = registry.load().await.unwrap();
    registry.commit(before.version.as_ref(), &put("new")).await.unwrap();
    let after = registry.load().await.unwrap();
    assert_ne!(after.version, before.version);
    for kind in ObjectKind::ALL {
        let list = |snapshot: &feast_core::RegistrySnapshot| snapshot.projects["rides"].list(*kind);
        let added = usize::from(*kind == ObjectKind::Entity);
        assert_eq!(list(&after).len(), list(&before).len() + added, "{kind}");
        assert_eq!(list(&after)[..list(&before).len()], list(&before));
    }
    assert_eq!(format!("{:?}", after.versions), format!("{:?}", before.versions));
    assert_eq!(after.managed_tables, before.managed_tables);
}

#[tokio::test]
async fn files_that_are_no_registries_are_corrupt_and_stay() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("registry.db");
    let registry = FileRegistry::new(&path);
    let truncated = &FEAST_REGISTRY[..FEAST_REGISTRY.len() / 2];
    for content in [&b""[..], b"project: rides\n", b"SQLite format 3\0", b"{}", truncated, b"\x1a\x012", b"\x0a\x00"] {
        fs::write(&path, content).unwrap();
        let error = registry.load().await.unwrap_err();
        assert_eq!(error.code(), ErrorCode::CorruptRegistry, "{error}");
        assert!(error.to_string().contains("registry.db") && error.hint().is_some(), "{error}");
        assert_eq!(registry.commit(None, &put("x")).await.unwrap_err().code(), ErrorCode::CorruptRegistry);
        assert_eq!(fs::read(&path).unwrap(), content);
    }
}

#[tokio::test]
async fn a_registry_without_version_is_named_by_its_bytes() {
    use prost::Message;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("registry.db");
    let registry = feast_proto::core::Registry { registry_schema_version: "1".to_owned(), ..Default::default() };
    fs::write(&path, registry.encode_to_vec()).unwrap();
    let store = FileRegistry::new(&path);
    let base = store.load().await.unwrap().version;
    assert!(base.is_some() && base == store.version().await.unwrap());
    store.commit(base.as_ref(), &put("x")).await.unwrap();
    assert_eq!(store.commit(base.as_ref(), &put("y")).await.unwrap_err().code(), ErrorCode::Conflict);
}

#[tokio::test]
async fn a_read_only_file_is_read_and_not_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("registry.db");
    fs::write(&path, FEAST_REGISTRY).unwrap();
    let mut permissions = fs::metadata(&path).unwrap().permissions();
    permissions.set_readonly(true);
    fs::set_permissions(&path, permissions).unwrap();
    let registry = FileRegistry::new(&path);
    let base = registry.load().await.unwrap().version;
    let error = registry.commit(base.as_ref(), &put("x")).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::ReadOnlyRegistry);
    assert_eq!(fs::read(&path).unwrap(), FEAST_REGISTRY);
}

/// A process that was killed leaves a half-written file beside the registry, and the file of its lock, unlocked.
#[tokio::test]
async fn what_a_killed_process_leaves_does_no_harm() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("registry.db");
    fs::write(&path, FEAST_REGISTRY).unwrap();
    fs::write(folder.path().join(".registry.db.tmp"), b"half").unwrap();
    fs::write(folder.path().join("registry.db.lock"), b"").unwrap();
    let registry = FileRegistry::new(&path);
    let base = registry.load().await.unwrap().version;
    registry.commit(base.as_ref(), &put("x")).await.unwrap();
    assert!(registry.load().await.unwrap().projects["rides"].entities.contains_key("x"));
    assert_eq!(names(folder.path()), ["registry.db", "registry.db.history", "registry.db.lock"]);
    registry.teardown().await.unwrap();
    assert!(names(folder.path()).is_empty());
}

/// A commit waits while another process holds the lock.
#[tokio::test]
async fn a_commit_waits_for_the_lock() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("registry.db");
    let lock = fs::File::create(folder.path().join("registry.db.lock")).unwrap();
    lock.lock().unwrap();
    let commit = tokio::spawn({
        let path = path.clone();
        async move { FileRegistry::new(path).commit(None, &put("x")).await }
    });
    tokio::task::yield_now().await;
    assert!(!commit.is_finished() && !path.exists());
    lock.unlock().unwrap();
    commit.await.unwrap().unwrap();
}

#[cfg(unix)]
#[tokio::test]
async fn links_and_permissions_stay() {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let folder = tempfile::tempdir().unwrap();
    let (target, link) = (folder.path().join("target.db"), folder.path().join("link.db"));
    fs::write(&target, FEAST_REGISTRY).unwrap();
    fs::set_permissions(&target, fs::Permissions::from_mode(0o640)).unwrap();
    symlink(&target, &link).unwrap();
    let registry = FileRegistry::new(&link);
    let base = registry.load().await.unwrap().version;
    registry.commit(base.as_ref(), &put("x")).await.unwrap();
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(fs::metadata(&target).unwrap().permissions().mode() & 0o777, 0o640);
    assert_ne!(fs::read(&target).unwrap(), FEAST_REGISTRY);
}
