//! Parts of a feature store that are written in Python: a team's own compute engine, and the functions of batch views.
//! A team's own online store is in `own_online_store.rs`.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use feast::{FeatureStore, RepoConfig};
use feast_core::{BatchFunctions, Error, ErrorCode, FeatureView, RegistryObject, Result, Rows, Shard};
use feast_offline::{ComputeEngine, MaterializationTask, Materialized};
use pyo3::exceptions::PyKeyboardInterrupt;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::frames::{read_batches, rows_to_python};
use crate::own_online_store::PythonOnlineStore;
use crate::transform::InProcessPython;

/// Opens a feature store with the parts that only Python has.
pub(crate) fn open(config: RepoConfig) -> Result<FeatureStore> {
    let engine = config.has_python_engine().then(|| Arc::new(PythonEngine::new(&config)));
    let online = config.python_online_store().map(|path| PythonOnlineStore::new(path, &config)).transpose()?;
    let builder = FeatureStore::builder(config).batch_functions(Arc::new(PythonFunctions));
    let builder = match online {
        Some(store) => builder.online_store(Arc::new(store)),
        None => builder,
    };
    let builder = match engine {
        Some(engine) => builder.compute_engine(engine),
        None => builder,
    };
    Ok(builder.open()?.transformed_by(Arc::new(InProcessPython::default())))
}

/// A compute engine that a team wrote against Feast's base class. It is made when it is first used.
struct PythonEngine(Arc<Class>);

/// A class that a configuration names, and the one object of ours that makes it and calls it.
pub(crate) struct Class {
    /// The module and the class of ours.
    caller: (&'static str, &'static str),
    path: String,
    configuration: String,
    repo_path: String,
    made: Mutex<Option<Py<PyAny>>>,
}

impl PythonEngine {
    fn new(config: &RepoConfig) -> Self {
        Self(Arc::new(Class::new("feast._compute_engine", "Engine", &config.batch_engine.0, config)))
    }
}

impl Class {
    /// The class at `path`, called by the class `name` of the module `module` of ours.
    pub(crate) fn new(module: &'static str, name: &'static str, path: &str, config: &RepoConfig) -> Self {
        Self {
            caller: (module, name),
            path: path.to_owned(),
            configuration: config.effective.to_string(),
            repo_path: config.repo_path.display().to_string(),
            made: Mutex::default(),
        }
    }

    /// The path by which the configuration names it.
    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    /// What calls it; made when it is first asked for.
    pub(crate) fn instance(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        if let Some(made) = &*self.made.lock().unwrap_or_else(PoisonError::into_inner) {
            return Ok(made.clone_ref(py));
        }
        let (module, name) = self.caller;
        let module = py.import(module)?;
        let made = module.call_method1(name, (&self.path, &self.configuration, &self.repo_path))?.unbind();
        *self.made.lock().unwrap_or_else(PoisonError::into_inner) = Some(made.clone_ref(py));
        Ok(made)
    }
}

/// The configuration may hold secrets.
impl fmt::Debug for PythonEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PythonEngine").field("class", &self.0.path).finish_non_exhaustive()
    }
}

impl fmt::Display for PythonEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.path)
    }
}

#[async_trait]
impl ComputeEngine for PythonEngine {
    async fn materialize(&self, task: MaterializationTask) -> Result<Materialized> {
        if task.shard != Shard::WHOLE {
            return Err(Error::unsupported(format!(
                "the batch engine `{self}` writes all entity keys by itself and cannot work on shard {}",
                task.shard
            ))
            .with_hint("leave the shard out, or set `batch_engine: local`"));
        }
        let class = Arc::clone(&self.0);
        let work = move || {
            Python::attach(|py| {
                let engine = class.instance(py)?;
                let (kind, message) = message(py, &task.view, &task.project);
                let (start, end) = (task.start.timestamp_micros(), task.end.timestamp_micros());
                let done = engine.bind(py).call_method1("materialize", (task.project, kind, message, start, end))?;
                done.extract::<Option<u64>>()
            })
        };
        let rows = in_thread(work).await?.map_err(|error| {
            told(error, ErrorCode::InvalidDefinition, format!("the batch engine `{self}` failed"))
                .with_hint("the engine is code of your own: correct it, or the line in feature_store.yaml")
        })?;
        Ok(Materialized::Written { rows })
    }
}

/// Runs the functions of batch views in this interpreter.
#[derive(Debug)]
struct PythonFunctions;

#[async_trait]
impl BatchFunctions for PythonFunctions {
    async fn query(&self, view: &FeatureView, inputs: &[String]) -> Result<String> {
        let (view, inputs) = (view.clone(), inputs.to_vec());
        let name = view.name.clone();
        let work = move || {
            Python::attach(|py| {
                let (kind, message) = message(py, &view, &view.project);
                let module = py.import("feast._batch_functions")?;
                module.call_method1("query", (kind, message, inputs))?.extract::<String>()
            })
        };
        in_thread(work).await?.map_err(|error| function_failed(&name, error))
    }

    async fn rows(&self, view: &FeatureView, inputs: Vec<Rows>) -> Result<Rows> {
        let view = view.clone();
        let name = view.name.clone();
        let work = move || {
            Python::attach(|py| {
                let (kind, message) = message(py, &view, &view.project);
                let inputs = inputs.into_iter().map(|(schema, batches)| rows_to_python(py, schema, batches));
                let inputs = inputs.collect::<PyResult<Vec<_>>>()?;
                let module = py.import("feast._batch_functions")?;
                read_batches(&module.call_method1("rows", (kind, message, inputs))?)
            })
        };
        in_thread(work).await?.map_err(|error| function_failed(&name, error))
    }
}

/// Kind and message of a view, as Python reads it.
fn message<'py>(py: Python<'py>, view: &FeatureView, project: &str) -> (&'static str, Bound<'py, PyBytes>) {
    let object = RegistryObject::FeatureView(Arc::new(view.clone()));
    let bytes = feast_proto::encode_object(&object, project);
    (view.object_kind().identifier(), PyBytes::new(py, &bytes))
}

/// Python may take its time: it gets a thread that may block.
pub(crate) async fn in_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| Error::internal("a call into Python panicked").with_source(error))
}

fn function_failed(view: &str, error: PyErr) -> Error {
    told(error, ErrorCode::InvalidDefinition, format!("the function of feature view `{view}` failed"))
        .with_hint("the function is code of the feature repository: correct it there and run `feast apply`")
}

/// An exception as an error, in one line.
pub(crate) fn told(error: PyErr, code: ErrorCode, message: String) -> Error {
    Python::attach(|py| {
        let code = if error.is_instance_of::<PyKeyboardInterrupt>(py) { ErrorCode::Unavailable } else { code };
        let class = error.get_type(py).name().map_or_else(|_| "exception".to_owned(), |name| name.to_string());
        let text = error.value(py).to_string();
        let text = text.lines().next().unwrap_or_default();
        let reason = if text.is_empty() { class } else { format!("{class}: {text}") };
        Error::new(code, message).with_source(reason)
    })
}
