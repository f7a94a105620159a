//! `feast version`.

use clap::Args;
use serde_json::json;

use crate::exit::{Exit, Outcome};
use crate::session::Session;
use crate::terminal::Format;

/// Show the version
#[derive(Debug, Args)]
pub(crate) struct Version {}

impl Version {
    pub(crate) fn run(self, session: &Session) -> Outcome {
        let version = env!("CARGO_PKG_VERSION");
        let terminal = session.terminal();
        match terminal.format() {
            None | Some(Format::Table) => terminal.print(format_args!("Feast SDK Version: \"{version}\"")),
            Some(format) => terminal.print_value(&json!({"version": version}), format),
        }
        Ok(Exit::Done)
    }
}
