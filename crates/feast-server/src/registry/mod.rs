//! The registry for others, over gRPC and REST.

mod datasets;
mod limits;
mod lineage;
mod page;
mod read;
mod rest;
mod service;
mod status;
mod store_service;

use std::any::Any;
use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::Response;
use feast::FeatureStore;
use feast_core::{Error, Result};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tonic::service::Routes;
use tonic_health::server::health_reporter;
use tower_http::catch_panic::CatchPanicLayer;

use self::datasets::DatasetJobs;
use self::limits::limited;
use self::service::{RegistryService, SERVICE};
use self::store_service::StoreService;
use crate::connections::{Connections, Limits};
use crate::serve::{listen, refuse_authentication};
use crate::tls::Tls;

/// What clients may do.
const LIMITS: Limits =
    Limits { keep_alive: Duration::from_secs(300), answer: Duration::from_secs(60), connections: 16_384 };
/// How long requests may go on after the server was asked to stop.
const DRAIN: Duration = Duration::from_secs(30);

/// What can be set about serving a registry. The defaults are Feast's.
#[derive(Debug, Clone)]
pub struct RegistryServeOptions {
    /// Name or address to listen on for gRPC.
    pub grpc_host: String,
    /// Port for gRPC; 0 takes a free one, `None` serves no gRPC.
    pub grpc_port: Option<u16>,
    /// Name or address to listen on for REST.
    pub rest_host: String,
    /// Port for REST; 0 takes a free one, `None` serves no REST.
    pub rest_port: Option<u16>,
    /// Private key for TLS, in PEM; needs the certificate.
    pub tls_key_path: Option<PathBuf>,
    /// Certificate for TLS with its chain, in PEM; needs the key. Both are read anew when they change.
    pub tls_cert_path: Option<PathBuf>,
}

impl Default for RegistryServeOptions {
    fn default() -> Self {
        Self {
            grpc_host: "::".to_owned(),
            grpc_port: Some(6570),
            rest_host: "::".to_owned(),
            rest_port: None,
            tls_key_path: None,
            tls_cert_path: None,
        }
    }
}

/// Where a registry is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RegistryAddresses {
    /// Address of the gRPC server.
    pub grpc: Option<SocketAddr>,
    /// Address of the REST server.
    pub rest: Option<SocketAddr>,
}

/// The registry that is served: of all projects.
#[derive(Debug, Clone)]
struct Registry {
    store: FeatureStore,
    datasets: DatasetJobs,
}

/// Serves the registry of a feature store until `shutdown` ends; then accepts no more requests, lets those that are
/// being answered finish, and returns. `ready` is called with the addresses once the server accepts connections.
///
/// # Errors
/// `Unsupported` when the configuration asks for authentication; `InvalidConfiguration` for a certificate or key that
/// cannot be used; `Unavailable` when an address cannot be listened on; those of reading the registry.
pub async fn serve_registry(
    store: FeatureStore,
    options: RegistryServeOptions,
    ready: impl FnOnce(RegistryAddresses),
    shutdown: impl Future,
) -> Result<()> {
    refuse_authentication(&store)?;
    let tls = match (&options.tls_key_path, &options.tls_cert_path) {
        (Some(key), Some(certificate)) => Some(Arc::new(Tls::load(key, certificate)?)),
        (None, None) => None,
        _ => {
            return Err(Error::invalid_configuration("TLS needs a private key and a certificate, but one is missing")
                .with_hint("give both `--key` and `--cert`, or neither"));
        }
    };
    // A registry that cannot be read shows at once, and not with the first request.
    store.snapshot(true).await?;
    let registry = Registry { store, datasets: DatasetJobs::default() };
    let bound = async |host: &str, port: Option<u16>| match port {
        Some(port) => listen_everywhere(host, port).await.map(Some),
        None => Ok(None),
    };
    let grpc = bound(&options.grpc_host, options.grpc_port).await?;
    let rest = bound(&options.rest_host, options.rest_port).await?;
    let address = |bound: &Option<(TcpListener, SocketAddr)>| bound.as_ref().map(|(_, address)| *address);
    let addresses = RegistryAddresses { grpc: address(&grpc), rest: address(&rest) };
    if addresses.grpc.is_none() && addresses.rest.is_none() {
        return Err(Error::invalid_configuration("the registry is to be served neither over gRPC nor over REST")
            .with_hint("leave out `--no-grpc`, or add `--rest-api`"));
    }
    ready(addresses);
    let text = |address: Option<SocketAddr>| address.map(|address| address.to_string());
    tracing::info!(grpc = text(addresses.grpc), rest = text(addresses.rest), "serving the registry");
    let graceful = GracefulShutdown::new();
    let (stop, stopped) = watch::channel(());
    let answer = async |bound: Option<(TcpListener, SocketAddr)>, router: Router| {
        let Some((listener, _)) = bound else { return };
        let mut stopped = stopped.clone();
        let connections = Connections::new(TowerToHyperService::new(router), tls.clone(), LIMITS);
        // The sender goes when the servers are to stop.
        connections.answer_until(listener, &graceful, stopped.changed()).await;
    };
    let grpc_router = limited(grpc_router(&registry).await?, |error| status::status(&error).into_http());
    let rest_router = limited(rest::router(&registry), rest::refused);
    let stopping = async {
        shutdown.await;
        drop(stop);
    };
    tokio::join!(answer(grpc, grpc_router), answer(rest, rest_router), stopping);
    tracing::info!("stopping: waiting for open requests");
    if tokio::time::timeout(DRAIN, graceful.shutdown()).await.is_err() {
        tracing::warn!(seconds = DRAIN.as_secs(), "stopped with requests still open");
    }
    Ok(())
}

/// `::` means every address; where the machine has no IPv6, those of IPv4.
async fn listen_everywhere(host: &str, port: u16) -> Result<(TcpListener, SocketAddr)> {
    match listen(host, port).await {
        Err(_) if host == "::" => listen("0.0.0.0", port).await,
        listening => listening,
    }
}

/// The services: Feast's, ours, and those by which tools ask for health and for what there is.
async fn grpc_router(registry: &Registry) -> Result<Router> {
    let (health, health_service) = health_reporter();
    for name in ["", SERVICE, feast_proto::registry_store::REGISTRY_STORE_SERVICE] {
        health.set_service_status(name, tonic_health::ServingStatus::Serving).await;
    }
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(feast_proto::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .with_service_name(SERVICE)
            .with_service_name("grpc.health.v1.Health")
    };
    let broken = |error| Error::internal("the description of the services cannot be read").with_source(error);
    let routes = Routes::new(RegistryService(registry.clone()))
        .add_service(StoreService::new(registry.clone()))
        .add_service(health_service)
        .add_service(reflection().build_v1().map_err(broken)?)
        .add_service(reflection().build_v1alpha().map_err(broken)?);
    Ok(routes.into_axum_router().layer(CatchPanicLayer::custom(panicked)))
}

/// A panic is our bug; its text is not for the client.
fn panicked(_: Box<dyn Any + Send>) -> Response<Body> {
    tracing::error!("a method of the registry server panicked");
    tonic::Status::internal("the server has a defect; its log says more").into_http()
}
