//! `feast serve_transformations`.

use std::net::SocketAddr;

use clap::{ArgAction, Args};

use super::serve::asked_to_stop_twice;
use crate::exit::{Exit, Failure, Outcome};
use crate::session::Session;

/// Run the functions of on-demand feature views for other servers, over gRPC
#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub(crate) struct ServeTransformations {
    /// Name or address to listen on; the default is all, as Feast does
    #[arg(short, long, default_value = "::")]
    host: String,
    /// Port to listen on; 0 takes a free one
    #[arg(short, long, default_value_t = 6569)]
    port: u16,
    /// Python processes that run the functions; the default is one per core, up to 4
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u16).range(1..=512))]
    transformation_workers: Option<u16>,
    /// Print help
    #[arg(long, action = ArgAction::Help)]
    help: Option<bool>,
}

impl ServeTransformations {
    pub(crate) fn run(self, session: &Session) -> Outcome {
        let store = session.store()?;
        let workers = session.python_workers(store.config(), self.transformation_workers.map(usize::from))?;
        let store = store.transformed_by(workers);
        session.run_to_end(async {
            let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
            let ready = |address: SocketAddr| {
                if session.terminal().stderr_is_terminal() {
                    session.terminal().say(format_args!("serving transformations on {address}, stop with Ctrl-C"));
                }
            };
            let shutdown = async {
                // The sender goes only with the whole command.
                let _ = stopped.await;
            };
            tokio::select! {
                served = feast_server::serve_transformations(store, &self.host, self.port, ready, shutdown) => {
                    served.map(|()| Exit::Done).map_err(Failure::from)
                }
                interrupted = asked_to_stop_twice(stop) => interrupted,
            }
        })?
    }
}
