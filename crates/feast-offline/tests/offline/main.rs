//! The offline store. One program: each would be linked with every query engine.
#![allow(clippy::unwrap_used, reason = "tests")]

mod computed_history;
mod files;
mod point_in_time;
mod postgres;
