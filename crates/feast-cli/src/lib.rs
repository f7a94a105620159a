//! The `feast` command line: one file per command, on top of the facade.
//!
//! Data goes to stdout, everything else to stderr. Exit codes: 0 done, 1 failed, 2 wrong usage (and `plan --exit-code`
//! when there are changes), 130 interrupted. This crate knows no store, and protobuf only as the JSON that is shown.
//! What needs Python (loading the definitions of a repository) is behind [`DefinitionLoader`], because the command
//! runs inside Python as well as without it.
//!
//! ```no_run
//! use std::sync::Arc;
//!
//! let arguments = ["feast", "plan", "--exit-code"].map(Into::into);
//! let exit_code = feast_cli::run(arguments, Arc::new(feast_cli::ChildPython));
//! # let _: i32 = exit_code;
//! ```
//!
//! Reading order: `arguments` (what can be said), `session` (what every command shares), `commands`, then how things
//! are shown (`terminal`, `table`, `cells`, `changes`, `progress`, `timestamp`).

mod allocator;
mod arguments;
mod loader;
mod resident;
mod session;

mod commands;

mod cells;
mod changes;
mod exit;
mod progress;
mod table;
mod terminal;
mod timestamp;
mod traces;

use std::ffi::OsString;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory, FromArgMatches};

pub use loader::{ChildPython, DefinitionLoader, LoadedRepository};
pub use traces::trace_options;

use arguments::Arguments;
use exit::Failure;
use session::Session;
use terminal::Terminal;

/// Options that stand before the command only, because commands have others of these names.
const GLOBAL_ONLY: [&str; 4] = ["-c", "--chdir", "-f", "--feature-store-yaml"];

/// Runs a command line, program name first, and returns the exit code.
pub fn run(args: impl IntoIterator<Item = OsString>, loader: Arc<dyn DefinitionLoader>) -> i32 {
    let args: Vec<OsString> = args.into_iter().collect();
    let command = Arguments::command().color(terminal::color_of_help(&args));
    let parsed = command.try_get_matches_from(&args).and_then(|matches| Arguments::from_arg_matches(&matches));
    let arguments = match parsed {
        Ok(arguments) => arguments,
        Err(error) => return usage(error),
    };
    let terminal = Terminal::new(&arguments.global);
    terminal::log_to_stderr(&terminal, arguments.global.log_level, arguments.command.is_server());
    terminal::tell_defects();
    let session = Session::new(&arguments.global, terminal, loader);
    let outcome = catch_unwind(AssertUnwindSafe(|| arguments.command.run(&session)));
    let terminal = session.terminal();
    let code = match outcome {
        Ok(Ok(exit)) => exit.code(),
        Ok(Err(Failure::Error(error))) => {
            terminal.error(&error);
            1
        }
        Ok(Err(Failure::Usage(error))) => usage(*error),
        Ok(Err(Failure::Interrupted)) => {
            terminal.say("interrupted");
            130
        }
        // The hook has told what happened.
        Err(_) => 1,
    };
    terminal.finish(code)
}

fn usage(mut error: clap::Error) -> i32 {
    if let (ErrorKind::UnknownArgument, Some(ContextValue::String(given))) =
        (error.kind(), error.get(ContextKind::InvalidArg))
        && let Some(option) = GLOBAL_ONLY.iter().find(|option| given == *option)
    {
        let tip = format!("`{option}` stands before the command: `feast {option} … COMMAND`");
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.into()]));
    }
    // Nobody is left to tell when this fails.
    let _ = error.print();
    error.exit_code()
}
