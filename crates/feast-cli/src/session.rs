//! What every command shares: where the repository is, how definitions are loaded, and the runtime. Everything is made
//! when it is first needed, so that `feast --help` needs nothing.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use feast::{Definitions, FeatureStore, RepoConfig};
use feast_core::{Error, ErrorCode, Result, Transformer};
use feast_server::{PythonWorkers, TransformationClient, WorkerOptions};
use tokio::runtime::Runtime;

use crate::arguments::GlobalOptions;
use crate::exit::Failure;
use crate::loader::DefinitionLoader;
use crate::terminal::Terminal;

/// One run of the command line.
#[derive(Debug)]
pub(crate) struct Session {
    terminal: Terminal,
    /// Where definitions and relative paths are.
    repo_path: PathBuf,
    /// The configuration, when it is not the `feature_store.yaml` of the repository.
    config_file: Option<PathBuf>,
    loader: Arc<dyn DefinitionLoader>,
    runtime: OnceLock<Runtime>,
    /// The stores that were opened.
    stores: Mutex<Vec<FeatureStore>>,
}

impl Session {
    pub(crate) fn new(options: &GlobalOptions, terminal: Terminal, loader: Arc<dyn DefinitionLoader>) -> Self {
        let absolute = |path: PathBuf| std::path::absolute(&path).unwrap_or(path);
        // Containers set variables to nothing when they mean that there is none.
        let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let chdir = options.chdir.clone().or_else(|| variable("FEATURE_REPO_DIR_ENV_VAR"));
        let config_file = options.feature_store_yaml.clone().or_else(|| variable("FEAST_FS_YAML_FILE_PATH"));
        Self {
            terminal,
            repo_path: absolute(chdir.unwrap_or_else(|| PathBuf::from("."))),
            config_file: config_file.map(absolute),
            loader,
            runtime: OnceLock::new(),
            stores: Mutex::default(),
        }
    }

    pub(crate) fn terminal(&self) -> &Terminal {
        &self.terminal
    }

    /// The folder the command works in.
    pub(crate) fn repo_path(&self) -> &Path {
        &self.repo_path
    }

    /// Reads the configuration and passes on what it warns of.
    pub(crate) fn config(&self) -> Result<RepoConfig> {
        if !self.repo_path.is_dir() {
            return Err(Error::new(
                ErrorCode::FileNotFound,
                format!("there is no directory `{}`", self.repo_path.display()),
            )
            .with_hint("name a feature repository with `--chdir`"));
        }
        let config = RepoConfig::load(&self.repo_path, self.config_file.as_deref())?;
        for warning in &config.warnings {
            self.terminal.warn(warning);
        }
        Ok(config)
    }

    /// The configuration as it is written.
    pub(crate) fn config_text(&self) -> Result<String> {
        let path = self.config_file.clone().unwrap_or_else(|| self.repo_path.join(feast::CONFIG_FILE));
        std::fs::read_to_string(&path).map_err(|error| {
            Error::new(ErrorCode::FileNotFound, format!("the configuration `{}` cannot be read", path.display()))
                .with_hint("run `feast` inside a feature repository, or name one with `--chdir`")
                .with_source(error)
        })
    }

    /// Opens the feature store.
    pub(crate) fn store(&self) -> Result<FeatureStore> {
        let config = self.config()?;
        // Some stores start tasks when they are opened.
        let _runtime = self.runtime()?.enter();
        let transformer = match self.loader.transformer() {
            Some(transformer) => transformer,
            None => self.transformer_of_servers(&config, None)?,
        };
        let store = self.loader.open(config)?.transformed_by(transformer);
        self.stores.lock().unwrap_or_else(PoisonError::into_inner).push(store.clone());
        Ok(store)
    }

    /// Opens the feature store for definitions to come: their functions are tried by the Python that loads them. A
    /// transformation server knows only those that are applied.
    pub(crate) fn store_of_definitions(&self) -> Result<FeatureStore> {
        let store = self.store()?;
        match self.loader.transformer() {
            Some(_) => Ok(store),
            None => {
                let workers = self.python_workers(store.config(), Some(1))?;
                Ok(store.transformed_by(workers))
            }
        }
    }

    /// What runs users' functions for servers, and where there is no Python in this process: processes of Python, so
    /// many as given or configured, which start when they are first needed; or a transformation server, where one is
    /// configured and nobody named an interpreter.
    pub(crate) fn transformer_of_servers(
        &self,
        config: &RepoConfig,
        number: Option<usize>,
    ) -> Result<Arc<dyn Transformer>> {
        let mut options = WorkerOptions::configured(self.loader.python(), &config.transformations);
        if let Some(endpoint) = config.transformation_service_endpoint().filter(|_| !self.loader.has_python()) {
            let _runtime = self.runtime()?.enter();
            return Ok(Arc::new(TransformationClient::new(endpoint, options.timeout)?));
        }
        options.workers = number.unwrap_or(options.workers);
        Ok(Arc::new(PythonWorkers::new(options)))
    }

    /// The same, but never another server: for the one that others ask, and for functions that are not applied yet.
    pub(crate) fn python_workers(&self, config: &RepoConfig, number: Option<usize>) -> Result<Arc<dyn Transformer>> {
        let mut options = WorkerOptions::configured(self.loader.python(), &config.transformations);
        options.workers = number.unwrap_or(options.workers);
        Ok(Arc::new(PythonWorkers::new(options)))
    }

    /// Loads the definitions of the repository.
    pub(crate) fn definitions(&self, project: &str) -> Result<Definitions> {
        self.loader.load(&self.repo_path, project)?.into_definitions(project)
    }

    /// Waits for work to end, or for Ctrl-C.
    pub(crate) fn wait<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T, Failure> {
        self.runtime()?.block_on(async {
            tokio::select! {
                done = work => done.map_err(Failure::from),
                Ok(()) = tokio::signal::ctrl_c() => Err(Failure::Interrupted),
            }
        })
    }

    /// Runs work that ends by its own rules, such as a server.
    pub(crate) fn run_to_end<T>(&self, work: impl Future<Output = T>) -> Result<T> {
        Ok(self.runtime()?.block_on(work))
    }

    fn runtime(&self) -> Result<&Runtime> {
        if self.runtime.get().is_none() {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .enable_all()
                .build()
                .map_err(|error| Error::internal("the runtime does not start").with_source(error))?;
            let _ = self.runtime.set(runtime);
        }
        self.runtime.get().ok_or_else(|| Error::internal("the runtime does not start"))
    }
}

/// Neither work that was given up nor taking apart thousands of definitions, one by one, must keep the command from
/// ending: the process ends with it.
impl Drop for Session {
    fn drop(&mut self) {
        let Some(runtime) = self.runtime.take() else { return };
        let entered = runtime.enter();
        for store in self.stores.get_mut().unwrap_or_else(PoisonError::into_inner).drain(..) {
            std::mem::forget(store.registry().known());
        }
        drop(entered);
        runtime.shutdown_background();
    }
}
