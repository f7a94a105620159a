//! `feast plan`.

use std::path::PathBuf;

use clap::Args;
use feast::{ApplyOptions, FeatureStore, SavedPlan};
use feast_core::Error;

use crate::changes;
use crate::exit::{Exit, Outcome};
use crate::session::Session;
use crate::terminal::Format;

/// Show what `apply` would change, and change nothing
#[derive(Debug, Args)]
pub(crate) struct Plan {
    #[command(flatten)]
    checks: Checks,
    /// Show what `apply --prune` would change
    #[arg(long)]
    prune: bool,
    /// Exit with 2 when there are changes
    #[arg(long)]
    exit_code: bool,
    /// Save the plan, for `apply --plan`
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// How closely definitions are checked.
#[derive(Debug, Args)]
pub(crate) struct Checks {
    /// Do not look at the data of sources, except where a definition leaves something open
    #[arg(long)]
    skip_source_validation: bool,
    /// Do not check feature views against their sources
    #[arg(long)]
    skip_feature_view_validation: bool,
}

impl Checks {
    pub(crate) fn options(&self, prune: bool) -> ApplyOptions {
        ApplyOptions {
            prune,
            skip_source_validation: self.skip_source_validation,
            skip_feature_view_validation: self.skip_feature_view_validation,
            ..ApplyOptions::default()
        }
    }
}

impl Plan {
    pub(crate) fn run(self, session: &Session) -> Outcome {
        let store = session.store_of_definitions()?;
        let definitions = session.definitions(store.project())?;
        let options = self.checks.options(self.prune);
        let plan = session.wait(store.plan(&definitions, &options))?;
        if let Some(path) = &self.out {
            let saved = super::to_value(&SavedPlan::new(&plan, &options)?)?;
            std::fs::write(path, saved.to_string()).map_err(|error| {
                Error::invalid_request(format!("the plan cannot be saved in `{}`", path.display()))
                    .with_hint("name a file in a folder that exists and that this user may write to")
                    .with_source(error)
            })?;
        }
        for warning in plan.warnings.iter().filter(|warning| !store.config().warnings.contains(warning)) {
            session.terminal().warn(warning);
        }
        let terminal = session.terminal();
        match terminal.format() {
            None | Some(Format::Table) => terminal.print(changes::planned(&plan, online_store_type(&store), terminal)),
            Some(format) => terminal.print_value(&super::to_value(&plan)?, format),
        }
        Ok(if self.exit_code && !plan.is_empty() { Exit::Changes } else { Exit::Done })
    }
}

/// Type of the online store, as the configuration names it.
pub(crate) fn online_store_type(store: &FeatureStore) -> &str {
    store.config().online_store.as_ref().map_or("online", |(name, _)| name)
}
