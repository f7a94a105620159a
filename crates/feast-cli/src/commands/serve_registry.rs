//! `feast serve_registry`.

use std::path::PathBuf;

use clap::{ArgAction, Args};
use feast_server::{RegistryAddresses, RegistryServeOptions};

use super::serve::asked_to_stop_twice;
use crate::exit::{Exit, Failure, Outcome};
use crate::session::Session;

/// Serve the registry to other machines, over gRPC and REST
#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub(crate) struct ServeRegistry {
    /// Port for gRPC; 0 takes a free one
    #[arg(short, long, default_value_t = 6570)]
    port: u16,
    /// Also serve REST
    #[arg(short, long)]
    rest_api: bool,
    /// Port for REST; 0 takes a free one
    #[arg(long, value_name = "PORT", default_value_t = 6572)]
    rest_port: u16,
    /// Name or address to listen on for REST; gRPC listens on all
    #[arg(short, long, default_value = "::")]
    host: String,
    /// Serve gRPC, which is the default
    #[arg(long, overrides_with = "no_grpc")]
    grpc: bool,
    /// Serve no gRPC
    #[arg(long, overrides_with = "grpc")]
    no_grpc: bool,
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
        // Feast's flag for what happens anyway; it counts by overriding `--no-grpc`.
        let _ = self.grpc;
        let store = session.store()?;
        let options = RegistryServeOptions {
            grpc_port: (!self.no_grpc).then_some(self.port),
            rest_host: self.host,
            rest_port: self.rest_api.then_some(self.rest_port),
            tls_key_path: self.key,
            tls_cert_path: self.cert,
            ..RegistryServeOptions::default()
        };
        session.run_to_end(async {
            let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
            // Programs read the addresses from the log.
            let ready = |addresses: RegistryAddresses| {
                if session.terminal().stderr_is_terminal() {
                    let served = [("gRPC", addresses.grpc), ("REST", addresses.rest)];
                    for (protocol, address) in served.into_iter().filter_map(|(name, address)| Some((name, address?))) {
                        let sentence =
                            format_args!("serving the registry over {protocol} on {address}, stop with Ctrl-C");
                        session.terminal().say(sentence);
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
