//! Where the time of an online request goes, and where its nulls come from.

use std::time::{Duration, Instant};

use arrow::array::Array;
use feast_core::{FeatureSelection, PlannedView, Result, RetrievalPlan, Timestamp, is_expired, span_text};
use feast_online::{FieldStatus, OnlineColumn, OnlineFeatures};
use serde::Serialize;

use crate::{FeatureStore, OnlineRequest};

/// An online request, taken apart.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct OnlineExplanation {
    /// The parts of the request, in order.
    pub phases: Vec<Phase>,
    /// The stored views it reads.
    pub views: Vec<ExplainedView>,
    /// Its nulls, and the values that are served although they are too old.
    pub values: Vec<ExplainedValues>,
    /// Number of rows.
    pub rows: usize,
}

/// A part of a request.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Phase {
    /// `registry`, `plan`, `keys`, `store` or `transform`.
    pub phase: &'static str,
    /// How long it took the first time, with nothing open and nothing remembered.
    pub first_ms: f64,
    /// How long it took when the same was asked again, as in a server.
    pub again_ms: f64,
}

/// What was read of a view.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ExplainedView {
    /// Name under which its features appear.
    pub view: String,
    /// Table of the online store, where stores have tables.
    pub table: String,
    /// Columns that identify a row.
    pub join_keys: Vec<String>,
    /// How many features were read.
    pub features: usize,
    /// How many rows of the request were found.
    pub rows_found: usize,
    /// How long a value counts; none: for ever.
    pub ttl_seconds: Option<f64>,
    /// Up to when the view was materialized; none: never.
    pub materialized_until: Option<Timestamp>,
}

/// Features of one row that have something in common.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ExplainedValues {
    /// Number of the row, from 0.
    pub row: usize,
    /// Name under which the features appear.
    pub view: String,
    /// Which features.
    pub features: Vec<String>,
    /// In one word.
    pub cause: Cause,
    /// In a sentence.
    pub why: String,
}

/// Why a value is null, or served although it is too old.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// The view was never materialized, so there can be no row.
    NeverMaterialized,
    /// There is no row for this entity.
    EntityMissing,
    /// There is a row, and it holds no value.
    ValueNull,
    /// The row is older than the ttl of the view, and the policy hides it.
    TooOld,
    /// The row is older than the ttl of the view, and the policy serves it.
    ServedTooOld,
    /// The store failed, and the view falls back to null.
    StoreFailed,
    /// The function of an on-demand view returned no value.
    Computed,
}

impl Cause {
    /// In words.
    pub fn name(self) -> &'static str {
        match self {
            Self::NeverMaterialized => "never materialized",
            Self::EntityMissing => "entity missing",
            Self::ValueNull => "value null",
            Self::TooOld => "too old",
            Self::ServedTooOld => "served too old",
            Self::StoreFailed => "store failed",
            Self::Computed => "computed",
        }
    }
}

impl FeatureStore {
    /// Answers a request twice and says where the time went, what was read, and why values are null.
    ///
    /// # Errors
    /// Those of [`get_online_features`](Self::get_online_features): a disabled view, an unknown feature, a missing key.
    pub async fn explain_online_features(&self, request: &OnlineRequest) -> Result<OnlineExplanation> {
        let first = self.timed(request).await?;
        let again = self.timed(request).await?;
        let OnlineRun { plan, features, .. } = &again;
        let milliseconds = |time: Duration| time.as_secs_f64() * 1000.0;
        let phases = first.times().into_iter().zip(again.times()).map(|((phase, first), (_, again))| Phase {
            phase,
            first_ms: milliseconds(first),
            again_ms: milliseconds(again),
        });
        let now = chrono::Utc::now();
        Ok(OnlineExplanation {
            phases: phases.collect(),
            views: by_view(plan, features).map(|(view, columns)| explained_view(view, &columns)).collect(),
            values: explained_values(plan, features, now),
            rows: features.n_rows,
        })
    }

    async fn timed(&self, request: &OnlineRequest) -> Result<OnlineRun> {
        let started = Instant::now();
        self.registry.snapshot().await?;
        let registry = started.elapsed();
        let started = Instant::now();
        let OnlineRequest { selection, entity_rows, full_feature_names } = request;
        let resolve = |snapshot: &feast_core::RegistrySnapshot, project: &str| {
            snapshot.resolve(project, selection, *full_feature_names)
        };
        let plan = self.online_plan(resolve).await?;
        let planned = started.elapsed();
        let features = self.retrieve_online(&plan, entity_rows, None).await?;
        Ok(OnlineRun { plan, features, registry, planned })
    }
}

/// What `what` names: a feature service, or references separated by commas.
pub fn parse_selection(what: &str) -> FeatureSelection {
    match what.contains(':') {
        true => FeatureSelection::References(what.split(',').map(|reference| reference.trim().to_owned()).collect()),
        false => FeatureSelection::ServiceName(what.to_owned()),
    }
}

struct OnlineRun {
    plan: std::sync::Arc<RetrievalPlan>,
    features: OnlineFeatures,
    registry: Duration,
    planned: Duration,
}

impl OnlineRun {
    fn times(&self) -> [(&'static str, Duration); 5] {
        let timings = self.features.timings;
        [
            ("registry", self.registry),
            ("plan", self.planned),
            ("keys", timings.keys),
            ("store", timings.store),
            ("transform", timings.transform),
        ]
    }
}

/// The stored views with the columns that were returned of them.
fn by_view<'a>(
    plan: &'a RetrievalPlan,
    features: &'a OnlineFeatures,
) -> impl Iterator<Item = (&'a PlannedView, Vec<&'a OnlineColumn>)> {
    let n_entity_columns = features.columns.len().saturating_sub(plan.outputs().count());
    let mut columns = features.columns.iter().skip(n_entity_columns);
    plan.views.iter().map(move |view| {
        let returned = view.features.iter().filter(|feature| feature.returned).count();
        (view, columns.by_ref().take(returned).collect())
    })
}

fn explained_view(view: &PlannedView, columns: &[&OnlineColumn]) -> ExplainedView {
    let found = |status: &&FieldStatus| matches!(status, FieldStatus::Present | FieldStatus::OutsideMaxAge);
    ExplainedView {
        view: view.name.clone(),
        table: view.online.table.name(),
        join_keys: view.join_keys.iter().map(|key| key.column.clone()).collect(),
        features: view.features.len(),
        rows_found: columns.first().map_or(0, |column| column.statuses.iter().filter(found).count()),
        ttl_seconds: view.ttl.limit().map(|ttl| ttl.as_seconds_f64()),
        materialized_until: view.view.most_recent_end(),
    }
}

fn explained_values(plan: &RetrievalPlan, features: &OnlineFeatures, now: Timestamp) -> Vec<ExplainedValues> {
    let mut explained: Vec<ExplainedValues> = Vec::new();
    let mut add = |row: usize, view: &str, column: &OnlineColumn, cause: Cause, why: String| {
        let same = |known: &&mut ExplainedValues| known.row == row && known.view == view && known.cause == cause;
        match explained.iter_mut().find(same) {
            Some(known) => known.features.push(column.name.to_string()),
            None => explained.push(ExplainedValues {
                row,
                view: view.to_owned(),
                features: vec![column.name.to_string()],
                cause,
                why,
            }),
        }
    };
    for (view, columns) in by_view(plan, features) {
        for column in columns {
            for row in 0..features.n_rows {
                if let Some((cause, why)) = cause_of(view, features, column, row, now) {
                    add(row, &view.name, column, cause, why);
                }
            }
        }
    }
    let computed = plan.on_demand.iter().map(|view| view.features.len()).sum::<usize>();
    let mut columns = features.columns.iter().skip(features.columns.len().saturating_sub(computed));
    for view in &plan.on_demand {
        for column in columns.by_ref().take(view.features.len()) {
            for row in (0..features.n_rows).filter(|row| column.values.is_null(*row)) {
                let why = format!("the function of `{}` returned no value for this row", view.name);
                add(row, &view.name, column, Cause::Computed, why);
            }
        }
    }
    explained.sort_by_key(|values| values.row);
    explained
}

fn cause_of(
    view: &PlannedView,
    features: &OnlineFeatures,
    column: &OnlineColumn,
    row: usize,
    now: Timestamp,
) -> Option<(Cause, String)> {
    let is_null = column.values.is_null(row);
    let time = Timestamp::from_timestamp_micros(column.event_timestamp_micros(row)).unwrap_or_default();
    let age = || {
        let ttl = view.ttl.limit().map_or(0.0, |ttl| ttl.as_seconds_f64());
        let age = span_text((now - time).as_seconds_f64());
        format!("the row is of {time}, {age} ago, and the ttl of the view is {}", span_text(ttl))
    };
    match column.statuses[row] {
        FieldStatus::Invalid => {
            let failure = features.failures.iter().find(|failure| failure.view == view.view.name);
            Some((Cause::StoreFailed, failure.map_or_else(String::new, |failure| failure.message.clone())))
        }
        FieldStatus::NotFound => Some(match view.view.most_recent_end() {
            Some(end) => (Cause::EntityMissing, format!("there is no row for this entity; materialized until {end}")),
            None => {
                let why =
                    "there is no row for this entity, and the view was never materialized: run `feast materialize`";
                (Cause::NeverMaterialized, why.to_owned())
            }
        }),
        FieldStatus::OutsideMaxAge if is_null => Some((Cause::TooOld, age())),
        FieldStatus::OutsideMaxAge => Some((Cause::ServedTooOld, age())),
        _ if is_null => Some((Cause::ValueNull, format!("the row of {time} holds no value"))),
        _ if is_expired(view.ttl, time, now) => Some((Cause::ServedTooOld, age())),
        _ => None,
    }
}
