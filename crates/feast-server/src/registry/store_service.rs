//! The service by which our own clients use the server as if it were the store behind it: a commit is one call, on top
//! of a version, or it is refused.

use std::convert::Infallible;
use std::task::{Context, Poll};

use feast_core::{Error, RegistryVersion};
use feast_proto::registry_from_snapshot;
use feast_proto::registry_store::{
    Commit, HistoryRequest, Loaded, REGISTRY_STORE_SERVICE, Version, commit_from_message, history_message,
};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http;
use tonic::server::NamedService;
use tower::Service;

use super::Registry;
use super::service::{Answer, unary};

/// The service.
#[derive(Debug, Clone)]
pub(super) struct StoreService(pub(super) Registry);

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
        let answer = answer(self.0.clone(), request);
        Box::pin(async move { Ok(answer.await) })
    }
}

fn answer(registry: Registry, request: http::Request<Body>) -> Answer<http::Response<Body>> {
    let text = |version: Option<RegistryVersion>| version.map(|version| version.0);
    let method = request.uri().path().rsplit('/').next().unwrap_or_default().to_owned();
    match method.as_str() {
        "Version" => unary(request, move |_: ()| {
            let registry = registry.clone();
            async move { Ok(Version { version: text(registry.snapshot(false).await?.version.clone()) }) }
        }),
        "Load" => unary(request, move |_: ()| {
            let registry = registry.clone();
            async move {
                let snapshot = registry.snapshot(false).await?;
                let message = registry_from_snapshot(&snapshot, None);
                Ok(Loaded { version: text(snapshot.version.clone()), registry: Some(message) })
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
