//! `feast serve`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args, ValueEnum};
use feast_core::{Error, Result};
use feast_server::{METRICS_PORT, ServeOptions};

use crate::exit::{Exit, Failure, Outcome};
use crate::resident::let_go_of_start;
use crate::session::Session;
use crate::traces::trace_options;

/// Open files and connections that a server may want, if the system allows it.
const MOST_FILES: u64 = 1 << 20;

/// Open files that are no connections of clients.
const OTHER_FILES: u64 = 256;

/// By then everything is done that is done once.
const AFTER_START: Duration = Duration::from_secs(1);

/// Serve online features over HTTP
#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Serve {
    /// Name or address to listen on
    #[arg(short, long, default_value = "127.0.0.1")]
    host: String,
    /// Port to listen on; 0 takes a free one
    #[arg(short, long, default_value_t = 6566)]
    port: u16,
    /// Protocol
    #[arg(short = 't', long = "type", value_enum, default_value_t = Protocol::Http)]
    protocol: Protocol,
    /// Do not log requests
    #[arg(long)]
    no_access_log: bool,
    /// Seconds an idle connection stays open
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    keep_alive_timeout: u64,
    /// Seconds between reads of the registry; 0 leaves it to `cache_ttl_seconds` of the configuration
    #[arg(short, long = "registry_ttl_sec", alias = "registry-ttl-sec", value_name = "SECONDS", default_value_t = 60)]
    registry_ttl: u64,
    /// Private key for TLS, in PEM; needs --cert. Both files are read anew when they change
    #[arg(short, long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
    /// Certificate for TLS with its chain, in PEM; needs --key
    #[arg(short, long, value_name = "FILE", requires = "key")]
    cert: Option<PathBuf>,
    /// Compress answers for clients that take gzip
    #[arg(long)]
    gzip: bool,
    /// Serve metrics at port 8000, too, where Feast has them; they always are at /metrics
    #[arg(short, long)]
    metrics: bool,
    /// Python processes that run the functions of on-demand feature views; the default is one per core, up to 4
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u16).range(1..=512))]
    transformation_workers: Option<u16>,
    /// Accepted for Feast's sake: one process serves on all cores
    #[arg(short, long, default_value_t = 1, allow_negative_numbers = true)]
    workers: i32,
    /// Accepted for Feast's sake
    #[arg(long, hide = true, default_value_t = 1000)]
    worker_connections: u32,
    /// Accepted for Feast's sake: the process needs no restarts
    #[arg(long, hide = true, default_value_t = 1000)]
    max_requests: u32,
    /// Accepted for Feast's sake
    #[arg(long, hide = true, default_value_t = 50)]
    max_requests_jitter: u32,
    /// Print help
    #[arg(long, action = ArgAction::Help)]
    help: Option<bool>,
}

/// What the server speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Protocol {
    Http,
    Grpc,
}

impl Serve {
    pub(crate) fn run(self, session: &Session) -> Outcome {
        if self.protocol == Protocol::Grpc {
            return Err(Error::unsupported("the server does not speak gRPC yet")
                .with_hint("leave out `--type grpc` to serve over HTTP")
                .into());
        }
        let store = session.store()?;
        let number = self.transformation_workers.map(usize::from);
        let store = store.transformed_by(session.transformer_of_servers(store.config(), number)?);
        let scheme = if self.cert.is_some() { "https" } else { "http" };
        let mut options = ServeOptions {
            host: self.host,
            port: self.port,
            workers: self.workers,
            keep_alive_timeout: Duration::from_secs(self.keep_alive_timeout),
            tls_key_path: self.key,
            tls_cert_path: self.cert,
            access_log: !self.no_access_log,
            registry_ttl_sec: self.registry_ttl,
            gzip: self.gzip,
            traces: trace_options()?,
            ..ServeOptions::configured(store.config())
        };
        if self.metrics {
            options.metrics_port = Some(METRICS_PORT);
        }
        // Each connection takes one; the usual limit is for programs that read files.
        match rlimit::increase_nofile_limit(MOST_FILES) {
            Ok(files) => {
                let connections = usize::try_from(files.saturating_sub(OTHER_FILES)).unwrap_or(usize::MAX).max(1);
                options.max_connections = options.max_connections.min(connections);
            }
            Err(error) => session.terminal().warn(format_args!("the limit of open files stays as it is: {error}")),
        }
        session.run_to_end(async {
            let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
            let ready = |address: SocketAddr| {
                tokio::spawn(async {
                    tokio::time::sleep(AFTER_START).await;
                    let_go_of_start();
                });
                // Programs read the address from the log.
                if session.terminal().stderr_is_terminal() {
                    session.terminal().say(format_args!("serving on {scheme}://{address}, stop with Ctrl-C"));
                }
            };
            let shutdown = async {
                // The sender goes only with the whole command.
                let _ = stopped.await;
            };
            tokio::select! {
                served = feast_server::serve(store, options, ready, shutdown) => {
                    served.map(|()| Exit::Done).map_err(Failure::from)
                }
                interrupted = asked_to_stop_twice(stop) => interrupted,
            }
        })?
    }
}

/// The first signal lets requests finish, the second one does not.
pub(super) async fn asked_to_stop_twice(stop: tokio::sync::oneshot::Sender<()>) -> Outcome {
    stop_signal().await?;
    let _ = stop.send(());
    stop_signal().await?;
    Err(Failure::Interrupted)
}

/// Waits for Ctrl-C, or for what a process manager sends.
async fn stop_signal() -> Result<()> {
    let failed = |error| Error::internal("signals cannot be received").with_source(error);
    #[cfg(unix)]
    {
        let mut terminate =
            tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).map_err(failed)?;
        tokio::select! {
            pressed = tokio::signal::ctrl_c() => pressed.map_err(failed),
            _ = terminate.recv() => Ok(()),
        }
    }
    #[cfg(not(unix))]
    tokio::signal::ctrl_c().await.map_err(failed)
}
