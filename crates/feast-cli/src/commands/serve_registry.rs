//! `feast serve_registry`.

use std::path::PathBuf;

use clap::{ArgAction, Args};
use feast_server::{RegistryAddresses, RegistryServeOptions};

use super::serve::asked_to_stop_twice;
use crate::exit::{Exit, Failure, Outcome};
use crate::session::Session;

/// Serve the registry to other machines over gRPC
#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub(crate) struct ServeRegistry {
    /// Port for gRPC; 0 takes a free one
    #[arg(short, long, default_value_t = 6570)]
    port: u16,
    /// Private key for TLS, in PEM; needs --cert. Both files are read anew when they change
    #[arg(short, long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
    /// Certificate for TLS with its chain, in PEM; needs --key
    #[arg(short, long, value_name = "FILE", requires = "key")]
    cert: Option<PathBuf>,
    /// Print help
    #[arg(long, action = ArgAction::Help)]
    help: Option<bool>,
}

impl ServeRegistry {
    pub(crate) fn run(self, session: &Session) -> Outcome {
        let store = session.store()?;
        let options = RegistryServeOptions {
            grpc_port: Some(self.port),
            tls_key_path: self.key,
            tls_cert_path: self.cert,
            ..RegistryServeOptions::default()
        };
        session.run_to_end(async {
            let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
            // Programs read the addresses from the log.
            let ready = |addresses: RegistryAddresses| {
                if session.terminal().stderr_is_terminal() {
                    if let Some(address) = addresses.grpc {
                        session.terminal().say(format_args!("serving the registry on {address}, stop with Ctrl-C"));
                    }
                }
            };
            let shutdown = async {
                // The sender goes only with the whole command.
                let _ = stopped.await;
            };
            tokio::select! {
                served = feast_server::serve_registry(store, options, ready, shutdown) => {
                    served.map(|()| Exit::Done).map_err(Failure::from)
                }
                interrupted = asked_to_stop_twice(stop) => interrupted,
            }
        })?
    }
}
