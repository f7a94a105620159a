//! `POST /get-online-features`

use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{Response, StatusCode};
use feast::OnlineRequest;
use feast_core::{Error, ErrorCode, FeatureSelection, Result, RetrievalPlan};
use feast_online::{EntityColumn, EntityRows, OnlineColumn, OnlineFeatures};

use super::body::{Columns, Members, read_json};
use super::json_bytes;
use crate::error::{Answer, Rejection};
use crate::json::{put_instants, put_statuses, put_text, put_values};
use crate::state::Server;

/// A value with its status and time takes about this many bytes.
const BYTES_PER_VALUE: usize = 48;

/// The newest values of features, for one or more entities.
pub(crate) async fn get_online_features(State(server): State<Arc<Server>>, request: Request) -> Answer<Response<Body>> {
    let started = Instant::now();
    let asked = read_json(request, &server.options, Asked::take).await?;
    let entity_rows = entity_rows(asked.entities)?;
    let n_rows = entity_rows.len();
    server.metrics.online_request(n_rows);
    server.metrics.phase("decode", started.elapsed());

    let started = Instant::now();
    let snapshot = server.store.registry().snapshot_checked().await?;
    let plan = snapshot.resolve(server.store.project(), &asked.selection, asked.full_feature_names)?;
    refuse_large_answer(plan.outputs().count() + plan.join_keys.len(), n_rows, server.options.response_limit_values)?;
    let features = server
        .store
        .get_online_features(OnlineRequest {
            selection: asked.selection,
            entity_rows,
            full_feature_names: asked.full_feature_names,
        })
        .await?;
    server.metrics.phase("retrieve", started.elapsed());

    let started = Instant::now();
    let body = encode(&features, asked.with_versions.then_some(plan.as_ref()))?;
    server.metrics.phase("encode", started.elapsed());
    Ok(json_bytes(body))
}

struct Asked {
    entities: Columns,
    selection: FeatureSelection,
    full_feature_names: bool,
    with_versions: bool,
}

impl Asked {
    fn take(members: &mut Members<'_>) -> Self {
        let entities = members.columns("entities");
        let service = members.optional_text("feature_service");
        let features = members.texts("features", false);
        Self {
            entities,
            selection: match service {
                Some(service) => FeatureSelection::ServiceName(service),
                None => FeatureSelection::References(features.unwrap_or_default()),
            },
            full_feature_names: members.flag("full_feature_names", false),
            with_versions: members.flag("include_feature_view_version_metadata", false),
        }
    }
}

fn entity_rows(columns: Columns) -> Result<EntityRows> {
    let given = !columns.is_empty();
    let rows =
        EntityRows::new(columns.into_iter().map(|(name, values)| (name, EntityColumn::Values(values))).collect())?;
    if given && rows.is_empty() {
        let names = feast_core::list_names(rows.names());
        return Err(Error::new(ErrorCode::MissingJoinKey, format!("the entity columns {names} have no values"))
            .with_hint("give at least one value per entity column"));
    }
    Ok(rows)
}

fn refuse_large_answer(columns: usize, rows: usize, limit: usize) -> Answer<()> {
    if columns.saturating_mul(rows) <= limit {
        return Ok(());
    }
    let sentence = format!(
        "the answer would have {columns} columns in {rows} rows, more than {limit} values; ask for fewer at a time"
    );
    Err(Rejection::Refused(StatusCode::PAYLOAD_TOO_LARGE, sentence))
}

/// Writes the answer as Feast does: `results` with one entry per column, then `metadata` with their names.
fn encode(features: &OnlineFeatures, with_versions_of: Option<&RetrievalPlan>) -> Result<Vec<u8>> {
    let mut out = Vec::with_capacity(features.columns.len() * (features.n_rows + 2) * BYTES_PER_VALUE);
    out.extend_from_slice(b"{\"results\":[");
    // Columns of one view share statuses and times: they are written once and copied.
    let mut shared: Option<(&OnlineColumn, Range<usize>)> = None;
    for (number, column) in features.columns.iter().enumerate() {
        out.extend_from_slice(if number == 0 { b"{\"values\":" } else { b",{\"values\":" });
        put_values(&mut out, &column.values, column.value_type)
            .map_err(|error| error.with_context("feature", &column.name))?;
        match shared.as_ref().filter(|(first, _)| is_shared(first, column)) {
            Some((_, written)) => out.extend_from_within(written.clone()),
            None => {
                let start = out.len();
                out.extend_from_slice(b",\"statuses\":");
                put_statuses(&mut out, &column.statuses);
                out.extend_from_slice(b",\"event_timestamps\":");
                put_instants(&mut out, column.event_timestamps.values());
                shared = Some((column, start..out.len()));
            }
        }
        out.push(b'}');
    }
    out.extend_from_slice(b"],\"metadata\":{\"feature_names\":[");
    for (number, column) in features.columns.iter().enumerate() {
        if number > 0 {
            out.push(b',');
        }
        put_text(&mut out, &column.name);
    }
    out.push(b']');
    if let Some(plan) = with_versions_of {
        put_versions(&mut out, plan);
    }
    out.extend_from_slice(b"}}");
    Ok(out)
}

fn is_shared(a: &OnlineColumn, b: &OnlineColumn) -> bool {
    Arc::ptr_eq(&a.statuses, &b.statuses) && Arc::ptr_eq(&a.event_timestamps, &b.event_timestamps)
}

/// The views that were read and the numbers of their definitions; 0 is left out.
fn put_versions(out: &mut Vec<u8>, plan: &RetrievalPlan) {
    out.extend_from_slice(b",\"feature_view_metadata\":[");
    for (number, view) in plan.views.iter().enumerate() {
        out.extend_from_slice(if number == 0 { b"{\"name\":" } else { b",{\"name\":" });
        put_text(out, &view.name);
        let version = view.version.unwrap_or(view.view.meta.current_version_number);
        if version != 0 {
            out.extend_from_slice(format!(",\"version\":{version}").as_bytes());
        }
        out.push(b'}');
    }
    out.push(b']');
}
