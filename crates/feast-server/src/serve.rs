//! Listening, what goes on in the background, and stopping without cutting anybody off.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use feast::FeatureStore;
use feast_core::{Error, Result};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpSocket};
use tokio::runtime::Handle;
use tokio::task::{JoinHandle, JoinSet};

use crate::connections::{Connections, Limits};
use crate::http;
use crate::offline_batches::write_offline_batches;
use crate::options::ServeOptions;
use crate::state::Server;
use crate::threads::Threads;
use crate::tls::Tls;
use crate::traces::Traces;

/// How often measurements are folded.
const UPKEEP: Duration = Duration::from_secs(5);

/// How often the age of the rows in the offline store is looked up.
const FRESHNESS: Duration = Duration::from_secs(60);

/// Connections of those who scrape metrics.
const MOST_SCRAPERS: usize = 64;

/// How long the last rows for the offline store may take where requests took all of the time.
const LAST_ROWS: Duration = Duration::from_secs(5);

/// How long the last traces may take.
const LAST_TRACES: Duration = Duration::from_secs(5);

/// Connections that wait to be accepted. A client whose connection finds no place tries again after a second.
const BACKLOG: u32 = 4096;

/// Between the panic of a background task and its next start.
const AFTER_PANIC: Duration = Duration::from_secs(1);

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
    let mut offline_batches = tend(&server, "write_offline_batches", write_offline_batches);
    let background = [
        tend(&server, "refresh_registry", refresh_registry),
        tend(&server, "fold_metrics", fold_metrics),
        tend(&server, "look_at_sources", look_at_sources),
        tend(&server, "check_functions", check_functions),
    ];
    let graceful = GracefulShutdown::new();
    let limits = Limits {
        keep_alive: options.keep_alive_timeout,
        answer: options.answer_timeout,
        connections: options.max_connections,
    };
    let threads = Threads::start().map_err(|error| {
        Error::unavailable("the server cannot start its threads").with_source(error).with_hint("allow more threads")
    })?;
    let routes = http::Routes::new(&server, threads.is_some().then(Handle::current));
    let connections = Connections::new(routes, tls, limits).on(threads);
    let scraped = listen_for_scrapers(&options).await;
    let metrics = Connections::new(
        TowerToHyperService::new(http::metrics_alone(&server)),
        None,
        Limits { connections: MOST_SCRAPERS, ..limits },
    );

    ready(address);
    tracing::info!(%address, project = server.store.project(), "serving");
    let scraping = async {
        match scraped {
            Some(listener) => metrics.answer_until(listener, &graceful, std::future::pending::<()>()).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = connections.answer_until(listener, &graceful, shutdown) => {}
        () = scraping => {}
    }
    tracing::info!("stopping: waiting for open requests");
    if let Some(batches) = &server.offline_batches {
        batches.hurry();
    }
    let stops = tokio::time::Instant::now();
    let drained = async {
        graceful.shutdown().await;
        server.materializing.idle().await;
    };
    if tokio::time::timeout(options.drain_timeout, drained).await.is_err() {
        tracing::warn!(seconds = options.drain_timeout.as_secs(), "stopped with requests still open");
    }
    if let Some(batches) = &server.offline_batches {
        batches.end();
        let until = (stops + options.drain_timeout).max(tokio::time::Instant::now() + LAST_ROWS);
        if tokio::time::timeout_at(until, &mut offline_batches).await.is_err() {
            tracing::error!("stopped while rows of accepted pushes were being written to the offline store");
            offline_batches.abort();
        }
    }
    for task in background {
        task.abort();
        let _ = task.await;
    }
    // The last spans go when nobody can make more.
    connections.end().await;
    drop((server, metrics));
    if let Some(sending) = sending {
        let _ = tokio::time::timeout(LAST_TRACES, sending).await;
    }
    Ok(())
}

/// The other port of metrics, where one is wanted and free: several servers of a machine want the same one.
async fn listen_for_scrapers(options: &ServeOptions) -> Option<TcpListener> {
    match listen("0.0.0.0", options.metrics_port?).await {
        Ok((listener, address)) => {
            tracing::info!(%address, "serving metrics");
            Some(listener)
        }
        Err(error) => {
            tracing::warn!(%error, "metrics are served at `/metrics` of the server only");
            None
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

/// Runs a background task, and anew when it panics: else what it does would stay undone until somebody notices.
fn tend<F>(server: &Arc<Server>, name: &'static str, task: impl Fn(Arc<Server>) -> F + Send + 'static) -> JoinHandle<()>
where
    F: Future<Output = ()> + Send + 'static,
{
    let server = Arc::clone(server);
    tokio::spawn(async move {
        loop {
            // It ends with this task.
            let mut running = JoinSet::new();
            running.spawn(task(Arc::clone(&server)));
            match running.join_next().await {
                Some(Err(error)) if error.is_panic() => {
                    tracing::error!(task = name, "a background task panicked; it is started anew");
                    server.metrics.task_panicked(name);
                    tokio::time::sleep(AFTER_PANIC).await;
                }
                _ => return,
            }
        }
    })
}

async fn refresh_registry(server: Arc<Server>) {
    let Some(period) = Some(server.options.registry_ttl_sec).filter(|seconds| *seconds > 0) else { return };
    let mut ticks = tokio::time::interval(Duration::from_secs(period));
    ticks.tick().await;
    loop {
        ticks.tick().await;
        if let Err(error) = server.store.registry().refresh_in_background().await {
            tracing::warn!(%error, "the registry could not be refreshed; serving from the last snapshot");
        }
    }
}

async fn fold_metrics(server: Arc<Server>) {
    let mut ticks = tokio::time::interval(UPKEEP);
    loop {
        ticks.tick().await;
        server.metrics.upkeep();
    }
}

/// Keeps the age of offline rows for `/metrics`, so that nobody who asks for metrics waits for files.
async fn look_at_sources(server: Arc<Server>) {
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
}

/// Says at the start which on-demand views cannot be served, instead of with the first request for one.
async fn check_functions(server: Arc<Server>) {
    let Ok(views) = server.store.views_with_functions().await else { return };
    if views.is_empty() {
        return;
    }
    if let Err(error) = server.store.check_transformer().await {
        let (views, hint) = (views.join(", "), error.hint().unwrap_or_default());
        tracing::warn!(%views, reason = %error, hint, "on-demand feature views cannot be served");
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::sync::atomic::{AtomicUsize, Ordering};

    use serde_json::json;

    use super::*;

    #[tokio::test]
    async fn a_background_task_that_panics_is_noticed_and_started_anew() {
        let folder = tempfile::tempdir().unwrap();
        let config = json!({"project": "p", "registry": "registry.db"});
        let config = feast::RepoConfig::parse(&config.to_string(), folder.path()).unwrap();
        let server = Server::new(&FeatureStore::open(config).unwrap(), &ServeOptions::default(), None);
        let starts = Arc::new(AtomicUsize::new(0));
        let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
        let task = tend(&server, "counting", {
            let starts = Arc::clone(&starts);
            move |_| {
                let (start, tell) = (starts.fetch_add(1, Ordering::Relaxed), tell.clone());
                async move {
                    assert!(start > 0, "the first one has a defect");
                    tell.send(start).unwrap();
                }
            }
        });
        assert_eq!(told.recv().await, Some(1));
        task.await.unwrap();
        assert_eq!(starts.load(Ordering::Relaxed), 2, "what ends by itself is not started again");
        let metrics = server.metrics.render(None, None);
        assert!(metrics.contains("feast_background_task_panics_total{task=\"counting\"} 1"), "{metrics}");
    }
}
