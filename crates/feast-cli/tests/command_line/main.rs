//! The built command, seen from outside: exit code, stdout and stderr.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

mod arguments;
mod changes;
mod explain;
mod init;
mod objects;
mod on_demand;
mod online_store;
mod registry;
mod serve;
mod values;
