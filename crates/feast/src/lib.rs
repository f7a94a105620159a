//! The feature store: `feature_store.yaml` put together to parts, and one file per verb.
//!
//! This crate knows every part and none of their insides: the registry gives snapshots, the offline store gives Arrow
//! streams, the online store takes and gives Arrow columns. It knows no protocol: HTTP, gRPC, the command line and
//! Python are built on top of it.
//!
//! ```no_run
//! # async fn example() -> feast_core::Result<()> {
//! let config = feast::RepoConfig::load(std::path::Path::new("feature_repo"), None)?;
//! let store = feast::FeatureStore::open(config)?;
//! let snapshot = store.registry().snapshot().await?;
//! println!("{} projects", snapshot.projects.len());
//! # Ok(()) }
//! ```

mod config;
mod observer;
mod online_serving;
mod store;

mod apply;
mod check_online_store;
mod definitions;
mod delete;
mod doctor;
mod explain_online;
mod freshness;
mod get_historical_features;
mod get_online_features;
mod history;
mod logged_features;
mod materialize;
mod on_demand;
mod pins;
mod push;
mod registry_changes;
mod saved_dataset;
mod saved_plan;
mod sink;
mod transformations;
mod try_on_demand_views;
mod versions;
mod view_state;

pub use apply::{ApplyOptions, ApplyPlan, TableAction, TablePlan};
pub use check_online_store::{OnlineStoreReport, OnlineTableProblem, OnlineTableReport};
pub use config::{CONFIG_FILE, OfflinePushBatching, RegistryConfig, RepoConfig, TransformationsConfig};
pub use definitions::{Definitions, LoadProblem, problems_error};
pub use doctor::{Finding, Severity, secrets_in};
pub use explain_online::{Cause, ExplainedValues, ExplainedView, OnlineExplanation, Phase, parse_selection};
pub use feast_core::{Wait, Window};
pub use freshness::{Freshness, Newest, ToldBy};
pub use get_historical_features::HistoricalFeatures;
pub use get_online_features::{OnlineAnswer, OnlineRequest};
pub use materialize::{MaterializeReport, MaterializeRequest, MaterializedView};
pub use observer::{Event, Observer, Silent};
pub use online_serving::OnlineServing;
pub use push::PushTarget;
pub use registry_changes::managed_tables;
pub use saved_dataset::{DatasetFromHistory, DatasetRows, SaveDataset};
pub use saved_plan::SavedPlan;
pub use store::{FeatureStore, FeatureStoreBuilder};
pub use versions::HeldBack;
