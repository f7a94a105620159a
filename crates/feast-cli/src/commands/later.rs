//! Commands that Feast has and this version does not have yet. They are named so that the answer is a clear one.

use std::ffi::OsString;

use clap::Args;
use feast_core::Error;

use crate::exit::Outcome;

/// Takes any arguments.
#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Later {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    arguments: Vec<OsString>,
}

impl Later {
    pub(crate) fn run(self, command: &str) -> Outcome {
        let _ = self.arguments;
        Err(Error::unsupported(format!("`feast {command}` is not available yet")).into())
    }
}
