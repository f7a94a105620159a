//! `feast completion`.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::arguments::Arguments;
use crate::exit::{Exit, Outcome};
use crate::session::Session;

/// Print the completion script of a shell
#[derive(Debug, Args)]
pub(crate) struct Completion {
    /// The shell; try `source <(feast completion bash)`
    #[arg(value_enum)]
    shell: Shell,
}

impl Completion {
    pub(crate) fn run(self, session: &Session) -> Outcome {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Arguments::command(), "feast", &mut script);
        session.terminal().print(String::from_utf8_lossy(&script).trim_end());
        Ok(Exit::Done)
    }
}
