//! The feature store as Python sees it.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use feast::{
    ApplyOptions, ApplyPlan, Definitions, Event, FeatureStore, MaterializeRequest, Observer, OnlineAnswer,
    OnlineRequest, PushTarget, RepoConfig, Window,
};
use feast_core::{
    Error, FeatureSelection, FeatureViewState, ObjectKind, ObjectRef, RegistryObject, Result, Shard, Wait,
};
use feast_offline::MaterializationTask;
use feast_server::{METRICS_PORT, PythonWorkers, RegistryServeOptions, ServeOptions, WorkerOptions};
use prost::Message;
use pyo3::prelude::*;
use pyo3::types::PyList;
use serde_json::Value;
use tokio::sync::oneshot;

use crate::adapters;
use crate::command_line::interpreter;
use crate::errors::IntoPyResult;
use crate::frames::{ArrowStream, read_batch, read_batches};
use crate::near_runtime::{self, TidyUp, wait_near};
use crate::online_features::{OnlineFeatures, given_rows};
use crate::retrieval_job::{EntityRows, RetrievalJob, instant, parse_options, time_limit};
use crate::runtime::{awaitable, runtime, wait, wait_long, watched};

/// One feature store: the parts of a `feature_store.yaml`.
#[pyclass(module = "feast._feast", frozen)]
pub(crate) struct Store {
    config: RepoConfig,
    /// The open store and the process that opened it: connections do not survive a fork.
    opened: Mutex<(u32, FeatureStore)>,
    /// Is dropped after it.
    _connections: TidyUp,
}

impl Store {
    /// The store of this process. Called with the interpreter held, so that no fork happens while the lock is.
    pub(crate) fn store(&self) -> Result<FeatureStore> {
        let (process, store) = self.opened.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if process == std::process::id() {
            return Ok(store);
        }
        // What the parent has opened is the parent's: nothing of it may be used or closed here.
        std::mem::forget(store);
        let fresh = adapters::open(self.config.clone())?;
        std::mem::forget(self.replace(fresh.clone()));
        Ok(fresh)
    }

    /// Makes this the store of this process, and returns the one before.
    fn replace(&self, store: FeatureStore) -> FeatureStore {
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *opened, (std::process::id(), store)).1
    }
}

#[pymethods]
impl Store {
    /// `interpolate`: whether `${NAME}` in the text means an environment variable, as it does in files.
    #[new]
    #[pyo3(signature = (config_yaml, repo_path, interpolate=true))]
    fn new(py: Python<'_>, config_yaml: &str, repo_path: &str, interpolate: bool) -> PyResult<Self> {
        let repo_path = std::path::Path::new(repo_path);
        let parse = if interpolate { RepoConfig::parse } else { RepoConfig::parse_literal };
        let config = parse(config_yaml, repo_path).py()?;
        let store = wait(py, async { adapters::open(config.clone()) })?;
        Ok(Self { config, opened: Mutex::new((std::process::id(), store)), _connections: TidyUp })
    }

    #[getter]
    fn project(&self) -> &str {
        &self.config.project
    }

    /// What in the configuration is worth telling the user.
    #[getter]
    fn warnings(&self) -> Vec<String> {
        self.config.warnings.clone()
    }

    fn config_json(&self) -> String {
        self.config.effective.to_string()
    }

    fn __repr__(&self) -> String {
        format!("Store(project={:?})", self.config.project)
    }

    // Registry.

    #[pyo3(signature = (kind, project=None, tags=None, refresh=false))]
    fn list_objects(
        &self,
        py: Python<'_>,
        kind: &str,
        project: Option<String>,
        tags: Option<std::collections::HashMap<String, String>>,
        refresh: bool,
    ) -> PyResult<Vec<Vec<u8>>> {
        let kind: ObjectKind = kind.parse().py()?;
        let store = self.store().py()?;
        let project = project.unwrap_or_else(|| store.project().to_owned());
        wait(py, async {
            let snapshot = store.snapshot(refresh).await?;
            let tagged = |object: &RegistryObject| {
                tags.iter().flatten().all(|(key, value)| object.tags().get(key) == Some(value))
            };
            if kind == ObjectKind::Project {
                let all = snapshot.projects.values().flat_map(|contents| contents.list(kind)).filter(tagged);
                return Ok(all.map(|object| feast_proto::encode_object(&object, "")).collect());
            }
            // A project that was never applied has no objects; asking for them is no error.
            let Some(contents) = snapshot.projects.get(&project) else { return Ok(Vec::new()) };
            let objects = contents.list(kind).into_iter().filter(tagged);
            Ok(objects.map(|object| feast_proto::encode_object(&object, &project)).collect())
        })
    }

    #[pyo3(signature = (kind, name, project=None, refresh=false))]
    fn get_object(
        &self,
        py: Python<'_>,
        kind: &str,
        name: &str,
        project: Option<String>,
        refresh: bool,
    ) -> PyResult<Vec<u8>> {
        let reference = ObjectRef::new(kind.parse().py()?, name);
        let store = self.store().py()?;
        let project = project.unwrap_or_else(|| store.project().to_owned());
        wait(py, async {
            let snapshot = store.snapshot(refresh).await?;
            if reference.kind == ObjectKind::Project {
                let object = snapshot.project(&reference.name)?.require(&reference)?;
                return Ok(feast_proto::encode_object(&object, ""));
            }
            match snapshot.projects.get(&project) {
                Some(contents) => Ok(feast_proto::encode_object(&contents.require(&reference)?, &project)),
                None => Err(reference.not_found(&project).with_hint("run `feast apply` first")),
            }
        })
    }

    fn registry_bytes(&self, py: Python<'_>) -> PyResult<Vec<u8>> {
        let store = self.store().py()?;
        wait(py, async { Ok(feast_proto::registry_from_snapshot(&*store.snapshot(true).await?, None).encode_to_vec()) })
    }

    /// The snapshots of a view's definition as JSON, oldest first.
    fn versions_json(&self, py: Python<'_>, feature_view: &str) -> PyResult<String> {
        let store = self.store().py()?;
        wait(py, async {
            let snapshot = store.snapshot(true).await?;
            let records = snapshot.versions.iter().filter(|record| record.is_of(store.project(), feature_view));
            let listed: Vec<Value> = records
                .map(|record| {
                    serde_json::json!({
                        "version": format!("v{}", record.version_number),
                        "version_number": record.version_number,
                        "feature_view_type": record.kind.identifier(),
                        "created_timestamp": record.created.map(|created| created.to_rfc3339()),
                        "version_id": record.version_id,
                    })
                })
                .collect();
            Ok(Value::Array(listed).to_string())
        })
    }

    /// The age of the newest values of all views, as JSON.
    fn freshness_json(&self, py: Python<'_>, quick: bool) -> PyResult<String> {
        let store = self.store().py()?;
        wait_long(py, async move {
            let views = store.freshness(quick).await?;
            serde_json::to_string(&views).map_err(|error| Error::internal("ages cannot be written").with_source(error))
        })
    }

    fn refresh_registry(&self, py: Python<'_>) -> PyResult<()> {
        let store = self.store().py()?;
        wait(py, async { store.registry().refresh().await.map(drop) })
    }

    fn plan(&self, py: Python<'_>, contents: &[u8], options_json: &str) -> PyResult<String> {
        let store = self.store().py()?;
        let (definitions, options) = parse_apply(contents, options_json, store.project()).py()?;
        wait_long(py, async move { report(&store.plan(&definitions, &options).await?) })
    }

    fn apply(&self, py: Python<'_>, contents: &[u8], options_json: &str) -> PyResult<()> {
        let store = self.store().py()?;
        let (definitions, options) = parse_apply(contents, options_json, store.project()).py()?;
        wait_long(py, async move { store.apply(&definitions, &options).await.map(drop) })
    }

    fn delete_object(&self, py: Python<'_>, kind: &str, name: &str) -> PyResult<()> {
        let reference = ObjectRef::new(kind.parse().py()?, name);
        let store = self.store().py()?;
        wait(py, async {
            match reference.kind {
                ObjectKind::Project => store.delete_project(&reference.name).await,
                _ => store.delete(&reference).await,
            }
        })
    }

    fn put_object(&self, py: Python<'_>, kind: &str, message: &[u8]) -> PyResult<()> {
        let object = feast_proto::decode_object(kind.parse().py()?, message).py()?;
        let store = self.store().py()?;
        wait(py, store.put(object))
    }

    /// Deletes a feature view, whatever its kind.
    fn delete_feature_view(&self, py: Python<'_>, name: &str) -> PyResult<()> {
        let store = self.store().py()?;
        wait(py, async {
            let view = store.contents(true).await?.feature_view(name)?.reference();
            store.delete(&view).await
        })
    }

    fn set_enabled(&self, py: Python<'_>, name: &str, enabled: bool) -> PyResult<()> {
        let store = self.store().py()?;
        wait(py, async { store.set_enabled(name, enabled).await.map(drop) })
    }

    /// Sets where a feature view stands; states are given by their names.
    fn set_state(&self, py: Python<'_>, name: &str, state: &str) -> PyResult<()> {
        let (store, state) = (self.store().py()?, state.parse::<FeatureViewState>().py()?);
        wait(py, async { store.set_state(name, state).await.map(drop) })
    }

    fn teardown(&self, py: Python<'_>) -> PyResult<()> {
        let store = self.store().py()?;
        wait(py, store.teardown())
    }

    // Offline.

    fn get_historical_features(
        slf: &Bound<'_, Self>,
        entity: &Bound<'_, PyAny>,
        selection: &Bound<'_, PyAny>,
        options_json: &str,
    ) -> PyResult<RetrievalJob> {
        let options = parse_options(options_json).py()?;
        let full_feature_names = options["full_feature_names"].as_bool().unwrap_or(false);
        let selection = parse_selection(selection)?;
        let store = slf.get().store().py()?;
        let (plan, _) = wait(slf.py(), store.resolve_historical(&selection, full_feature_names))?;
        let entity = if entity.is_none() {
            let time = |key: &str| options[key].as_i64().map(instant).transpose();
            EntityRows::Range { start: time("start").py()?, end: time("end").py()? }
        } else if let Ok(query) = entity.extract::<String>() {
            EntityRows::Sql(query)
        } else if let Ok(path) = entity.extract::<PathBuf>() {
            EntityRows::File(path)
        } else {
            let (schema, batches) = read_batches(entity)?;
            EntityRows::Batches(schema, batches)
        };
        Ok(RetrievalJob {
            store: slf.clone().unbind(),
            plan,
            selection,
            entity,
            full_feature_names,
            filter_by_created_timestamp: options["filter_by_created_timestamp"].as_bool().unwrap_or(false),
            as_of: options["as_of"].as_i64().map(instant).transpose().py()?,
        })
    }

    #[pyo3(signature = (start, end, options_json, progress=None))]
    fn materialize(
        &self,
        py: Python<'_>,
        start: Option<i64>,
        end: i64,
        options_json: &str,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<String> {
        let options = parse_options(options_json).py()?;
        let end = instant(end).py()?;
        let window = match start {
            _ if options["disable_event_timestamp"].as_bool() == Some(true) => Window::Everything,
            Some(start) => Window::Between(instant(start).py()?, end),
            None => Window::Until(end),
        };
        let shard = options["shard"].as_str().map_or(Ok(Shard::WHOLE), str::parse).py()?;
        let version = options["version"].as_str().map(str::to_owned);
        let request = MaterializeRequest { window, feature_views: names(&options["feature_views"]), shard, version };
        let mut store = self.store().py()?;
        if let Some(call) = progress {
            store = store.observed_by(Arc::new(PythonProgress(call)));
        }
        let wait = match options["run_async"].as_bool() == Some(true) {
            true => Wait::UntilAccepted { force: options["force"].as_bool() == Some(true) },
            false => Wait::UntilDone,
        };
        let report = wait_long(py, async move { store.materialize_and_wait(request, wait).await })?;
        serde_json::to_string(&report).map_err(|e| Error::internal("a report is not JSON").with_source(e)).py()
    }

    /// Loads a view with the engine of this process and records nothing: the way of engines that are written in Python.
    fn load(&self, py: Python<'_>, kind: &str, message: &[u8], start: i64, end: i64) -> PyResult<u64> {
        let store = self.store().py()?;
        let RegistryObject::FeatureView(view) = feast_proto::decode_object(kind.parse().py()?, message).py()? else {
            return Err(Error::invalid_request(format!("a {kind} is no feature view"))).py();
        };
        let (start, end) = (instant(start).py()?, instant(end).py()?);
        let task = MaterializationTask { project: store.project().to_owned(), view, start, end, shard: Shard::WHOLE };
        wait_long(py, async move { store.load(task).await })
    }

    fn write_to_offline_store(
        &self,
        py: Python<'_>,
        feature_view: String,
        frame: &Bound<'_, PyAny>,
        reorder_columns: bool,
    ) -> PyResult<u64> {
        // Columns are found by name; `reorder_columns` is Feast's switch for stores that cannot.
        let _ = reorder_columns;
        let rows = read_batch(frame)?;
        let store = self.store().py()?;
        wait_long(py, async move { store.write_to_offline_store(&feature_view, rows).await })
    }

    /// Adds rows to the log of a feature service, given as its message.
    fn write_logged_features(&self, py: Python<'_>, frame: &Bound<'_, PyAny>, service: &[u8]) -> PyResult<u64> {
        let RegistryObject::FeatureService(service) =
            feast_proto::decode_object(ObjectKind::FeatureService, service).py()?
        else {
            return Err(Error::internal("a feature service was decoded as something else")).py();
        };
        let rows = read_batch(frame)?;
        let store = self.store().py()?;
        wait_long(py, async move { store.write_logged_features(&service, rows).await })
    }

    /// The rows of a data source with an event time between two times.
    fn source_rows(&self, py: Python<'_>, source: &[u8], start: i64, end: i64) -> PyResult<ArrowStream> {
        let RegistryObject::DataSource(source) = feast_proto::decode_object(ObjectKind::DataSource, source).py()?
        else {
            return Err(Error::internal("a data source was decoded as something else")).py();
        };
        let (start, end) = (instant(start).py()?, instant(end).py()?);
        let store = self.store().py()?;
        let started = Instant::now();
        let rows = wait_long(py, async move { store.offline_store().rows(&source, start, end).await })?;
        ArrowStream::new(rows, None, started)
    }

    #[pyo3(signature = (storage, timeout=None))]
    fn read_storage(&self, py: Python<'_>, storage: &[u8], timeout: Option<f64>) -> PyResult<ArrowStream> {
        let timeout = time_limit(timeout);
        let storage = feast_proto::decode_storage(storage).py()?;
        let store = self.store().py()?;
        let started = Instant::now();
        let rows = wait_long(py, async move { store.offline_store().read_storage(&storage.0).await })?;
        ArrowStream::new(rows, timeout, started)
    }

    // Online.

    fn get_online_features(
        &self,
        py: Python<'_>,
        features: &Bound<'_, PyAny>,
        entities: &Bound<'_, PyAny>,
        options_json: &str,
    ) -> PyResult<OnlineFeatures> {
        let (store, request) = self.online_request(features, entities, options_json)?;
        let shared = runtime().py()?;
        let reading = near_runtime::read_stored(shared.handle(), &store, &request);
        let answer = match wait_near(py, reading)? {
            None => wait(py, store.answer_online(request))?,
            Some((_, Some(features))) => OnlineAnswer::Stored(features),
            Some((plan, None)) => {
                OnlineAnswer::Columns(wait(py, store.retrieve_online(&plan, &request.entity_rows, None))?)
            }
        };
        Ok(answer.into())
    }

    fn get_online_features_async<'py>(
        &self,
        py: Python<'py>,
        features: &Bound<'py, PyAny>,
        entities: &Bound<'py, PyAny>,
        options_json: &str,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (store, request) = self.online_request(features, entities, options_json)?;
        awaitable(py, async move { store.answer_online(request).await.map(OnlineFeatures::from) })
    }

    fn push(
        &self,
        py: Python<'_>,
        push_source: String,
        frame: &Bound<'_, PyAny>,
        to: &str,
        transform_on_write: bool,
    ) -> PyResult<()> {
        let (rows, target) = (read_batch(frame)?, to.parse::<PushTarget>().py()?);
        let store = self.store().py()?;
        wait_long(py, async move { store.push_rows(&push_source, &rows, target, transform_on_write).await })
    }

    fn push_async<'py>(
        &self,
        py: Python<'py>,
        push_source: String,
        frame: &Bound<'py, PyAny>,
        to: &str,
        transform_on_write: bool,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (rows, target) = (read_batch(frame)?, to.parse::<PushTarget>().py()?);
        let store = self.store().py()?;
        awaitable(py, async move { store.push_rows(&push_source, &rows, target, transform_on_write).await })
    }

    fn write_to_online_store(
        &self,
        py: Python<'_>,
        feature_view: String,
        frame: &Bound<'_, PyAny>,
        transform_on_write: bool,
    ) -> PyResult<()> {
        let rows = read_batch(frame)?;
        let store = self.store().py()?;
        wait_long(py, async move { store.write_to_online_store(&feature_view, &rows, transform_on_write).await })
    }

    fn write_to_online_store_async<'py>(
        &self,
        py: Python<'py>,
        feature_view: String,
        frame: &Bound<'py, PyAny>,
        transform_on_write: bool,
    ) -> PyResult<Bound<'py, PyAny>> {
        let rows = read_batch(frame)?;
        let store = self.store().py()?;
        awaitable(py, async move { store.write_to_online_store(&feature_view, &rows, transform_on_write).await })
    }

    /// Serves over HTTP until Ctrl-C; then answers the open requests, and only then raises.
    fn serve(&self, py: Python<'_>, options_json: &str) -> PyResult<()> {
        let store = self.store().py()?;
        let mut options = serve_options(&parse_options(options_json).py()?, store.config());
        options.traces = feast_cli::trace_options().py()?;
        let workers = WorkerOptions::configured(interpreter(), &self.config.transformations);
        let store = store.transformed_by(Arc::new(PythonWorkers::new(workers)));
        serve_until_interrupted(py, |stopped| feast_server::serve(store, options, |_| {}, stopped))
    }

    /// Runs functions for other servers until Ctrl-C; then answers the open requests, and only then raises.
    fn serve_transformations(&self, py: Python<'_>, host: String, port: u16) -> PyResult<()> {
        let store = self.store().py()?;
        let workers = WorkerOptions::configured(interpreter(), &self.config.transformations);
        let store = store.transformed_by(Arc::new(PythonWorkers::new(workers)));
        serve_until_interrupted(py, move |stopped| async move {
            feast_server::serve_transformations(store, &host, port, |_| {}, stopped).await
        })
    }

    /// Serves the registry until Ctrl-C, over gRPC or over REST; then answers the open requests, and only then raises.
    fn serve_registry(
        &self,
        py: Python<'_>,
        host: String,
        port: u16,
        tls_key_path: &str,
        tls_cert_path: &str,
        rest_api: bool,
    ) -> PyResult<()> {
        let store = self.store().py()?;
        let path = |text: &str| (!text.is_empty()).then(|| text.into());
        let options = RegistryServeOptions {
            grpc_port: (!rest_api).then_some(port),
            rest_host: host,
            rest_port: rest_api.then_some(port),
            tls_key_path: path(tls_key_path),
            tls_cert_path: path(tls_cert_path),
            ..RegistryServeOptions::default()
        };
        serve_until_interrupted(py, move |stopped| async move {
            feast_server::serve_registry(store, options, |_| {}, stopped).await
        })
    }

    /// Closes all connections; the next call opens them again.
    fn close(&self) -> PyResult<()> {
        let fresh = adapters::open(self.config.clone()).py()?;
        drop(self.replace(fresh));
        near_runtime::tidy_up();
        Ok(())
    }
}

impl Store {
    fn online_request(
        &self,
        features: &Bound<'_, PyAny>,
        entities: &Bound<'_, PyAny>,
        options_json: &str,
    ) -> PyResult<(FeatureStore, OnlineRequest)> {
        let options = parse_options(options_json).py()?;
        let request = OnlineRequest {
            selection: online_selection(features)?,
            entity_rows: given_rows(entities)?,
            full_feature_names: options["full_feature_names"].as_bool().unwrap_or(false),
        };
        Ok((self.store().py()?, request))
    }
}

/// Serves until Ctrl-C; `serve` ends when what it is given does.
fn serve_until_interrupted<F>(py: Python<'_>, serve: impl FnOnce(oneshot::Receiver<()>) -> F) -> PyResult<()>
where
    F: Future<Output = Result<()>> + Send + 'static,
{
    let runtime = runtime().py()?;
    let (stop, stopped) = oneshot::channel::<()>();
    let mut server = runtime.spawn(serve(stopped));
    let interrupted = match watched(py, &runtime, &mut server) {
        Ok(served) => {
            return served.map_err(|error| Error::internal("the server stopped").with_source(error)).py()?.py();
        }
        Err(interrupted) => interrupted,
    };
    drop(stop);
    // A second Ctrl-C does not wait for anybody.
    if watched(py, &runtime, &mut server).is_err() {
        server.abort();
    }
    Err(interrupted)
}

/// Feast's arguments of `serve`; what is not given keeps its default.
fn serve_options(given: &Value, config: &RepoConfig) -> ServeOptions {
    let mut options = ServeOptions::configured(config);
    let path = |key: &str| given[key].as_str().filter(|path| !path.is_empty()).map(PathBuf::from);
    let number = |key: &str| given[key].as_u64();
    if let Some(host) = given["host"].as_str() {
        host.clone_into(&mut options.host);
    }
    if let Some(port) = number("port").and_then(|port| u16::try_from(port).ok()) {
        options.port = port;
    }
    if let Some(seconds) = number("keep_alive_timeout") {
        options.keep_alive_timeout = Duration::from_secs(seconds);
    }
    if let Some(seconds) = number("registry_ttl_sec") {
        options.registry_ttl_sec = seconds;
    }
    if let Some(silent) = given["no_access_log"].as_bool() {
        options.access_log = !silent;
    }
    if given["metrics"] == true {
        options.metrics_port = Some(METRICS_PORT);
    }
    options.tls_key_path = path("tls_key_path");
    options.tls_cert_path = path("tls_cert_path");
    options
}

/// Tells a Python callable what happens, as JSON.
#[derive(Debug)]
struct PythonProgress(Py<PyAny>);

impl Observer for PythonProgress {
    fn on(&self, event: &Event) {
        let text = match event {
            Event::MaterializationStarted { view, start, end } => {
                serde_json::json!({"event": "started", "feature_view": view, "start": start, "end": end})
            }
            Event::RowsWritten { view, rows, total } => {
                serde_json::json!({"event": "rows", "feature_view": view, "rows": rows, "total": total})
            }
            Event::MaterializationFinished { view, rows } => {
                serde_json::json!({"event": "finished", "feature_view": view, "rows": rows})
            }
            Event::MaterializationSkipped { view, reason } => {
                serde_json::json!({"event": "skipped", "feature_view": view, "reason": reason})
            }
            _ => return,
        };
        Python::attach(|py| {
            if let Err(error) = self.0.call1(py, (text.to_string(),)) {
                // Watching must not fail the work.
                tracing::debug!(%error, "a progress callback failed");
            }
        });
    }
}

/// What the caller asks for: nearly always a list of texts; Python knows what else it may be.
fn online_selection(features: &Bound<'_, PyAny>) -> PyResult<FeatureSelection> {
    if features.is_exact_instance_of::<PyList>()
        && let Ok(references) = features.extract::<Vec<String>>()
    {
        return Ok(FeatureSelection::References(references));
    }
    parse_selection(&features.py().import("feast._store.selection")?.call_method1("selection", (features,))?)
}

/// Feature references, or the message of a feature service.
fn parse_selection(selection: &Bound<'_, PyAny>) -> PyResult<FeatureSelection> {
    if let Ok(message) = selection.cast::<pyo3::types::PyBytes>() {
        return match feast_proto::decode_object(ObjectKind::FeatureService, message.as_bytes()).py()? {
            RegistryObject::FeatureService(service) => Ok(FeatureSelection::Service(service)),
            _ => Err(Error::internal("a feature service was decoded as something else")).py(),
        };
    }
    Ok(FeatureSelection::References(selection.extract::<Vec<String>>().map_err(|_| {
        crate::errors::to_python(
            &Error::invalid_request("`features` is neither a list of feature references nor a feature service")
                .with_hint("write `features=[\"view:feature\", ...]` or `features=store.get_feature_service(name)`"),
        )
    })?))
}

fn parse_apply(contents: &[u8], options_json: &str, project: &str) -> Result<(Definitions, ApplyOptions)> {
    let options = parse_options(options_json)?;
    let mut definitions = Definitions::from_message(contents, project)?;
    if let Some(locations) = options["locations"].as_object() {
        let known = locations.iter().filter_map(|(object, place)| Some((object.clone(), place.as_str()?.to_owned())));
        definitions.locations = known.collect();
    }
    let delete = options["delete"].as_array().into_iter().flatten();
    let delete: Result<Vec<ObjectRef>> = delete
        .map(|entry| {
            let (kind, name) = (entry[0].as_str().unwrap_or_default(), entry[1].as_str().unwrap_or_default());
            Ok(ObjectRef::new(kind.parse()?, name))
        })
        .collect();
    let flag = |name: &str| options[name].as_bool().unwrap_or(false);
    let apply = ApplyOptions {
        prune: flag("prune"),
        delete: delete?,
        skip_source_validation: flag("skip_source_validation"),
        skip_feature_view_validation: flag("skip_feature_view_validation"),
        no_promote: flag("no_promote"),
        ..ApplyOptions::default()
    };
    Ok((definitions, apply))
}

fn report(plan: &ApplyPlan) -> Result<String> {
    serde_json::to_string(plan).map_err(|error| Error::internal("a plan is not JSON").with_source(error))
}

fn names(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(|name| name.as_str().map(str::to_owned)).collect()
}
