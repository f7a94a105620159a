//! `feast endpoint`.

use clap::Args;
use serde_json::Value;

use crate::exit::{Exit, Outcome};
use crate::session::Session;
use crate::terminal::Format;

/// Show the address of the deployed feature server
#[derive(Debug, Args)]
pub(crate) struct Endpoint {}

impl Endpoint {
    pub(crate) fn run(self, session: &Session) -> Outcome {
        session.config()?;
        // No provider of this product deploys servers; this answers scripts that ask.
        let terminal = session.terminal();
        terminal.say("no feature server is deployed for this repository; start one with `feast serve`");
        if let Some(format) = terminal.format().filter(|format| *format != Format::Table) {
            terminal.print_value(&Value::Null, format);
        }
        Ok(Exit::Done)
    }
}
