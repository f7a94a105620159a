//! The servers, seen by their clients. One program: each would be linked with all of the product.
#![allow(clippy::unwrap_used, missing_docs, unreachable_pub, reason = "tests")]

mod fixture;

mod faults;
mod fuzz_programs;
mod hostile;
mod offline_batches;
mod online;
mod remote_conformance;
mod remote_registry;
mod remote_store;
mod scenarios;
mod serve;
mod stored_values;
