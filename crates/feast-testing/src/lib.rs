//! Conformance suites: what every backend of a trait promises, as tests that a backend runs with one line.

pub mod online_suite;
pub mod registry_suite;

pub mod services;

pub use online_suite::{Limit, StartedStore};
