//! Listening, accepting, and stopping without cutting anybody off.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use feast::FeatureStore;
use feast_core::{Error, Result};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::http;
use crate::options::ServeOptions;
use crate::state::Server;

/// How often measurements are folded.
const UPKEEP: Duration = Duration::from_secs(5);

/// Serves until `shutdown` ends; then accepts no more requests, lets those that are being answered finish, and returns.
///
/// `ready` is called with the address once the server accepts connections. The registry must be readable by then, so
/// that a wrong configuration shows at once and not with the first request.
///
/// # Errors
/// `Unsupported` for TLS; `Unavailable` when the address cannot be listened on; those of reading the registry.
pub async fn serve(
    store: FeatureStore,
    options: ServeOptions,
    ready: impl FnOnce(SocketAddr),
    shutdown: impl Future,
) -> Result<()> {
    options.check()?;
    store.snapshot(true).await?;
    let (listener, address) = listen(&options).await?;
    let server = Server::new(&store, &options);
    let background = [refresh_registry(&server), fold_metrics(&server)];
    let service = TowerToHyperService::new(http::routes(&server));
    let connections = Connections { builder: connection_builder(&options), graceful: GracefulShutdown::new(), service };

    ready(address);
    tracing::info!(%address, project = server.store.project(), "serving");
    let mut shutdown = pin!(shutdown);
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => connections.answer(stream, peer),
                Err(error) => accept_failed(&error).await,
            },
            _ = &mut shutdown => break,
        }
    }
    drop(listener);
    tracing::info!("stopping: waiting for open requests");
    let drained = async {
        connections.graceful.shutdown().await;
        server.materializing.idle().await;
    };
    if tokio::time::timeout(options.drain_timeout, drained).await.is_err() {
        tracing::warn!(seconds = options.drain_timeout.as_secs(), "stopped with requests still open");
    }
    background.iter().for_each(JoinHandle::abort);
    Ok(())
}

async fn listen(options: &ServeOptions) -> Result<(TcpListener, SocketAddr)> {
    let place = format!("{}:{}", options.host, options.port);
    let host = options.host.trim_start_matches('[').trim_end_matches(']');
    let failed = |error: std::io::Error| {
        let error = Error::unavailable(format!("the server cannot listen on `{place}`")).with_source(error);
        error.with_hint("choose another address with `--host` and `--port`")
    };
    let listener = TcpListener::bind((host, options.port)).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    Ok((listener, address))
}

fn connection_builder(options: &ServeOptions) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    // The time to wait for the head of the next request is what keeps or closes idle connections.
    builder.http1().timer(TokioTimer::new()).header_read_timeout(options.keep_alive_timeout);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(Some(options.keep_alive_timeout))
        .keep_alive_timeout(options.keep_alive_timeout);
    builder
}

/// How connections are answered.
struct Connections {
    builder: auto::Builder<TokioExecutor>,
    graceful: GracefulShutdown,
    service: TowerToHyperService<axum::Router>,
}

impl Connections {
    fn answer(&self, stream: TcpStream, peer: SocketAddr) {
        // Small answers must not wait for more to come.
        let _set = stream.set_nodelay(true);
        let connection = self.builder.serve_connection(TokioIo::new(stream), self.service.clone()).into_owned();
        let connection = self.graceful.watch(connection);
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%peer, %error, "a connection ended early");
            }
        });
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
            if let Err(error) = server.store.registry().refresh().await {
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
