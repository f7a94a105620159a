//! Listening, accepting, and stopping without cutting anybody off.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use feast::FeatureStore;
use feast_core::{Error, Result};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinHandle;

use crate::http;
use crate::options::ServeOptions;
use crate::state::Server;
use crate::tls::Tls;
use crate::traces::Traces;

/// How often measurements are folded.
const UPKEEP: Duration = Duration::from_secs(5);

/// How often the age of the rows in the offline store is looked up.
const FRESHNESS: Duration = Duration::from_secs(60);

/// How long the last traces may take.
const LAST_TRACES: Duration = Duration::from_secs(5);

/// Connections that wait to be accepted. A client whose connection finds no place tries again after a second.
const BACKLOG: u32 = 4096;

/// How long a client may take to agree on TLS.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Serves until `shutdown` ends; then accepts no more requests, lets those that are being answered finish, and returns.
///
/// `ready` is called with the address once the server accepts connections. The registry must be readable by then, so
/// that a wrong configuration shows at once and not with the first request.
///
/// # Errors
/// `Unsupported` when the configuration asks for authentication; `InvalidConfiguration` for a certificate or key that
/// cannot be used; `Unavailable` when the address cannot be listened on; those of reading the registry.
pub async fn serve(
    store: FeatureStore,
    options: ServeOptions,
    ready: impl FnOnce(SocketAddr),
    shutdown: impl Future,
) -> Result<()> {
    options.check()?;
    refuse_authentication(&store)?;
    let tls = match (&options.tls_key_path, &options.tls_cert_path) {
        (Some(key), Some(certificate)) => Some(Arc::new(Tls::load(key, certificate)?)),
        _ => None,
    };
    store.snapshot(true).await?;
    let (listener, address) = listen(&options.host, options.port).await?;
    let (traces, sending) = options.traces.as_ref().map(Traces::start).transpose()?.unzip();
    let server = Server::new(&store, &options, traces);
    let background = [refresh_registry(&server), fold_metrics(&server), look_at_sources(&server)];
    let graceful = GracefulShutdown::new();
    let connections = Connections::new(http::routes(&server), tls, options.keep_alive_timeout);

    let background = background.into_iter().chain([check_functions(&server)]).collect::<Vec<_>>();
    ready(address);
    tracing::info!(%address, project = server.store.project(), "serving");
    answer_until(listener, &connections, &graceful, shutdown).await;
    tracing::info!("stopping: waiting for open requests");
    let drained = async {
        graceful.shutdown().await;
        server.materializing.idle().await;
    };
    if tokio::time::timeout(options.drain_timeout, drained).await.is_err() {
        tracing::warn!(seconds = options.drain_timeout.as_secs(), "stopped with requests still open");
    }
    for task in background {
        task.abort();
        let _ = task.await;
    }
    // The last spans go when nobody can make more.
    drop((server, connections.router));
    if let Some(sending) = sending {
        let _ = tokio::time::timeout(LAST_TRACES, sending).await;
    }
    Ok(())
}

/// Answers whoever connects until `shutdown` ends.
pub(crate) async fn answer_until(
    listener: TcpListener,
    connections: &Connections,
    graceful: &GracefulShutdown,
    shutdown: impl Future,
) {
    let mut shutdown = pin!(shutdown);
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => connections.answer(stream, peer, graceful.watcher()),
                Err(error) => accept_failed(&error).await,
            },
            _ = &mut shutdown => return,
        }
    }
}

/// Where authentication was configured, a server that asks nobody who they are would open what was closed.
pub(crate) fn refuse_authentication(store: &FeatureStore) -> Result<()> {
    match store.config().effective["auth"]["type"].as_str() {
        None | Some("no_auth") => Ok(()),
        Some(name) => Err(Error::unsupported(format!(
            "feature_store.yaml asks for `auth` of type `{name}`, which this server cannot enforce yet, so it does not start"
        ))
        .with_hint("serve with Feast, or remove `auth` if everybody who reaches the server may read and write")),
    }
}

pub(crate) async fn listen(host: &str, port: u16) -> Result<(TcpListener, SocketAddr)> {
    let place = format!("{host}:{port}");
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let failed = |error: std::io::Error| {
        let error = Error::unavailable(format!("the server cannot listen on `{place}`")).with_source(error);
        error.with_hint("choose another address with `--host` and `--port`")
    };
    let mut addresses: Vec<SocketAddr> = tokio::net::lookup_host((host, port)).await.map_err(failed)?.collect();
    if host == "::" {
        // All addresses, where there is nothing but IPv4.
        addresses.push(SocketAddr::from(([0, 0, 0, 0], port)));
    }
    let mut refused = None;
    for address in addresses {
        match listen_at(address) {
            Ok(listener) => {
                let address = listener.local_addr().map_err(failed)?;
                return Ok((listener, address));
            }
            Err(error) => refused = Some(error),
        }
    }
    Err(failed(refused.unwrap_or_else(|| std::io::Error::other("the name has no address"))))
}

fn listen_at(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

fn connection_builder(keep_alive: Duration) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    // The time to wait for the head of the next request is what keeps or closes idle connections.
    builder.http1().timer(TokioTimer::new()).header_read_timeout(keep_alive);
    builder.http2().timer(TokioTimer::new()).keep_alive_interval(Some(keep_alive)).keep_alive_timeout(keep_alive);
    builder
}

/// How connections are answered.
pub(crate) struct Connections {
    builder: auto::Builder<TokioExecutor>,
    router: axum::Router,
    tls: Option<Arc<Tls>>,
    /// How long a client may take until its first request is there.
    first_request: Duration,
}

impl Connections {
    /// Idle connections, and those without a request, are closed after `keep_alive`.
    pub(crate) fn new(router: axum::Router, tls: Option<Arc<Tls>>, keep_alive: Duration) -> Self {
        Self { builder: connection_builder(keep_alive), router, tls, first_request: keep_alive }
    }

    fn answer(&self, stream: TcpStream, peer: SocketAddr, watcher: Watcher) {
        // Small answers must not wait for more to come.
        let _set = stream.set_nodelay(true);
        let answering = Answering {
            builder: self.builder.clone(),
            watcher,
            router: self.router.clone(),
            first_request: self.first_request,
            peer,
        };
        let Some(tls) = self.tls.clone() else {
            tokio::spawn(answering.run(stream));
            return;
        };
        tokio::spawn(async move {
            match tokio::time::timeout(HANDSHAKE_TIMEOUT, tls.acceptor().accept(stream)).await {
                Ok(Ok(stream)) => answering.run(stream).await,
                Ok(Err(error)) => tracing::debug!(%peer, %error, "no TLS was agreed on"),
                Err(_) => tracing::debug!(%peer, "the client took too long to agree on TLS"),
            }
        });
    }
}

/// One connection.
struct Answering {
    builder: auto::Builder<TokioExecutor>,
    watcher: Watcher,
    router: axum::Router,
    first_request: Duration,
    peer: SocketAddr,
}

impl Answering {
    /// Answers requests until the client leaves, or until none comes.
    async fn run(self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
        let peer = self.peer;
        let asked = Arc::new(AtomicBool::new(false));
        let service = Noticing { service: TowerToHyperService::new(self.router), asked: Arc::clone(&asked) };
        let connection = self.builder.serve_connection(TokioIo::new(stream), service).into_owned();
        let mut connection = pin!(self.watcher.watch(connection));
        // Before the first bytes say which HTTP it is, no other limit applies.
        let ended = match tokio::time::timeout(self.first_request, connection.as_mut()).await {
            Ok(ended) => ended,
            Err(_) if asked.load(Ordering::Relaxed) => connection.await,
            Err(_) => return tracing::debug!(%peer, "closed a connection without requests"),
        };
        if let Err(error) = ended {
            tracing::debug!(%peer, %error, "a connection ended early");
        }
    }
}

/// Notices that there was a request.
#[derive(Clone)]
struct Noticing {
    service: TowerToHyperService<axum::Router>,
    asked: Arc<AtomicBool>,
}

impl hyper::service::Service<hyper::Request<Incoming>> for Noticing {
    type Response = axum::response::Response;
    type Error = Infallible;
    type Future = <TowerToHyperService<axum::Router> as hyper::service::Service<hyper::Request<Incoming>>>::Future;

    fn call(&self, request: hyper::Request<Incoming>) -> Self::Future {
        self.asked.store(true, Ordering::Relaxed);
        self.service.call(request)
    }
}

/// A connection that broke before it was accepted means nothing; a lack of file handles needs a pause.
async fn accept_failed(error: &std::io::Error) {
    use std::io::ErrorKind as E;
    if !matches!(error.kind(), E::ConnectionAborted | E::ConnectionReset | E::ConnectionRefused) {
        tracing::warn!(%error, "a connection could not be accepted");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn refresh_registry(server: &Arc<Server>) -> JoinHandle<()> {
    let server = Arc::clone(server);
    tokio::spawn(async move {
        let Some(period) = Some(server.options.registry_ttl_sec).filter(|seconds| *seconds > 0) else { return };
        let mut ticks = tokio::time::interval(Duration::from_secs(period));
        ticks.tick().await;
        loop {
            ticks.tick().await;
            if let Err(error) = server.store.registry().refresh_in_background().await {
                tracing::warn!(%error, "the registry could not be refreshed; serving from the last snapshot");
            }
        }
    })
}

fn fold_metrics(server: &Arc<Server>) -> JoinHandle<()> {
    let server = Arc::clone(server);
    tokio::spawn(async move {
        let mut ticks = tokio::time::interval(UPKEEP);
        loop {
            ticks.tick().await;
            server.metrics.upkeep();
        }
    })
}

/// Keeps the age of offline rows for `/metrics`, so that nobody who asks for metrics waits for files.
fn look_at_sources(server: &Arc<Server>) -> JoinHandle<()> {
    let server = Arc::clone(server);
    tokio::spawn(async move {
        if !server.options.metrics {
            return;
        }
        let mut ticks = tokio::time::interval(FRESHNESS);
        loop {
            ticks.tick().await;
            match server.store.offline_freshness(true).await {
                Ok(newest) => {
                    for (view, reason) in server.metrics.offline_newest(newest) {
                        tracing::warn!(view, reason, "the source cannot be looked at; its rows age as last seen");
                    }
                }
                Err(error) => tracing::debug!(%error, "the age of the rows of sources is not known"),
            }
        }
    })
}

/// Says at the start which on-demand views cannot be served, instead of with the first request for one.
fn check_functions(server: &Arc<Server>) -> JoinHandle<()> {
    let server = Arc::clone(server);
    tokio::spawn(async move {
        let Ok(views) = server.store.views_with_functions().await else { return };
        if views.is_empty() {
            return;
        }
        if let Err(error) = server.store.check_transformer().await {
            let (views, hint) = (views.join(", "), error.hint().unwrap_or_default());
            tracing::warn!(%views, reason = %error, hint, "on-demand feature views cannot be served");
        }
    })
}
