//! `feast apply`.

use clap::Args;

use super::plan::{Checks, online_store_type};
use crate::changes;
use crate::exit::{Exit, Outcome};
use crate::session::Session;
use crate::terminal::Format;

/// Make the registry and the online store like the definitions
#[derive(Debug, Args)]
pub(crate) struct Apply {
    #[command(flatten)]
    checks: Checks,
    /// Delete what the registry has and the repository does not define
    #[arg(long)]
    prune: bool,
    /// Accepted for Feast's sake: applying shows no progress bar
    #[arg(long, hide = true)]
    no_progress: bool,
    /// Accepted for Feast's sake: new versions always become the current ones
    #[arg(long, hide = true)]
    no_promote: bool,
}

impl Apply {
    pub(crate) fn run(self, session: &Session) -> Outcome {
        let terminal = session.terminal();
        if self.no_promote {
            terminal.warn("`--no-promote` has no effect yet: new versions become the current ones");
        }
        let store = session.store()?;
        let definitions = session.definitions(store.project())?;
        let for_people = matches!(terminal.format(), None | Some(Format::Table));
        if for_people {
            terminal.print(format_args!("Applying changes for project {}", store.project()));
        }
        let plan = session.wait(store.apply(&definitions, &self.checks.options(self.prune)))?;
        for warning in plan.warnings.iter().filter(|warning| !store.config().warnings.contains(warning)) {
            terminal.warn(warning);
        }
        match terminal.format() {
            Some(format) if !for_people => terminal.print_value(&super::to_value(&plan)?, format),
            _ => terminal.print(changes::applied(&plan, online_store_type(&store), terminal)),
        }
        Ok(Exit::Done)
    }
}
