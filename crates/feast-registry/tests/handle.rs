//! The cached handle: readers never wait once there is a snapshot, refreshes are single, failures keep the snapshot.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::fmt;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use feast_core::{
    Entity, ErrorCode, ObjectKind, RegistryChange, RegistryChanges, RegistryObject, RegistrySnapshot, RegistryStore,
    RegistryVersion, Result, ValueType,
};
use feast_registry::{FileRegistry, RegistryHandle};

fn put(name: &str) -> RegistryChanges {
    let entity = Entity::new(name, name, ValueType::Int64);
    RegistryChanges::new("rides", vec![RegistryChange::Put(RegistryObject::Entity(entity.into()))])
}

fn entities(snapshot: &RegistrySnapshot) -> usize {
    snapshot.projects.get("rides").map_or(0, |contents| contents.list(ObjectKind::Entity).len())
}

/// A store that counts how often it is read in full.
#[derive(Debug)]
struct Counted(FileRegistry, Arc<AtomicUsize>);

impl fmt::Display for Counted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[async_trait]
impl RegistryStore for Counted {
    async fn load(&self) -> Result<RegistrySnapshot> {
        self.1.fetch_add(1, Ordering::SeqCst);
        self.0.load().await
    }
    async fn commit(&self, base: Option<&RegistryVersion>, changes: &RegistryChanges) -> Result<RegistryVersion> {
        self.0.commit(base, changes).await
    }
    async fn version(&self) -> Result<Option<RegistryVersion>> {
        self.0.version().await
    }
    async fn teardown(&self) -> Result<()> {
        self.0.teardown().await
    }
}

#[tokio::test]
async fn the_first_reader_loads_and_the_others_share() {
    let folder = tempfile::tempdir().unwrap();
    let reads = Arc::new(AtomicUsize::new(0));
    let store = Counted(FileRegistry::new(folder.path().join("registry.db")), Arc::clone(&reads));
    let handle = RegistryHandle::new(Arc::new(store), None);
    assert!(handle.health().age.is_none());
    let (first, second) = tokio::join!(handle.snapshot(), handle.snapshot());
    assert!(Arc::ptr_eq(&first.unwrap(), &second.unwrap()));
    let committed = handle.commit_with(|_| Ok(put("driver"))).await.unwrap();
    assert_eq!(entities(&committed), 1);
    assert!(Arc::ptr_eq(&committed, &handle.snapshot().await.unwrap()));
    assert!(Arc::ptr_eq(&committed, &handle.refresh().await.unwrap()), "an unchanged registry is not read again");
    assert_eq!(reads.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn an_old_snapshot_is_refreshed_in_the_background() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("registry.db");
    let reader = RegistryHandle::new(Arc::new(FileRegistry::new(&path)), Some(Duration::ZERO));
    let frozen = RegistryHandle::new(Arc::new(FileRegistry::new(&path)), None);
    for handle in [&reader, &frozen] {
        assert_eq!(entities(&handle.snapshot_checked().await.unwrap()), 0);
    }
    FileRegistry::new(&path).commit(None, &put("driver")).await.unwrap();
    tokio::time::timeout(Duration::from_secs(10), async {
        while entities(&reader.snapshot_checked().await.unwrap()) == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("the new state is seen within ten seconds");
    assert_eq!(entities(&frozen.snapshot_checked().await.unwrap()), 0);
    assert_eq!(entities(&frozen.refresh().await.unwrap()), 1);
}

#[tokio::test]
async fn a_failed_refresh_keeps_the_snapshot_and_is_remembered() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("registry.db");
    let handle = RegistryHandle::new(Arc::new(FileRegistry::new(&path)), Some(Duration::ZERO));
    handle.commit_with(|_| Ok(put("driver"))).await.unwrap();
    fs::write(&path, b"damaged").unwrap();
    assert_eq!(handle.refresh().await.unwrap_err().code(), ErrorCode::CorruptRegistry);
    assert_eq!(entities(&handle.snapshot_checked().await.unwrap()), 1);
    assert!(handle.health().failure.unwrap().0.contains("registry.db"));
    fs::remove_file(&path).unwrap();
    assert_eq!(entities(&handle.refresh().await.unwrap()), 0);
    assert!(handle.health().failure.is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn twenty_handles_commit_at_the_same_time_and_lose_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("registry.db");
    let writers: Vec<_> = (0..20)
        .map(|number| {
            let handle = RegistryHandle::new(Arc::new(FileRegistry::new(&path)), None);
            tokio::spawn(async move { handle.commit_with(|_| Ok(put(&format!("e{number}")))).await })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap().unwrap();
    }
    assert_eq!(entities(&FileRegistry::new(&path).load().await.unwrap()), 20);
}

#[tokio::test]
async fn no_changes_make_no_commit_and_errors_of_the_function_end_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("registry.db");
    let handle = RegistryHandle::new(Arc::new(FileRegistry::new(&path)), None);
    handle.commit_with(|_| Ok(RegistryChanges::default())).await.unwrap();
    assert!(!path.exists());
    let refused = handle.commit_with(|snapshot| snapshot.project("rides").map(|_| put("x"))).await;
    assert_eq!(refused.unwrap_err().code(), ErrorCode::ProjectNotFound);
}
