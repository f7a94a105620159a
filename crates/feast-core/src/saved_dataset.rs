//! A training set that was kept, and the profile it is compared with.

use bytes::Bytes;
use serde::Serialize;

use crate::{DataSourceOptions, Tags, Timestamp};

/// A training set that was kept, with how it was made.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
#[allow(missing_docs, reason = "the names are those of Feast's message")]
pub struct SavedDataset {
    pub name: String,
    #[serde(skip)]
    pub project: String,
    /// Feature references.
    pub features: Vec<String>,
    pub join_keys: Vec<String>,
    pub full_feature_names: bool,
    pub storage: SavedDatasetStorage,
    pub feature_service_name: String,
    pub tags: Tags,
    pub namespace: String,
    pub collection: String,
    pub description: String,
    pub columns: Vec<SavedDatasetColumn>,
    #[serde(skip)]
    pub meta: SavedDatasetMeta,
}

/// A column of a saved dataset.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[allow(missing_docs, reason = "the names are those of Feast's message")]
pub struct SavedDatasetColumn {
    pub name: String,
    pub value_type: String,
    pub description: String,
    pub nullable: Option<bool>,
}

/// Where the rows of a saved dataset rest: the options of a data source without its columns.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
#[serde(transparent)]
pub struct SavedDatasetStorage(pub DataSourceOptions);

/// When a saved dataset was made and what time it spans.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[allow(missing_docs, reason = "the names say it")]
pub struct SavedDatasetMeta {
    pub created: Option<Timestamp>,
    pub updated: Option<Timestamp>,
    pub min_event_timestamp: Option<Timestamp>,
    pub max_event_timestamp: Option<Timestamp>,
}

/// What a new dataset is validated against.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
#[allow(missing_docs, reason = "the names are those of Feast's message")]
pub struct ValidationReference {
    pub name: String,
    #[serde(skip)]
    pub project: String,
    pub reference_dataset_name: String,
    pub description: String,
    pub tags: Tags,
    pub profiler: Option<Profile>,
    pub cached_profile: Option<Profile>,
}

/// Bytes of a profiler or a profile as its Python class wrote them; never loaded by this product.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Profile(#[serde(serialize_with = "crate::data_source::text_or_length")] pub Bytes);
