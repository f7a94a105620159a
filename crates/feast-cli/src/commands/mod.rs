//! One file per command.

pub(crate) mod init;

pub(crate) mod apply;
pub(crate) mod plan;
pub(crate) mod teardown;

pub(crate) mod explain;
pub(crate) mod freshness;
pub(crate) mod get_historical_features;
pub(crate) mod get_online_features;
pub(crate) mod materialize;
pub(crate) mod materialize_incremental;
pub(crate) mod serve;
pub(crate) mod serve_registry;
pub(crate) mod serve_transformations;

pub(crate) mod delete;
pub(crate) mod feature_views;
pub(crate) mod features;
pub(crate) mod objects;
pub(crate) mod online_store;
pub(crate) mod permissions;
pub(crate) mod projects;
pub(crate) mod registry;
pub(crate) mod registry_dump;

pub(crate) mod completion;
pub(crate) mod configuration;
pub(crate) mod doctor;
pub(crate) mod endpoint;
pub(crate) mod version;

pub(crate) mod later;

use feast_core::{Error, Result};
use serde::Serialize;
use serde_json::Value;

/// A report as a structured answer.
fn to_value(report: &impl Serialize) -> Result<Value> {
    serde_json::to_value(report).map_err(|error| Error::internal("a report cannot be written").with_source(error))
}
