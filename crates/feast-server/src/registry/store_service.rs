//! The service by which our own clients use the server as if it were the store behind it: a commit is one call, on top
//! of a version, or it is refused; and who knows one of the last states is told what changed since.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use feast_core::{Error, RegistrySnapshot, RegistryVersion};
use feast_proto::loaded_message;
use feast_proto::registry_store::{
    Commit, HistoryRequest, LoadRequest, REGISTRY_STORE_SERVICE, Version, commit_from_message, history_message,
};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http;
use tonic::server::NamedService;
use tower::Service;

use super::Registry;
use super::service::{Answer, unary};

/// How many states are remembered for clients that know them. They share the objects that did not change between them.
const KEPT_STATES: usize = 16;

/// The service.
#[derive(Debug, Clone)]
pub(super) struct StoreService {
    registry: Registry,
    told: Arc<Told>,
}

impl StoreService {
    pub(super) fn new(registry: Registry) -> Self {
        Self { registry, told: Arc::default() }
    }
}

/// The last states that clients were told, oldest first.
#[derive(Debug, Default)]
struct Told(Mutex<VecDeque<Arc<RegistrySnapshot>>>);

impl Told {
    /// The state with a version, if it is remembered.
    fn find(&self, version: Option<&str>) -> Option<Arc<RegistrySnapshot>> {
        let states = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_it = |state: &&Arc<RegistrySnapshot>| state.version.as_ref().map(|known| known.0.as_str()) == version;
        states.iter().find(is_it).filter(|_| version.is_some()).cloned()
    }

    fn remember(&self, state: Arc<RegistrySnapshot>) {
        let mut states = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if states.iter().any(|known| known.version == state.version) {
            return;
        }
        if states.len() == KEPT_STATES {
            states.pop_front();
        }
        states.push_back(state);
    }
}

impl NamedService for StoreService {
    const NAME: &'static str = REGISTRY_STORE_SERVICE;
}

impl Service<http::Request<Body>> for StoreService {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Answer<std::result::Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<std::result::Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let answer = answer(self.clone(), request);
        Box::pin(async move { Ok(answer.await) })
    }
}

fn answer(service: StoreService, request: http::Request<Body>) -> Answer<http::Response<Body>> {
    let StoreService { registry, told } = service;
    let text = |version: Option<RegistryVersion>| version.map(|version| version.0);
    let method = request.uri().path().rsplit('/').next().unwrap_or_default().to_owned();
    match method.as_str() {
        "Version" => unary(request, move |_: ()| {
            let registry = registry.clone();
            async move { Ok(Version { version: text(registry.snapshot(false).await?.version.clone()) }) }
        }),
        "Load" => unary(request, move |asked: LoadRequest| {
            let (registry, told) = (registry.clone(), Arc::clone(&told));
            async move {
                let snapshot = registry.snapshot(false).await?;
                let message = loaded_message(told.find(asked.known.as_deref()).as_deref(), &snapshot);
                told.remember(snapshot);
                Ok(message)
            }
        }),
        "Commit" => unary(request, move |commit: Commit| {
            let registry = registry.clone();
            async move {
                let (base, changes) = commit_from_message(commit)?;
                let version = registry.store.registry().commit(base.as_ref(), &changes).await?;
                tracing::info!(project = changes.project, changes = changes.changes.len(), %version, "committed");
                Ok(Version { version: Some(version.0) })
            }
        }),
        "Teardown" => unary(request, move |_: ()| {
            let registry = registry.clone();
            async move {
                registry.store.registry().teardown().await?;
                tracing::info!("the registry was torn down");
                Ok(())
            }
        }),
        "History" => unary(request, move |asked: HistoryRequest| {
            let registry = registry.clone();
            async move {
                let store = registry.store.registry().store();
                let history = store.history().ok_or_else(|| Error::unsupported(format!("{store} keeps no history")))?;
                let most = usize::try_from(asked.most).unwrap_or(usize::MAX);
                Ok(history_message(&history.commits(&asked.project, asked.after, most).await?))
            }
        }),
        _ => {
            let status = Status::unimplemented(format!("{REGISTRY_STORE_SERVICE} has no method `{method}`"));
            Box::pin(async move { status.into_http() })
        }
    }
}
