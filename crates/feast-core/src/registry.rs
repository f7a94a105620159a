//! The registry as readers see it (an immutable snapshot) and as backends store it.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, RwLock};

use async_trait::async_trait;
use bytes::Bytes;
use hashbrown::{Equivalent, HashMap};
use indexmap::IndexMap;

use crate::{
    DataSource, Entity, Error, FeatureSelection, FeatureService, FeatureView, Memo, ObjectKind, ObjectRef, Objects,
    Permission, Project, RegistryObject, Result, RetrievalPlan, SavedDataset, Timestamp, ValidationReference, Versions,
    did_you_mean,
};

/// Names one state of a registry. Two equal versions have equal contents.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RegistryVersion(pub String);

impl fmt::Display for RegistryVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The objects of one project, by name.
#[derive(Debug, Clone, Default)]
#[allow(missing_docs, reason = "the names say it")]
pub struct ProjectContents {
    pub project: Project,
    pub entities: Objects<Entity>,
    pub data_sources: Objects<DataSource>,
    /// Batch, stream, on-demand and label views.
    pub feature_views: Objects<FeatureView>,
    pub feature_services: Objects<FeatureService>,
    pub saved_datasets: Objects<SavedDataset>,
    pub validation_references: Objects<ValidationReference>,
    pub permissions: Objects<Permission>,
    /// What somebody works out from them and needs for each request.
    pub memo: Memo,
}

impl ProjectContents {
    /// Adds or replaces an object.
    pub fn put(&mut self, object: RegistryObject) {
        self.memo = Memo::default();
        let name = object.name().to_owned();
        match object {
            RegistryObject::Project(project) => self.project = Arc::unwrap_or_clone(project),
            RegistryObject::Entity(entity) => drop(self.entities.insert(name, entity)),
            RegistryObject::DataSource(source) => drop(self.data_sources.insert(name, source)),
            RegistryObject::FeatureView(view) => drop(self.feature_views.insert(name, view)),
            RegistryObject::FeatureService(service) => drop(self.feature_services.insert(name, service)),
            RegistryObject::SavedDataset(dataset) => drop(self.saved_datasets.insert(name, dataset)),
            RegistryObject::ValidationReference(reference) => {
                drop(self.validation_references.insert(name, reference));
            }
            RegistryObject::Permission(permission) => drop(self.permissions.insert(name, permission)),
        }
    }

    /// Removes an object; of a project, only what it says of itself.
    pub fn remove(&mut self, reference: &ObjectRef) {
        self.memo = Memo::default();
        let name = reference.name.as_str();
        match reference.kind {
            ObjectKind::Project => self.project = Project::new(name),
            ObjectKind::Entity => drop(self.entities.shift_remove(name)),
            ObjectKind::DataSource => drop(self.data_sources.shift_remove(name)),
            ObjectKind::FeatureService => drop(self.feature_services.shift_remove(name)),
            ObjectKind::SavedDataset => drop(self.saved_datasets.shift_remove(name)),
            ObjectKind::ValidationReference => drop(self.validation_references.shift_remove(name)),
            ObjectKind::Permission => drop(self.permissions.shift_remove(name)),
            view_kind => {
                if self.feature_views.get(name).is_some_and(|view| view.object_kind() == view_kind) {
                    self.feature_views.shift_remove(name);
                }
            }
        }
    }

    /// Puts the objects of each kind in the order of their names, views of the same kind beside each other.
    pub fn sort(&mut self) {
        self.entities.sort_by_name();
        self.data_sources.sort_by_name();
        self.feature_views
            .sort_by(|name, view, other, after| (view.object_kind(), name).cmp(&(after.object_kind(), other)));
        self.feature_services.sort_by_name();
        self.saved_datasets.sort_by_name();
        self.validation_references.sort_by_name();
        self.permissions.sort_by_name();
    }

    /// The object with this kind and name.
    pub fn get(&self, reference: &ObjectRef) -> Option<RegistryObject> {
        let name = reference.name.as_str();
        match reference.kind {
            ObjectKind::Project => {
                (self.project.name == name).then(|| RegistryObject::Project(Arc::new(self.project.clone())))
            }
            ObjectKind::Entity => self.entities.get(name).cloned().map(RegistryObject::Entity),
            ObjectKind::DataSource => self.data_sources.get(name).cloned().map(RegistryObject::DataSource),
            ObjectKind::FeatureService => self.feature_services.get(name).cloned().map(RegistryObject::FeatureService),
            ObjectKind::SavedDataset => self.saved_datasets.get(name).cloned().map(RegistryObject::SavedDataset),
            ObjectKind::ValidationReference => {
                self.validation_references.get(name).cloned().map(RegistryObject::ValidationReference)
            }
            ObjectKind::Permission => self.permissions.get(name).cloned().map(RegistryObject::Permission),
            view_kind => self
                .feature_views
                .get(name)
                .filter(|view| view.object_kind() == view_kind)
                .cloned()
                .map(RegistryObject::FeatureView),
        }
    }

    /// All objects of a kind, in registry order.
    pub fn list(&self, kind: ObjectKind) -> Vec<RegistryObject> {
        match kind {
            ObjectKind::Project => vec![RegistryObject::Project(Arc::new(self.project.clone()))],
            ObjectKind::Entity => self.entities.values().cloned().map(RegistryObject::Entity).collect(),
            ObjectKind::DataSource => self.data_sources.values().cloned().map(RegistryObject::DataSource).collect(),
            ObjectKind::FeatureService => {
                self.feature_services.values().cloned().map(RegistryObject::FeatureService).collect()
            }
            ObjectKind::SavedDataset => {
                self.saved_datasets.values().cloned().map(RegistryObject::SavedDataset).collect()
            }
            ObjectKind::ValidationReference => {
                self.validation_references.values().cloned().map(RegistryObject::ValidationReference).collect()
            }
            ObjectKind::Permission => self.permissions.values().cloned().map(RegistryObject::Permission).collect(),
            view_kind => self
                .feature_views
                .values()
                .filter(|view| view.object_kind() == view_kind)
                .cloned()
                .map(RegistryObject::FeatureView)
                .collect(),
        }
    }

    /// All objects but the project itself, kind by kind.
    pub fn objects(&self) -> impl Iterator<Item = RegistryObject> {
        ObjectKind::ALL.iter().filter(|kind| **kind != ObjectKind::Project).flat_map(|kind| self.list(*kind))
    }

    /// The view with this name, of whatever kind.
    ///
    /// # Errors
    /// `FeatureViewNotFound` with the closest name.
    pub fn feature_view(&self, name: &str) -> Result<&Arc<FeatureView>> {
        self.feature_views.get(name).ok_or_else(|| {
            let error = ObjectRef::new(ObjectKind::FeatureView, name).not_found(&self.project.name);
            match self.feature_services.contains_key(name) {
                true => error.with_hint(format!("`{name}` is a feature service, which is asked for as a whole")),
                false => error.with_hint_opt(did_you_mean(name, self.feature_views.keys().map(String::as_str))),
            }
        })
    }

    /// The feature service with this name.
    ///
    /// # Errors
    /// `FeatureServiceNotFound` with the closest name.
    pub fn feature_service(&self, name: &str) -> Result<&Arc<FeatureService>> {
        self.feature_services.get(name).ok_or_else(|| {
            ObjectRef::new(ObjectKind::FeatureService, name)
                .not_found(&self.project.name)
                .with_hint_opt(did_you_mean(name, self.feature_services.keys().map(String::as_str)))
        })
    }

    /// The object with this kind and name.
    ///
    /// # Errors
    /// The `NotFound` error of the kind, with the closest name.
    pub fn require(&self, reference: &ObjectRef) -> Result<RegistryObject> {
        self.get(reference).ok_or_else(|| {
            let names: Vec<RegistryObject> = self.list(reference.kind);
            reference
                .not_found(&self.project.name)
                .with_hint_opt(did_you_mean(&reference.name, names.iter().map(RegistryObject::name)))
        })
    }

    /// The views that are fed by pushes to `push_source`.
    ///
    /// # Errors
    /// `PushSourceNotFound` with the closest name of a push source.
    pub fn views_of_push_source(&self, push_source: &str) -> Result<Vec<Arc<FeatureView>>> {
        let fed = |view: &FeatureView| {
            view.stream_source().is_some_and(|source| {
                matches!(source.options, crate::DataSourceOptions::Push) && source.name == push_source
            })
        };
        let views: Vec<Arc<FeatureView>> = self.feature_views.values().filter(|view| fed(view)).cloned().collect();
        if views.is_empty() {
            let known = self.feature_views.values().filter_map(|view| view.stream_source()).map(|s| s.name.as_str());
            return Err(Error::new(
                crate::ErrorCode::PushSourceNotFound,
                format!("no feature view of project `{}` is fed by a push source `{push_source}`", self.project.name),
            )
            .with_hint_opt(did_you_mean(push_source, known)));
        }
        Ok(views)
    }
}

/// A snapshot of a view's definition, kept when its schema changes.
#[derive(Debug, Clone)]
#[allow(missing_docs, reason = "the names are those of Feast's message")]
pub struct VersionRecord {
    pub project: String,
    pub feature_view: String,
    pub kind: ObjectKind,
    pub version_number: i32,
    pub definition: PastDefinition,
    pub created: Option<Timestamp>,
    pub description: String,
    pub version_id: String,
}

/// What a view was. A registry has as many of them as views and looks at few, so they are read when somebody does.
#[derive(Debug, Clone)]
pub enum PastDefinition {
    /// The definition.
    Read(Arc<FeatureView>),
    /// Its message, and how to read it.
    #[allow(missing_docs, reason = "the names say it")]
    Unread { message: Bytes, read: fn(&VersionRecord, &[u8]) -> Result<Arc<FeatureView>> },
}

impl VersionRecord {
    /// Whether it is one of this view.
    pub fn is_of(&self, project: &str, feature_view: &str) -> bool {
        self.project == project && self.feature_view == feature_view
    }

    /// The definition.
    ///
    /// # Errors
    /// `CorruptRegistry`, naming the view, when its message cannot be read.
    pub fn view(&self) -> Result<Arc<FeatureView>> {
        match &self.definition {
            PastDefinition::Read(view) => Ok(Arc::clone(view)),
            PastDefinition::Unread { message, read } => read(self, message),
        }
    }
}

/// A table of the online store as Feast records it in the registry, so that Feast's own `plan` finds nothing to do.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ManagedTable {
    /// Python class of the infra object.
    pub class_type: String,
    /// Name of the table.
    pub name: String,
    /// Absolute path of the database file.
    pub path: String,
}

/// One state of a registry. It never changes; a request uses one snapshot from start to end.
#[derive(Default)]
pub struct RegistrySnapshot {
    /// Which state this is; `None` for a registry that does not exist yet.
    pub version: Option<RegistryVersion>,
    /// Projects by name.
    pub projects: IndexMap<String, Arc<ProjectContents>>,
    /// Older definitions of views.
    pub versions: Arc<Vec<Arc<VersionRecord>>>,
    /// Tables that were created for views.
    pub managed_tables: Arc<Vec<ManagedTable>>,
    /// Last commit.
    pub updated: Option<Timestamp>,
    /// Whether each version of a view has a table of its own in the online store: whoever reads the registry says so.
    pub versions_have_tables: bool,
    plans: PlanMemo,
}

impl fmt::Debug for RegistrySnapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegistrySnapshot")
            .field("version", &self.version)
            .field("projects", &self.projects.keys())
            .finish_non_exhaustive()
    }
}

impl RegistrySnapshot {
    /// The contents of a project.
    ///
    /// # Errors
    /// `ProjectNotFound` with the names of the projects there are.
    pub fn project(&self, name: &str) -> Result<&Arc<ProjectContents>> {
        self.projects.get(name).ok_or_else(|| {
            ObjectRef::new(ObjectKind::Project, name)
                .not_found(name)
                .with_hint_opt(did_you_mean(name, self.projects.keys().map(String::as_str)))
                .with_hint_opt(self.projects.is_empty().then(|| {
                    "the registry is empty; run `feast apply` in the feature repository to fill it".to_owned()
                }))
        })
    }

    /// The versions that a request may ask for.
    pub fn versions(&self) -> Versions<'_> {
        Versions { records: &self.versions, have_tables: self.versions_have_tables }
    }

    /// What a request must read to answer `selection`. Repeated selections are answered from a memo that lives and
    /// dies with the snapshot.
    ///
    /// # Errors
    /// As [`RetrievalPlan::resolve`].
    pub fn resolve(
        &self,
        project: &str,
        selection: &FeatureSelection,
        full_feature_names: bool,
    ) -> Result<Arc<RetrievalPlan>> {
        match selection {
            FeatureSelection::References(references) => {
                self.resolve_references(project, references, full_feature_names)
            }
            FeatureSelection::ServiceName(name) => {
                self.remembered(project, Selected::<&str>::Service(name), full_feature_names, || selection.clone())
            }
            FeatureSelection::Service(service) => {
                let text = serde_json::to_string(service).unwrap_or_default();
                self.remembered(project, Selected::<&str>::Held(&text), full_feature_names, || selection.clone())
            }
        }
    }

    /// [`resolve`](Self::resolve) for references that somebody else holds: nothing is copied when the plan is known.
    ///
    /// # Errors
    /// As [`RetrievalPlan::resolve`].
    pub fn resolve_references<S: AsRef<str>>(
        &self,
        project: &str,
        references: &[S],
        full_feature_names: bool,
    ) -> Result<Arc<RetrievalPlan>> {
        let owned = || FeatureSelection::References(references.iter().map(|text| text.as_ref().to_owned()).collect());
        self.remembered(project, Selected::References(references), full_feature_names, owned)
    }

    fn remembered<S: AsRef<str>>(
        &self,
        project: &str,
        selected: Selected<'_, S>,
        full_feature_names: bool,
        selection: impl Fn() -> FeatureSelection,
    ) -> Result<Arc<RetrievalPlan>> {
        let contents = self.project(project)?;
        let asked = Asked { project, selected, full_feature_names };
        if let Some(plan) = self.plans.get(&asked) {
            return Ok(plan);
        }
        let plan = RetrievalPlan::resolve_with(contents, self.versions(), &selection(), full_feature_names)?;
        let plan = Arc::new(plan);
        self.plans.put(&asked, &plan);
        Ok(plan)
    }
}

/// What was asked for, as the caller has it.
struct Asked<'a, S> {
    project: &'a str,
    selected: Selected<'a, S>,
    full_feature_names: bool,
}

enum Selected<'a, S> {
    References(&'a [S]),
    Service(&'a str),
    /// A service that is not the registry's, as text.
    Held(&'a str),
}

impl<S: AsRef<str>> Asked<'_, S> {
    /// What is compared: a kind and texts.
    fn texts(&self) -> (u8, impl Iterator<Item = &str>) {
        let (kind, references, name): (u8, &[S], Option<&str>) = match &self.selected {
            Selected::References(references) => (0, references, None),
            Selected::Service(name) => (1, &[], Some(*name)),
            Selected::Held(text) => (2, &[], Some(*text)),
        };
        (kind, references.iter().map(AsRef::as_ref).chain(name))
    }

    fn to_key(&self) -> PlanKey {
        let (kind, texts) = self.texts();
        PlanKey {
            project: self.project.to_owned(),
            kind,
            texts: texts.map(str::to_owned).collect(),
            full_feature_names: self.full_feature_names,
        }
    }
}

impl<S: AsRef<str>> Hash for Asked<'_, S> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let (kind, texts) = self.texts();
        hash_plan_key(state, self.project, kind, texts, self.full_feature_names);
    }
}

impl<S: AsRef<str>> Equivalent<PlanKey> for Asked<'_, S> {
    fn equivalent(&self, key: &PlanKey) -> bool {
        let (kind, texts) = self.texts();
        kind == key.kind
            && self.full_feature_names == key.full_feature_names
            && self.project == key.project
            && texts.eq(key.texts.iter().map(String::as_str))
    }
}

#[derive(PartialEq, Eq)]
struct PlanKey {
    project: String,
    kind: u8,
    texts: Box<[String]>,
    full_feature_names: bool,
}

impl Hash for PlanKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let texts = self.texts.iter().map(String::as_str);
        hash_plan_key(state, &self.project, self.kind, texts, self.full_feature_names);
    }
}

fn hash_plan_key<'a>(
    state: &mut impl Hasher,
    project: &str,
    kind: u8,
    texts: impl Iterator<Item = &'a str>,
    full_feature_names: bool,
) {
    project.hash(state);
    (kind, full_feature_names).hash(state);
    texts.for_each(|text| text.hash(state));
}

/// Plans by request. The lock is held for a map access only, never across an await.
#[derive(Default)]
struct PlanMemo(RwLock<Plans>);

#[derive(Default)]
struct Plans {
    by_request: HashMap<PlanKey, Arc<RetrievalPlan>>,
    /// How many features they have together.
    n_features: usize,
}

impl PlanMemo {
    /// Beyond this many features in all plans, new plans are made each time: callers decide what they ask for, so the
    /// memo must not grow with them.
    const MOST: usize = 100_000;

    fn get<S: AsRef<str>>(&self, asked: &Asked<'_, S>) -> Option<Arc<RetrievalPlan>> {
        self.0.read().ok()?.by_request.get(asked).cloned()
    }

    fn put<S: AsRef<str>>(&self, asked: &Asked<'_, S>, plan: &Arc<RetrievalPlan>) {
        let Ok(mut plans) = self.0.write() else { return };
        let n_features = plans.n_features + plan.outputs().count();
        if n_features <= Self::MOST && plans.by_request.insert(asked.to_key(), Arc::clone(plan)).is_none() {
            plans.n_features = n_features;
        }
    }
}

/// One change to a registry.
#[derive(Debug, Clone)]
pub enum RegistryChange {
    /// Adds or replaces an object.
    Put(RegistryObject),
    /// Removes an object; removing what is not there changes nothing. Removing a project removes its objects.
    Delete(ObjectRef),
    /// Adds a snapshot of a definition.
    PutVersion(VersionRecord),
    /// Removes all snapshots of a view.
    DeleteVersions(String),
    /// Adds or replaces the record of a table.
    PutManagedTable(ManagedTable),
    /// Removes the record of the table with this name.
    DeleteManagedTable(String),
}

/// Changes to one project, committed together.
#[derive(Debug, Clone, Default)]
pub struct RegistryChanges {
    /// The project; created when it does not exist.
    pub project: String,
    /// The changes, in order.
    pub changes: Vec<RegistryChange>,
    /// Who makes them, `user@host`, when it is not whoever opened the store: a server commits for its clients.
    pub author: Option<String>,
}

impl RegistryChanges {
    /// Changes by whoever opened the store.
    pub fn new(project: impl Into<String>, changes: Vec<RegistryChange>) -> Self {
        Self { project: project.into(), changes, author: None }
    }

    /// Who makes them, if `opener` opened the store.
    pub fn author_or<'a>(&'a self, opener: &'a str) -> &'a str {
        self.author.as_deref().unwrap_or(opener)
    }
}

/// Where definitions rest.
#[async_trait]
pub trait RegistryStore: fmt::Debug + fmt::Display + Send + Sync + 'static {
    /// Reads the whole registry. A registry that does not exist yet is an empty snapshot without version.
    ///
    /// # Errors
    /// `CorruptRegistry` when the stored bytes are not a registry; never an empty snapshot instead.
    async fn load(&self) -> Result<RegistrySnapshot>;

    /// The stored state, unless it is the one that is known. Stores that can tell what changed read no more than that.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    async fn load_newer(&self, known: &RegistrySnapshot) -> Result<Option<RegistrySnapshot>> {
        if self.version().await? == known.version { Ok(None) } else { self.load().await.map(Some) }
    }

    /// Commits changes on top of `base` atomically and returns the new version; with `None` as base the registry must
    /// not exist yet. Objects that no change names keep their stored bytes.
    ///
    /// # Errors
    /// `Conflict` when the stored version is not `base`; nothing was changed then.
    async fn commit(&self, base: Option<&RegistryVersion>, changes: &RegistryChanges) -> Result<RegistryVersion>;

    /// The stored version, cheap enough to poll; `None` when the registry does not exist.
    async fn version(&self) -> Result<Option<RegistryVersion>>;

    /// Finds out whether commits are allowed, for work that takes long and ends with one. Changes nothing; a store that
    /// cannot tell says yes.
    ///
    /// # Errors
    /// `ReadOnlyRegistry` when commits would be refused.
    async fn check_writable(&self) -> Result<()> {
        Ok(())
    }

    /// Removes the registry with all its projects.
    async fn teardown(&self) -> Result<()>;

    /// Makes what has to be there before the first commit, for registries whose users may not make it themselves.
    /// Safe to repeat.
    ///
    /// # Errors
    /// Where the user may not make it either.
    async fn create_schema(&self) -> Result<()> {
        Ok(())
    }

    /// What was committed, for the registries that remember it.
    fn history(&self) -> Option<&dyn RegistryHistory> {
        None
    }
}

/// One commit, as the history keeps it.
#[derive(Debug, Clone, PartialEq)]
pub struct CommitRecord {
    /// Number of the commit; later ones have higher numbers.
    pub number: u64,
    /// The project that was changed.
    pub project: String,
    /// Who committed: `user@host`, or empty.
    pub author: String,
    /// When.
    pub time: Timestamp,
    /// What changed.
    pub revisions: Vec<ObjectRevision>,
}

/// One object before and after a commit.
#[derive(Debug, Clone, PartialEq)]
pub struct ObjectRevision {
    /// Which object.
    pub object: ObjectRef,
    /// `None` when the commit created it.
    pub before: Option<RegistryObject>,
    /// `None` when the commit deleted it.
    pub after: Option<RegistryObject>,
}

/// What was committed to a registry by this product. Commits of Feast's clients are not in it.
#[async_trait]
pub trait RegistryHistory: Send + Sync {
    /// Commits to a project, oldest first: those with a number above `after`, of them the newest `most`.
    ///
    /// # Errors
    /// As [`RegistryStore::load`].
    async fn commits(&self, project: &str, after: u64, most: usize) -> Result<Vec<CommitRecord>>;
}

/// What a series of commits did in the end: each object before the first and after the last of them.
pub fn net_revisions(commits: &[CommitRecord]) -> Vec<ObjectRevision> {
    let mut net: IndexMap<ObjectRef, ObjectRevision> = IndexMap::new();
    for revision in commits.iter().flat_map(|commit| &commit.revisions) {
        net.entry(revision.object.clone())
            .and_modify(|known| known.after.clone_from(&revision.after))
            .or_insert_with(|| revision.clone());
    }
    net.into_values().collect()
}
