//! The parts of a feature store, put together from its configuration.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use feast_core::{
    BatchFunctions, Error, FeatureView, OnlineRead, OnlineRows, OnlineStore, OnlineTable, OnlineWrite, ProjectContents,
    RegistrySnapshot, Result, TableChange, Transformer,
};
use feast_offline::{ComputeEngine, LocalEngine, MaterializationTask, Materialized, OfflineStore};
use feast_registry::{RegistryHandle, RegistrySettings};

use crate::transformations::Transformations;
use crate::{Observer, RepoConfig, Silent};

/// A feature store: one project, its registry and its stores. Clones share everything.
#[derive(Clone)]
pub struct FeatureStore {
    pub(crate) config: Arc<RepoConfig>,
    pub(crate) registry: RegistryHandle,
    pub(crate) online: Option<Arc<dyn OnlineStore>>,
    pub(crate) offline: Arc<OfflineStore>,
    /// What computes the rows of materializations, where that is not `local`.
    own_engine: Option<Arc<dyn ComputeEngine>>,
    pub(crate) local: Arc<LocalEngine>,
    pub(crate) transformer: Arc<Transformations>,
    pub(crate) observer: Arc<dyn Observer>,
}

impl fmt::Debug for FeatureStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FeatureStore").field("config", &self.config).finish_non_exhaustive()
    }
}

/// Puts a feature store together from a configuration and parts of the caller's own.
#[derive(Debug)]
pub struct FeatureStoreBuilder {
    config: RepoConfig,
    online: Option<Arc<dyn OnlineStore>>,
    engine: Option<Arc<dyn ComputeEngine>>,
    functions: Option<Arc<dyn BatchFunctions>>,
    transformer: Option<Arc<dyn Transformer>>,
    observer: Arc<dyn Observer>,
}

impl FeatureStoreBuilder {
    /// Uses this online store instead of the configured one.
    #[must_use]
    pub fn online_store(mut self, store: Arc<dyn OnlineStore>) -> Self {
        self.online = Some(store);
        self
    }

    /// Computes what is materialized with this engine instead of the configured one.
    #[must_use]
    pub fn compute_engine(mut self, engine: Arc<dyn ComputeEngine>) -> Self {
        self.engine = Some(engine);
        self
    }

    /// Runs the functions of batch views with this.
    #[must_use]
    pub fn batch_functions(mut self, functions: Arc<dyn BatchFunctions>) -> Self {
        self.functions = Some(functions);
        self
    }

    /// Computes on-demand views with this.
    #[must_use]
    pub fn transformer(mut self, transformer: Arc<dyn Transformer>) -> Self {
        self.transformer = Some(transformer);
        self
    }

    /// Tells this what happens.
    #[must_use]
    pub fn observer(mut self, observer: Arc<dyn Observer>) -> Self {
        self.observer = observer;
        self
    }

    /// Connects the parts. Nothing is read or written yet.
    ///
    /// # Errors
    /// Unknown or wrongly configured stores.
    pub fn open(self) -> Result<FeatureStore> {
        let config = self.config;
        let settings = RegistrySettings {
            path: &config.registry.path,
            options: &config.registry.options,
            repo_path: &config.repo_path,
            author: &config.author,
        };
        let registry_store = feast_registry::connect(&config.registry.registry_type, &settings)?;
        let online = match (self.online, &config.online_store) {
            (Some(store), _) => Some(store),
            (None, Some((name, _))) if config.python_online_store().is_some() => {
                Some(Arc::new(PythonStoreMissing(name.clone())) as _)
            }
            (None, Some((name, options))) => Some(feast_online::connect(name, options, &config.repo_path)?),
            (None, None) => None,
        };
        let versions_have_tables = config.registry.versions_have_tables
            && online.as_ref().is_none_or(|online| online.has_tables_of_versions());
        let offline = Arc::new(OfflineStore::connect(&config.effective["offline_store"], &config.repo_path)?);
        let local = Arc::new(LocalEngine::new(Arc::clone(&offline), self.functions));
        let missing = || Arc::new(PythonEngineMissing(config.batch_engine.0.clone())) as _;
        let own_engine = self.engine.or_else(|| config.has_python_engine().then(missing));
        Ok(FeatureStore {
            registry: RegistryHandle::with_versions(registry_store, poll_interval(&config), versions_have_tables),
            online,
            offline,
            own_engine,
            local,
            transformer: Transformations::new(self.transformer),
            observer: self.observer,
            config: Arc::new(config),
        })
    }
}

/// How often the registry is asked whether it changed. A local file tells at the price of one look at its metadata,
/// so a commit of another process is seen within a second, as in Feast.
fn poll_interval(config: &RepoConfig) -> Option<Duration> {
    let local = config.registry.registry_type == "file" && !config.registry.path.contains("://");
    if local { Some(Duration::from_secs(1)) } else { config.registry.cache_ttl }
}

/// Stands where the configuration names a class of Python and this process has no Python. Everything but
/// materializing works without it.
#[derive(Debug)]
struct PythonEngineMissing(String);

impl fmt::Display for PythonEngineMissing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[async_trait]
impl ComputeEngine for PythonEngineMissing {
    async fn materialize(&self, _: MaterializationTask) -> Result<Materialized> {
        Err(Error::unsupported(format!("the batch engine `{self}` is a Python class, which this program cannot run"))
            .with_hint("use the `feast` command of the Python package, or set `batch_engine: local`"))
    }
}

/// Stands where the configuration names a class of Python as online store and this process has no Python. What needs
/// no online store works without it.
#[derive(Debug)]
struct PythonStoreMissing(String);

impl fmt::Display for PythonStoreMissing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl PythonStoreMissing {
    fn error(&self) -> Error {
        Error::unsupported(format!("the online store `{self}` is a Python class, which this program cannot run"))
            .with_hint("use the `feast` command of the Python package, or another `online_store`")
    }
}

#[async_trait]
impl OnlineStore for PythonStoreMissing {
    async fn read(&self, _: &[OnlineRead<'_>]) -> Result<Vec<OnlineRows>> {
        Err(self.error())
    }

    async fn write(&self, _: OnlineWrite<'_>) -> Result<()> {
        Err(self.error())
    }

    async fn update(&self, _: &[TableChange]) -> Result<()> {
        Err(self.error())
    }

    async fn check(&self) -> Result<()> {
        Err(self.error())
    }

    fn has_tables_of_versions(&self) -> bool {
        false
    }

    fn preferred_batch_rows(&self) -> usize {
        1
    }
}

impl FeatureStore {
    /// A store with the configured parts only.
    ///
    /// # Errors
    /// As [`FeatureStoreBuilder::open`].
    pub fn open(config: RepoConfig) -> Result<Self> {
        Self::builder(config).open()
    }

    /// A store with parts of the caller's own.
    pub fn builder(config: RepoConfig) -> FeatureStoreBuilder {
        FeatureStoreBuilder {
            config,
            online: None,
            engine: None,
            functions: None,
            transformer: None,
            observer: Arc::new(Silent),
        }
    }

    /// The same store, telling another observer.
    #[must_use]
    pub fn observed_by(&self, observer: Arc<dyn Observer>) -> Self {
        Self { observer, ..self.clone() }
    }

    /// The same feature store for another project of its registry.
    #[must_use]
    pub fn of_project(&self, project: &str) -> Self {
        let config = RepoConfig { project: project.to_owned(), ..RepoConfig::clone(&self.config) };
        Self { config: Arc::new(config), ..self.clone() }
    }

    /// The same feature store, its offline store with a memory limit such as `512MiB`.
    ///
    /// # Errors
    /// `InvalidConfiguration` for a text that is no size.
    pub fn with_memory_limit(&self, limit: &str) -> Result<Self> {
        let offline = Arc::new(OfflineStore::clone(&self.offline).with_memory_limit(limit)?);
        let local = Arc::new(self.local.on(Arc::clone(&offline)));
        Ok(Self { offline, local, ..self.clone() })
    }

    /// What computes the rows of materializations.
    pub(crate) fn engine(&self) -> &dyn ComputeEngine {
        self.own_engine.as_deref().unwrap_or(self.local.as_ref())
    }

    /// The same store, running users' functions elsewhere.
    #[must_use]
    pub fn transformed_by(&self, transformer: Arc<dyn Transformer>) -> Self {
        Self { transformer: Transformations::new(Some(transformer)), ..self.clone() }
    }

    /// The configuration.
    pub fn config(&self) -> &RepoConfig {
        &self.config
    }

    /// Name of the project.
    pub fn project(&self) -> &str {
        &self.config.project
    }

    /// The cached registry.
    pub fn registry(&self) -> &RegistryHandle {
        &self.registry
    }

    /// The offline store.
    pub fn offline_store(&self) -> &OfflineStore {
        &self.offline
    }

    /// The table of the online store with the rows of a view, as the registry has it.
    pub(crate) fn online_table(&self, view: &FeatureView) -> OnlineTable {
        let table = OnlineTable::of(self.project(), view);
        match self.registry.versions_have_tables() {
            true => table.in_version(view.meta.current_version_number),
            false => table,
        }
    }

    /// The online store.
    ///
    /// # Errors
    /// `Unsupported` when the configuration has none.
    pub fn online_store(&self) -> Result<&Arc<dyn OnlineStore>> {
        self.online.as_ref().ok_or_else(|| {
            Error::unsupported("this feature store has no online store")
                .with_hint("configure one with `online_store:` in feature_store.yaml")
        })
    }

    /// The snapshot to answer from: the cached one, refreshed first when `refresh` is set.
    ///
    /// # Errors
    /// Those of reading the registry.
    pub async fn snapshot(&self, refresh: bool) -> Result<Arc<RegistrySnapshot>> {
        if refresh { self.registry.refresh().await } else { self.registry.snapshot().await }
    }

    /// The objects of this store's project.
    ///
    /// # Errors
    /// `ProjectNotFound` before the first `apply`, and those of reading the registry.
    pub async fn contents(&self, refresh: bool) -> Result<Arc<ProjectContents>> {
        let snapshot = self.snapshot(refresh).await?;
        self.project_of(&snapshot).map(Arc::clone)
    }

    pub(crate) fn project_of<'a>(&self, snapshot: &'a RegistrySnapshot) -> Result<&'a Arc<ProjectContents>> {
        snapshot
            .project(self.project())
            .map_err(|error| error.with_hint("run `feast apply` in the feature repository first"))
    }
}
