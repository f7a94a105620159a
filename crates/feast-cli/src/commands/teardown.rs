//! `feast teardown`.

use clap::Args;
use feast_core::Error;

use crate::exit::{Exit, Outcome};
use crate::session::Session;

/// Remove the project with its online tables and its registry entries
#[derive(Debug, Args)]
pub(crate) struct Teardown {
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
}

impl Teardown {
    pub(crate) fn run(self, session: &Session) -> Outcome {
        let store = session.store()?;
        let project = store.project().to_owned();
        let terminal = session.terminal();
        // Scripts are not asked, as in Feast.
        if !self.yes
            && terminal.can_ask()
            && !terminal
                .confirm(&format!("remove project `{project}` with its online values and its registry entries?"))
        {
            return Err(Error::invalid_request("nothing was removed").into());
        }
        session.wait(async { store.teardown().await })?;
        terminal.print(format_args!("Removed project {project}"));
        Ok(Exit::Done)
    }
}
