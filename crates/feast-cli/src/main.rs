//! The `feast` command as a program of its own.

use std::process::ExitCode;
use std::sync::Arc;

use feast_cli::ChildPython;

fn main() -> ExitCode {
    let code = feast_cli::run(std::env::args_os(), Arc::new(ChildPython));
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}
