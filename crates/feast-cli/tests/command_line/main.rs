//! The built command, seen from outside: exit code, stdout and stderr.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

mod arguments;
mod changes;
mod init;
mod objects;
mod registry;
mod values;
