//! A plan as a file: made and looked at in one job, applied exactly in another.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use feast_core::{Error, RegistrySnapshot, Result};
use prost::Message;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{ApplyOptions, ApplyPlan, Definitions, FeatureStore};

/// The layout of the file.
const FORMAT: u32 = 1;

/// What was planned, and the definitions it was made of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SavedPlan {
    format: u32,
    /// The project.
    pub project: String,
    prune: bool,
    /// The version of the registry that was planned against.
    pub base: Option<String>,
    /// As [`ApplyPlan::outline`] tells it.
    pub outline: Value,
    /// The definitions after inference: a `feast.core.Registry` in base64.
    definitions: String,
}

impl SavedPlan {
    /// A plan that was made with these options.
    ///
    /// # Errors
    /// `Internal` when the plan cannot be told.
    pub fn new(plan: &ApplyPlan, options: &ApplyOptions) -> Result<Self> {
        let project = plan.inferred.project.name.clone();
        let mut snapshot = RegistrySnapshot::default();
        snapshot.projects.insert(project.clone(), Arc::new(plan.inferred.clone()));
        let message = feast_proto::registry_from_snapshot(&snapshot, Some(project.as_str()));
        Ok(Self {
            format: FORMAT,
            project,
            prune: options.prune,
            base: plan.base.as_ref().map(ToString::to_string),
            outline: plan.outline()?,
            definitions: STANDARD.encode(message.encode_to_vec()),
        })
    }

    /// Reads the text of a file.
    ///
    /// # Errors
    /// `InvalidRequest` when it is not a plan.
    pub fn parse(text: &str) -> Result<Self> {
        let not_a_plan = || {
            Error::invalid_request("the file is not a saved plan, or one of another release")
                .with_hint("make one with `feast plan --out FILE`")
        };
        let saved: Self = serde_json::from_str(text).map_err(|error| not_a_plan().with_source(error))?;
        if saved.format == FORMAT { Ok(saved) } else { Err(not_a_plan()) }
    }
}

impl FeatureStore {
    /// Applies exactly what was planned.
    ///
    /// # Errors
    /// `Conflict` when the registry has changed so that applying would do something else; `InvalidRequest` for the
    /// plan of another project; and as [`FeatureStore::apply`].
    pub async fn apply_saved(&self, saved: &SavedPlan) -> Result<ApplyPlan> {
        if saved.project != self.project() {
            return Err(Error::invalid_request(format!(
                "the plan is for project `{}`, this is project `{}`",
                saved.project,
                self.project()
            ))
            .with_hint("apply it in the repository where it was made, with the same configuration"));
        }
        let message = STANDARD.decode(&saved.definitions);
        let message =
            message.map_err(|error| Error::invalid_request("the saved plan is damaged").with_source(error))?;
        let definitions = Definitions::from_message(&message, self.project())?;
        // Sources were looked at when the plan was made.
        let options = ApplyOptions {
            prune: saved.prune,
            skip_source_validation: true,
            skip_feature_view_validation: true,
            approved: Some(saved.outline.clone()),
            ..ApplyOptions::default()
        };
        self.apply(&definitions, &options).await
    }
}
