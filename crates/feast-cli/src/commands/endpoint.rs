//! `feast endpoint`.

use clap::Args;

use crate::exit::{Exit, Outcome};
use crate::session::Session;

/// Show the address of the deployed feature server
#[derive(Debug, Args)]
pub(crate) struct Endpoint {}

impl Endpoint {
    pub(crate) fn run(self, session: &Session) -> Outcome {
        session.config()?;
        // No provider of this product deploys servers; this answers scripts that ask.
        session.terminal().say("no feature server is deployed for this repository; start one with `feast serve`");
        Ok(Exit::Done)
    }
}
