//! What can be set about serving.

use std::path::PathBuf;
use std::time::Duration;

use feast::{OfflinePushBatching, RepoConfig};
use feast_core::{Error, Result};

use crate::TraceOptions;

/// Where Feast's server has its metrics, and whatever scrapes it looks for them.
pub const METRICS_PORT: u16 = 8000;

/// What can be set about serving. The defaults are Feast's where Feast has the setting.
#[derive(Debug, Clone)]
pub struct ServeOptions {
    /// Name or address to listen on.
    pub host: String,
    /// Port to listen on; 0 takes a free one.
    pub port: u16,
    /// Accepted for Feast's command line: one process serves on all cores here.
    pub workers: i32,
    /// How long an idle connection stays open; also how long a client may take to send the head of a request.
    pub keep_alive_timeout: Duration,
    /// How long a client may leave 64 KiB of an answer, or the rest of it, before its connection is closed.
    pub answer_timeout: Duration,
    /// Open connections; more are refused with 503.
    pub max_connections: usize,
    /// Private key for TLS, in PEM; needs the certificate.
    pub tls_key_path: Option<PathBuf>,
    /// Certificate for TLS with its chain, in PEM; needs the key. Both are read anew when they change.
    pub tls_cert_path: Option<PathBuf>,
    /// Whether `GET /metrics` answers.
    pub metrics: bool,
    /// A port where metrics are served, too, on all addresses and without TLS. That it is taken does not keep the server
    /// from starting.
    pub metrics_port: Option<u16>,
    /// Whether each request is logged.
    pub access_log: bool,
    /// How often the registry is read anew, in seconds; 0 leaves it to the cache ttl of the configuration.
    pub registry_ttl_sec: u64,
    /// Largest body of a request, in bytes.
    pub request_limit_bytes: usize,
    /// Most values in one request: entity rows times columns, or cells of a data frame.
    pub request_limit_values: usize,
    /// Most values in one answer: entity rows times features.
    pub response_limit_values: usize,
    /// Memory for the bodies of all requests together, in bytes; more are refused with 503.
    pub body_memory_bytes: usize,
    /// Longest time for one request, from its head to its answer; the work of a materialization has none.
    pub request_timeout: Duration,
    /// Requests that are worked on at the same time.
    pub max_concurrent_requests: usize,
    /// Requests that wait for their turn; more are refused with 503.
    pub max_queued_requests: usize,
    /// Where traces go; `None`: nowhere.
    pub traces: Option<TraceOptions>,
    /// How pushes to the offline store wait for each other; `None`: each is written at once.
    pub offline_push_batching: Option<OfflinePushBatching>,
    /// Whether answers are compressed for clients that say they take it.
    pub gzip: bool,
    /// How long requests and materializations may go on after the server was asked to stop.
    pub drain_timeout: Duration,
}

impl Default for ServeOptions {
    fn default() -> Self {
        Self {
            host: "127.0.0.1".to_owned(),
            port: 6566,
            workers: 1,
            keep_alive_timeout: Duration::from_secs(30),
            answer_timeout: Duration::from_secs(30),
            max_connections: 16_384,
            tls_key_path: None,
            tls_cert_path: None,
            metrics: true,
            metrics_port: None,
            access_log: true,
            registry_ttl_sec: 60,
            request_limit_bytes: 64 << 20,
            request_limit_values: 4_000_000,
            response_limit_values: 10_000_000,
            body_memory_bytes: 512 << 20,
            request_timeout: Duration::from_secs(60),
            max_concurrent_requests: 512,
            max_queued_requests: 1024,
            traces: None,
            offline_push_batching: None,
            gzip: false,
            drain_timeout: Duration::from_secs(30),
        }
    }
}

impl ServeOptions {
    /// The defaults, with what a feature store's configuration says about serving.
    pub fn configured(config: &RepoConfig) -> Self {
        let serving = &config.online_serving;
        let has_metrics = config.effective["feature_server"]["metrics"]["enabled"] == true;
        Self {
            metrics_port: has_metrics.then_some(METRICS_PORT),
            request_timeout: serving.timeout,
            max_concurrent_requests: serving.max_concurrent_requests,
            max_queued_requests: serving.max_queued_requests,
            max_connections: serving.max_connections,
            offline_push_batching: config.offline_push_batching,
            ..Self::default()
        }
    }

    /// Refuses what cannot be served as asked for.
    ///
    /// # Errors
    /// `InvalidConfiguration` for half of what TLS needs, and for limits of nothing.
    pub(crate) fn check(&self) -> Result<()> {
        if self.tls_key_path.is_some() != self.tls_cert_path.is_some() {
            return Err(Error::invalid_configuration("TLS needs a private key and a certificate, but one is missing")
                .with_hint("give both `--key` and `--cert`, or neither"));
        }
        let limits = [
            ("request_limit_bytes", self.request_limit_bytes),
            ("body_memory_bytes", self.body_memory_bytes / 1024),
            ("request_limit_values", self.request_limit_values),
            ("response_limit_values", self.response_limit_values),
            ("max_connections", self.max_connections),
            ("max_concurrent_requests", self.max_concurrent_requests),
        ];
        match limits.iter().find(|(_, limit)| *limit == 0) {
            Some((name, _)) => Err(Error::invalid_configuration(format!("`{name}` is 0, so nothing could be served"))),
            None => Ok(()),
        }
    }
}
