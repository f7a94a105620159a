//! `feast apply`.

use std::path::{Path, PathBuf};

use clap::Args;
use feast::{ApplyOptions, Definitions, SavedPlan};
use feast_core::{Error, ErrorCode, Result};

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
    /// Do exactly what `plan --out` has saved, without looking at the repository; fails when the registry has changed
    /// so that it would be something else
    #[arg(long, value_name = "FILE", conflicts_with_all = ["prune", "skip_source_validation", "skip_feature_view_validation"])]
    plan: Option<PathBuf>,
    /// Accepted for Feast's sake: applying shows no progress bar
    #[arg(long, hide = true)]
    no_progress: bool,
    /// Record changed feature views as new versions, and leave the current ones in place
    #[arg(long, conflicts_with = "plan")]
    no_promote: bool,
}

impl Apply {
    pub(crate) fn run(self, session: &Session) -> Outcome {
        let terminal = session.terminal();
        let store = session.store_of_definitions()?;
        let saved = self.plan.as_deref().map(read_plan).transpose()?;
        let definitions = match saved {
            Some(_) => Definitions::default(),
            None => session.definitions(store.project())?,
        };
        let for_people = matches!(terminal.format(), None | Some(Format::Table));
        if for_people {
            terminal.print(format_args!("Applying changes for project {}", store.project()));
        }
        let options = ApplyOptions { no_promote: self.no_promote, ..self.checks.options(self.prune) };
        let plan = match &saved {
            Some(saved) => session.wait(store.apply_saved(saved))?,
            None => session.wait(store.apply(&definitions, &options))?,
        };
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

fn read_plan(path: &Path) -> Result<SavedPlan> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        Error::new(ErrorCode::FileNotFound, format!("the plan `{}` cannot be read", path.display()))
            .with_hint("make one with `feast plan --out FILE`")
            .with_source(error)
    })?;
    SavedPlan::parse(&text).map_err(|error| error.with_context("file", path.display()))
}
