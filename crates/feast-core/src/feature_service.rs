//! The set of features one model version uses.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::{DataSource, Field, Meta, Tags};

/// The set of features one model version uses.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct FeatureService {
    /// Unique per project.
    pub name: String,
    /// Owning project.
    #[serde(skip)]
    pub project: String,
    /// What it takes of which view, in order.
    pub projections: Vec<FeatureViewProjection>,
    /// Free labels.
    pub tags: Tags,
    /// For people.
    pub description: String,
    /// Who answers for it.
    pub owner: String,
    /// Whether and where served values are logged.
    pub logging: Option<LoggingConfig>,
    /// Whether the whole vector is kept ready in the online store.
    pub precompute_online: bool,
    /// When it was created and changed.
    #[serde(skip)]
    pub meta: Meta,
}

/// What a service or a request takes of one view.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct FeatureViewProjection {
    /// Name of the view.
    pub feature_view_name: String,
    /// Name under which the features appear; empty: the view's own.
    pub alias: String,
    /// The features taken.
    pub features: Vec<Field>,
    /// Join key of the view -> column of the caller.
    pub join_key_map: BTreeMap<String, String>,
    /// Number of the version asked for.
    pub version_tag: Option<i32>,
    /// Kind of the view as Feast names it.
    #[serde(skip)]
    pub view_type: String,
    /// Copied from the source by Feast; nobody reads it.
    #[serde(skip)]
    pub timestamp_field: String,
    /// Copied from the source by Feast; nobody reads it.
    #[serde(skip)]
    pub date_partition_column: String,
    /// Copied from the source by Feast; nobody reads it.
    #[serde(skip)]
    pub created_timestamp_column: String,
    /// Copied from the view by Feast; nobody reads it.
    #[serde(skip)]
    pub batch_source: Option<DataSource>,
    /// Copied from the view by Feast; nobody reads it.
    #[serde(skip)]
    pub stream_source: Option<DataSource>,
}

impl FeatureViewProjection {
    /// The name under which features appear.
    pub fn name_to_use(&self) -> &str {
        if self.alias.is_empty() { &self.feature_view_name } else { &self.alias }
    }
}

/// Whether and where served values are logged.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LoggingConfig {
    /// Share of the requests that is logged, 0 to 1.
    pub sample_rate: f32,
    /// Where to; `None` when not declared.
    pub destination: Option<LoggingDestination>,
}

/// Where served values are logged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the names are those of Feast's messages")]
pub enum LoggingDestination {
    File { path: String, s3_endpoint_override: String, partition_by: Vec<String> },
    BigQuery { table_ref: String },
    Redshift { table_name: String },
    Athena { table_name: String },
    Snowflake { table_name: String },
    Custom { kind: String, config: Tags },
    CouchbaseColumnar { database: String, scope: String, collection: String },
}
