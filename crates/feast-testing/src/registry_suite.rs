//! What every [`RegistryStore`] promises, one test per promise.

use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use chrono::{DateTime, TimeDelta};
use feast_core::{
    BatchFeatures, DataSource, Entity, ErrorCode, FeatureService, FeatureView, FeatureViewKind, FeatureViewProjection,
    Field, Interval, ManagedTable, Meta, ObjectKind, ObjectRef, OnDemandFeatures, PastDefinition, Permission, Project,
    RegistryChange, RegistryChanges, RegistryObject, RegistrySnapshot, RegistryStore, RegistryVersion, SavedDataset,
    Shard, ShardProgress, ValidationReference, ValueType, VersionRecord,
};

/// A registry that does not exist yet, and how to open it once more, as another process would.
pub struct RegistryUnderTest {
    /// Opens a store on the same registry.
    pub open: Box<dyn Fn() -> Arc<dyn RegistryStore> + Send + Sync>,
    /// What must live as long as the registry, such as its temporary folder.
    pub guard: Box<dyn Any + Send + Sync>,
}

impl fmt::Debug for RegistryUnderTest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegistryUnderTest").finish_non_exhaustive()
    }
}

/// Makes one test of every promise. The argument is an async function that returns a [`RegistryUnderTest`].
#[macro_export]
macro_rules! registry_store_conformance {
    ($start:path) => {
        $crate::registry_store_conformance! { @promises tests $start }
    };
    // For programs that run tests themselves: names, and functions that run until the promise is seen to be kept.
    (list $start:expr) => {
        $crate::registry_store_conformance! { @promises list $start }
    };
    (@promises $form:ident $start:expr) => {
        $crate::registry_store_conformance! { $form $start;
            a_registry_that_does_not_exist_is_empty
            a_commit_is_loaded_by_everybody
            every_kind_survives
            a_stale_base_is_a_conflict_and_changes_nothing
            a_new_registry_is_not_made_over_an_existing_one
            every_commit_makes_a_new_version
            changes_are_applied_in_order
            put_replaces_in_place_and_leaves_the_rest
            deleting_what_is_not_there_changes_nothing
            projects_do_not_see_each_other
            deleting_a_project_removes_its_objects_only
            names_of_views_are_unique_among_all_kinds
            older_definitions_are_kept_until_deleted
            managed_tables_are_kept_until_deleted
            commits_at_the_same_time_lose_nothing
            what_was_committed_is_remembered
            teardown_removes_everything_and_may_be_repeated
        }
    };
    (list $start:expr; $($promise:ident)*) => {
        vec![$((
            stringify!($promise),
            Box::new(|runtime: &tokio::runtime::Runtime| {
                runtime.block_on(async { $crate::registry_suite::$promise($start().await).await })
            }) as Box<dyn Fn(&tokio::runtime::Runtime)>,
        )),*]
    };
    (tests $start:expr; $($promise:ident)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
            async fn $promise() {
                $crate::registry_suite::$promise($start().await).await;
            }
        )*
    };
}

const PROJECT: &str = "rides";

fn put(object: RegistryObject) -> RegistryChange {
    RegistryChange::Put(object)
}

fn entity(name: &str) -> RegistryObject {
    RegistryObject::Entity(Entity::new(name, format!("{name}_id"), ValueType::Int64).into())
}

fn changes_of(project: &str, changes: Vec<RegistryChange>) -> RegistryChanges {
    RegistryChanges::new(project, changes)
}

fn changes(changes: Vec<RegistryChange>) -> RegistryChanges {
    changes_of(PROJECT, changes)
}

/// The names of objects, sorted: registries have orders of their own.
fn names(snapshot: &RegistrySnapshot, project: &str, kind: ObjectKind) -> Vec<String> {
    let list = snapshot.projects.get(project).map(|contents| contents.list(kind)).unwrap_or_default();
    let mut names: Vec<String> = list.iter().map(|object| object.name().to_owned()).collect();
    names.sort();
    names
}

async fn load(store: &Arc<dyn RegistryStore>) -> RegistrySnapshot {
    store.load().await.expect("a registry that was committed can be loaded")
}

async fn commit(store: &Arc<dyn RegistryStore>, changes: RegistryChanges) -> RegistryVersion {
    let base = store.version().await.expect("the version can be read");
    store.commit(base.as_ref(), &changes).await.expect("the base is the stored version")
}

/// No registry: an empty snapshot without version, and reading makes none.
pub async fn a_registry_that_does_not_exist_is_empty(under_test: RegistryUnderTest) {
    let store = (under_test.open)();
    for _ in 0..2 {
        let snapshot = load(&store).await;
        assert!(snapshot.projects.is_empty());
        assert_eq!(snapshot.version, None);
        assert_eq!(store.version().await.expect("no registry has no version"), None);
    }
}

/// The version that a commit returns is the one that all stores load.
pub async fn a_commit_is_loaded_by_everybody(under_test: RegistryUnderTest) {
    let store = (under_test.open)();
    let before = chrono::Utc::now() - TimeDelta::seconds(1);
    let version = commit(&store, changes(vec![put(entity("driver"))])).await;
    for store in [store, (under_test.open)()] {
        let snapshot = load(&store).await;
        assert_eq!(snapshot.version.as_ref(), Some(&version));
        assert_eq!(store.version().await.expect("there is a registry"), Some(version.clone()));
        assert_eq!(names(&snapshot, PROJECT, ObjectKind::Project), [PROJECT]);
        assert!(snapshot.updated.is_some_and(|updated| updated > before));
        let driver = &snapshot.projects[PROJECT].entities["driver"];
        assert_eq!((driver.join_key.as_str(), driver.project.as_str()), ("driver_id", PROJECT));
    }
}

/// Objects of all kinds come back as they were put, with times to the microsecond.
pub async fn every_kind_survives(under_test: RegistryUnderTest) {
    let when = DateTime::from_timestamp_micros(1_700_000_000_123_456).expect("in range");
    let meta = Meta { created: Some(when), updated: Some(when + TimeDelta::microseconds(1)) };
    let project = PROJECT.to_owned();
    let view = |name: &str, kind| {
        let mut view = FeatureView::new(name, kind);
        view.project = PROJECT.to_owned();
        view.features = vec![Field::new("rate", ValueType::Float)];
        view.meta.created = Some(when);
        RegistryObject::FeatureView(view.into())
    };
    let RegistryObject::FeatureView(mut batch) = view("batch", FeatureViewKind::Batch(BatchFeatures::default())) else {
        unreachable!("made above");
    };
    Arc::make_mut(&mut batch).meta.materialization_intervals =
        vec![Interval { start: when, end: when + TimeDelta::days(1) }];
    Arc::make_mut(&mut batch).meta.shard_progress = vec![ShardProgress {
        shard: Shard::new(2, 4).expect("there are four"),
        intervals: vec![Interval { start: when + TimeDelta::days(1), end: when + TimeDelta::days(2) }],
    }];
    let projection =
        FeatureViewProjection { feature_view_name: "batch".to_owned(), ..FeatureViewProjection::default() };
    let objects = vec![
        RegistryObject::Project(Project { meta, description: "d".to_owned(), ..Project::new(PROJECT) }.into()),
        RegistryObject::Entity(
            Entity { meta, project: project.clone(), ..Entity::new("driver", "id", ValueType::Uuid) }.into(),
        ),
        RegistryObject::DataSource(
            DataSource { meta, project: project.clone(), ..DataSource::file("stats", "stats.parquet", "ts") }.into(),
        ),
        RegistryObject::FeatureView(batch),
        view("stream", FeatureViewKind::Stream(Default::default())),
        view("on_demand", FeatureViewKind::OnDemand(OnDemandFeatures::default())),
        view("label", FeatureViewKind::Label(Default::default())),
        RegistryObject::FeatureService(
            FeatureService {
                name: "service".to_owned(),
                project: project.clone(),
                projections: vec![projection],
                meta,
                ..FeatureService::default()
            }
            .into(),
        ),
        RegistryObject::SavedDataset(
            SavedDataset { name: "dataset".to_owned(), project: project.clone(), ..SavedDataset::default() }.into(),
        ),
        RegistryObject::ValidationReference(
            ValidationReference { name: "reference".to_owned(), project: project.clone(), ..Default::default() }.into(),
        ),
        RegistryObject::Permission(
            Permission { name: "permission".to_owned(), project, meta, ..Permission::default() }.into(),
        ),
    ];
    let store = (under_test.open)();
    commit(&store, changes(objects.iter().cloned().map(RegistryChange::Put).collect())).await;
    let snapshot = load(&store).await;
    for object in objects {
        assert_eq!(snapshot.projects[PROJECT].get(&object.reference()), Some(object));
    }
}

/// Who has not seen the newest state cannot overwrite it.
pub async fn a_stale_base_is_a_conflict_and_changes_nothing(under_test: RegistryUnderTest) {
    let store = (under_test.open)();
    let first = commit(&store, changes(vec![put(entity("driver"))])).await;
    let second = commit(&store, changes(vec![put(entity("city"))])).await;
    let stale = store.commit(Some(&first), &changes(vec![put(entity("lost"))])).await;
    assert_eq!(stale.expect_err("the base is stale").code(), ErrorCode::Conflict);
    let snapshot = load(&store).await;
    assert_eq!(snapshot.version, Some(second));
    assert_eq!(names(&snapshot, PROJECT, ObjectKind::Entity), ["city", "driver"]);
}

/// Without base, the registry must not exist; with one, it must.
pub async fn a_new_registry_is_not_made_over_an_existing_one(under_test: RegistryUnderTest) {
    let store = (under_test.open)();
    let nowhere = RegistryVersion("nowhere".to_owned());
    let missing = store.commit(Some(&nowhere), &changes(vec![put(entity("driver"))])).await;
    assert_eq!(missing.expect_err("there is no registry").code(), ErrorCode::Conflict);
    commit(&store, changes(vec![put(entity("driver"))])).await;
    let again = store.commit(None, &changes(vec![put(entity("city"))])).await;
    assert_eq!(again.expect_err("there is a registry").code(), ErrorCode::Conflict);
    assert_eq!(names(&load(&store).await, PROJECT, ObjectKind::Entity), ["driver"]);
}

/// Equal versions have equal contents, so every commit makes a new one.
pub async fn every_commit_makes_a_new_version(under_test: RegistryUnderTest) {
    let store = (under_test.open)();
    let mut seen = Vec::new();
    for _ in 0..3 {
        let version = commit(&store, changes(vec![put(entity("driver"))])).await;
        assert!(!seen.contains(&version));
        seen.push(version);
    }
}

/// Later changes of a commit see the earlier ones.
pub async fn changes_are_applied_in_order(under_test: RegistryUnderTest) {
    let store = (under_test.open)();
    let delete = |name: &str| RegistryChange::Delete(ObjectRef::new(ObjectKind::Entity, name));
    let list = vec![put(entity("a")), delete("a"), delete("b"), put(entity("b"))];
    commit(&store, changes(list)).await;
    assert_eq!(names(&load(&store).await, PROJECT, ObjectKind::Entity), ["b"]);
}

/// An update is visible, keeps the position of the object, and touches no other.
pub async fn put_replaces_in_place_and_leaves_the_rest(under_test: RegistryUnderTest) {
    let store = (under_test.open)();
    commit(&store, changes(["a", "b", "c"].map(|name| put(entity(name))).into())).await;
    let before = load(&store).await;
    let new = Entity { description: "new".to_owned(), ..Entity::new("b", "id", ValueType::String) };
    commit(&store, changes(vec![put(RegistryObject::Entity(new.into()))])).await;
    let after = load(&store).await;
    let [before, after] = [before, after].map(|snapshot| snapshot.projects[PROJECT].entities.clone());
    assert_eq!(after.keys().collect::<Vec<_>>(), ["a", "b", "c"]);
    assert_eq!(after["b"].description, "new");
    assert_eq!([&after["a"], &after["c"]], [&before["a"], &before["c"]]);
}

/// Deleting is idempotent.
pub async fn deleting_what_is_not_there_changes_nothing(under_test: RegistryUnderTest) {
    let store = (under_test.open)();
    commit(&store, changes(vec![put(entity("driver"))])).await;
    let absent = vec![
        RegistryChange::Delete(ObjectRef::new(ObjectKind::Entity, "absent")),
        RegistryChange::Delete(ObjectRef::new(ObjectKind::FeatureView, "driver")),
        RegistryChange::DeleteVersions("absent".to_owned()),
        RegistryChange::DeleteManagedTable("absent".to_owned()),
    ];
    commit(&store, changes(absent)).await;
    assert_eq!(names(&load(&store).await, PROJECT, ObjectKind::Entity), ["driver"]);
    commit(&store, changes(vec![RegistryChange::Delete(ObjectRef::new(ObjectKind::Entity, "driver"))])).await;
    assert!(names(&load(&store).await, PROJECT, ObjectKind::Entity).is_empty());
}

/// Objects with the same name in two projects are two objects.
pub async fn projects_do_not_see_each_other(under_test: RegistryUnderTest) {
    let store = (under_test.open)();
    commit(&store, changes(vec![put(entity("driver"))])).await;
    commit(&store, changes_of("other", vec![put(entity("driver"))])).await;
    let delete = RegistryChange::Delete(ObjectRef::new(ObjectKind::Entity, "driver"));
    commit(&store, changes_of("other", vec![delete])).await;
    let snapshot = load(&store).await;
    assert_eq!(names(&snapshot, PROJECT, ObjectKind::Entity), ["driver"]);
    assert!(names(&snapshot, "other", ObjectKind::Entity).is_empty());
    assert_eq!(snapshot.projects.len(), 2);
}

/// A deleted project is gone with its objects and older definitions; others stay.
pub async fn deleting_a_project_removes_its_objects_only(under_test: RegistryUnderTest) {
    let store = (under_test.open)();
    let list = vec![put(entity("driver")), RegistryChange::PutVersion(record("view", 0))];
    commit(&store, changes(list)).await;
    commit(&store, changes_of("other", vec![put(entity("driver"))])).await;
    commit(&store, changes(vec![RegistryChange::Delete(ObjectRef::new(ObjectKind::Project, PROJECT))])).await;
    let snapshot = load(&store).await;
    assert_eq!(snapshot.projects.keys().collect::<Vec<_>>(), ["other"]);
    assert_eq!(names(&snapshot, "other", ObjectKind::Entity), ["driver"]);
    assert!(snapshot.versions.is_empty());
}

/// A view replaces a view of another kind with its name.
pub async fn names_of_views_are_unique_among_all_kinds(under_test: RegistryUnderTest) {
    let store = (under_test.open)();
    let view = |kind| put(RegistryObject::FeatureView(FeatureView::new("view", kind).into()));
    commit(&store, changes(vec![view(FeatureViewKind::Batch(BatchFeatures::default()))])).await;
    commit(&store, changes(vec![view(FeatureViewKind::OnDemand(OnDemandFeatures::default()))])).await;
    let snapshot = load(&store).await;
    assert!(names(&snapshot, PROJECT, ObjectKind::FeatureView).is_empty());
    assert_eq!(names(&snapshot, PROJECT, ObjectKind::OnDemandFeatureView), ["view"]);
}

fn record(name: &str, version_number: i32) -> VersionRecord {
    let mut view = FeatureView::new(name, FeatureViewKind::Batch(BatchFeatures::default()));
    view.project = PROJECT.to_owned();
    VersionRecord {
        project: PROJECT.to_owned(),
        feature_view: name.to_owned(),
        kind: view.object_kind(),
        version_number,
        definition: PastDefinition::Read(Arc::new(view)),
        // Feast's tables keep whole seconds.
        created: DateTime::from_timestamp(1_700_000_000, 0),
        description: String::new(),
        version_id: format!("uuid of {version_number}"),
    }
}

/// Everything a snapshot of a definition tells.
fn told(record: &VersionRecord) -> String {
    let read = PastDefinition::Read(record.view().unwrap_or_else(|error| panic!("{error}")));
    format!("{:?}", VersionRecord { definition: read, ..record.clone() })
}

/// Snapshots of definitions come back as they were put, until those of the view are deleted.
pub async fn older_definitions_are_kept_until_deleted(under_test: RegistryUnderTest) {
    let store = (under_test.open)();
    let records = [record("a", 0), record("a", 1), record("b", 0)];
    commit(&store, changes(records.iter().cloned().map(RegistryChange::PutVersion).collect())).await;
    let versions = async || load(&store).await.versions.iter().map(|record| told(record)).collect::<Vec<_>>();
    let expected: Vec<String> = records.iter().map(told).collect();
    assert_eq!(versions().await, expected);
    commit(&store, changes(vec![RegistryChange::DeleteVersions("a".to_owned())])).await;
    assert_eq!(versions().await, expected[2..]);
}

/// Records of tables are replaced by name.
pub async fn managed_tables_are_kept_until_deleted(under_test: RegistryUnderTest) {
    let store = (under_test.open)();
    let table = |name: &str, path: &str| ManagedTable {
        class_type: "feast.infra.online_stores.sqlite.SqliteTable".to_owned(),
        name: name.to_owned(),
        path: path.to_owned(),
    };
    let puts = [table("a", "old"), table("b", "b"), table("a", "new")].map(RegistryChange::PutManagedTable);
    commit(&store, changes(puts.into())).await;
    assert_eq!(*load(&store).await.managed_tables, [table("a", "new"), table("b", "b")]);
    commit(&store, changes(vec![RegistryChange::DeleteManagedTable("a".to_owned())])).await;
    assert_eq!(*load(&store).await.managed_tables, [table("b", "b")]);
}

/// Twenty writers that repeat on conflict all get their object in.
#[expect(clippy::print_stdout, reason = "figures, for whoever runs the test with `--nocapture`")]
pub async fn commits_at_the_same_time_lose_nothing(under_test: RegistryUnderTest) {
    const WRITERS: usize = 20;
    let started = Instant::now();
    let writers: Vec<_> = (0..WRITERS)
        .map(|number| {
            let store = (under_test.open)();
            tokio::spawn(async move {
                let change = changes(vec![put(entity(&format!("entity_{number}")))]);
                for conflicts in 0.. {
                    let base = store.version().await.expect("the version can be read");
                    match store.commit(base.as_ref(), &change).await {
                        Err(error) if error.code() == ErrorCode::Conflict => {}
                        committed => return committed.map(|_| conflicts).expect("conflicts aside, commits succeed"),
                    }
                }
                unreachable!("the loop ends with a commit only")
            })
        })
        .collect();
    let mut conflicts = 0;
    for writer in writers {
        conflicts += writer.await.expect("no writer panics");
    }
    let took = started.elapsed().as_millis();
    let store = (under_test.open)();
    assert_eq!(names(&load(&store).await, PROJECT, ObjectKind::Entity).len(), WRITERS);
    println!("{store}: {WRITERS} commits at the same time in {took} ms, {conflicts} conflicts repeated, none lost");
}

/// A registry with a history tells who changed what, project by project, in order.
pub async fn what_was_committed_is_remembered(under_test: RegistryUnderTest) {
    let store = (under_test.open)();
    let described = |description: &str| {
        let entity = Entity { description: description.to_owned(), ..Entity::new("b", "b_id", ValueType::String) };
        put(RegistryObject::Entity(entity.into()))
    };
    commit(&store, changes(vec![put(entity("a")), described("old")])).await;
    commit(&store, changes_of("other", vec![put(entity("a"))])).await;
    let gone = RegistryChange::Delete(ObjectRef::new(ObjectKind::Entity, "a"));
    commit(&store, changes(vec![described("new"), gone])).await;
    // What changes nothing is nothing to remember.
    commit(&store, changes(vec![described("new")])).await;
    let other = (under_test.open)();
    let history = other.history().expect("this registry has a history");
    let commits = history.commits(PROJECT, 0, usize::MAX).await.expect("the history can be read");
    let [first, second] = commits.as_slice() else { panic!("two commits, found {}", commits.len()) };
    assert!(first.number < second.number && first.time <= second.time);
    let mut created: Vec<String> = first.revisions.iter().map(|revision| revision.object.to_string()).collect();
    created.sort();
    assert_eq!(created, ["entity `a`", "entity `b`", "project `rides`"]);
    assert!(first.revisions.iter().all(|revision| revision.before.is_none() && revision.after.is_some()));
    let description = |object: &Option<RegistryObject>| match object {
        Some(RegistryObject::Entity(entity)) => entity.description.clone(),
        _ => "none".to_owned(),
    };
    let mut told: Vec<(String, String, String)> = second
        .revisions
        .iter()
        .map(|one| (one.object.name.clone(), description(&one.before), description(&one.after)))
        .collect();
    told.sort();
    let expected = [("a", "", "none"), ("b", "old", "new")];
    assert_eq!(told, expected.map(|(name, before, after)| (name.to_owned(), before.to_owned(), after.to_owned())));
    let newest = history.commits(PROJECT, 0, 1).await.expect("the history can be read");
    assert_eq!(newest.as_slice(), std::slice::from_ref(second));
    let later = history.commits(PROJECT, first.number, usize::MAX).await.expect("the history can be read");
    assert_eq!(later, newest);
}

/// After a teardown there is no registry, and a new one can be made.
pub async fn teardown_removes_everything_and_may_be_repeated(under_test: RegistryUnderTest) {
    let store = (under_test.open)();
    store.teardown().await.expect("tearing down nothing is no error");
    commit(&store, changes(vec![put(entity("driver"))])).await;
    store.teardown().await.expect("there is a registry");
    store.teardown().await.expect("tearing down nothing is no error");
    assert!(load(&store).await.projects.is_empty());
    assert_eq!(store.version().await.expect("no registry has no version"), None);
    commit(&store, changes(vec![put(entity("city"))])).await;
    assert_eq!(names(&load(&store).await, PROJECT, ObjectKind::Entity), ["city"]);
}
