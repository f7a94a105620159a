//! `POST /get-online-features`

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::ipc::writer::StreamWriter;
use axum::body::Body;
use axum::extract::State;
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode};
use feast_core::{
    Error, ErrorCode, FeatureSelection, PlannedView, RegistrySnapshot, Result, RetrievalPlan, ValueType, timestamp_type,
};
use feast_online::{
    EntityColumn, EntityRows, Fallback, FieldStatus, OnlineColumn, OnlineFeatures, StoredFeatures, StoredView, Timings,
};
use futures::future::BoxFuture;
use tokio::runtime::Handle;

use super::body::{Columns, Received};
use super::json_bytes;
use super::online_body::{self, OnlineBody};
use super::written::Written;
use crate::error::{Answer, Rejection};
use crate::json::{put_instants, put_statuses, put_stored, put_text, put_values, stored_lists};
use crate::metrics::PhaseTimes;
use crate::options::ServeOptions;
use crate::state::Server;
use crate::threads::Elsewhere;
use crate::traces::OnlineParts;

/// A value takes about so many bytes, and its status and time as many more.
const BYTES_PER_VALUE: usize = 16;
const BYTES_PER_STATUS: usize = 32;

/// The media type of columns in Arrow's stream format.
pub(super) const ARROW_STREAM: &str = "application/vnd.apache.arrow.stream";

/// The newest values of features, for one or more entities.
pub(crate) async fn get_online_features(
    State(server): State<Arc<Server>>,
    received: Received,
) -> Answer<Response<Body>> {
    server.admit(received.deadline, answer(&server, &Arc::new(received), Here::Always)).await
}

/// Requests for more than so many values, which take more than a millisecond, are worked on elsewhere.
const MANY_VALUES: usize = 10_000;

fn answer_here(server: Arc<Server>, received: Arc<Received>) -> BoxFuture<'static, Answer<Response<Body>>> {
    Box::pin(async move { answer(&server, &received, Here::Again).await })
}

/// Where a request is worked on.
#[derive(Debug, Clone, Copy)]
pub(super) enum Here<'a> {
    Always,
    /// Unless it may take long, and then on this runtime.
    Unless(&'a Handle),
    /// It came from another runtime.
    Again,
}

pub(super) async fn answer(server: &Arc<Server>, received: &Arc<Received>, here: Here<'_>) -> Answer<Response<Body>> {
    let started = Instant::now();
    let asked = Asked::parse(received, &server.options)?;
    let n_rows = asked.body.entity_rows.len();
    if !matches!(here, Here::Again) {
        server.metrics.online_request(n_rows);
    }

    let parsed = Instant::now();
    let plan = server.store.online_plan(|snapshot, project| asked.resolve(snapshot, project)).await?;
    let n_columns = plan.outputs().count() + plan.join_keys.len();
    refuse_large_answer(n_columns, n_rows, server.options.response_limit_values)?;
    if let Here::Unless(runtime) = here
        && (n_columns * n_rows > MANY_VALUES || !server.store.computes_quickly(&plan))
    {
        return Elsewhere::run(runtime, answer_here(Arc::clone(server), Arc::clone(received))).await;
    }
    let planned = Instant::now();
    // Without a fallback there is nothing to do at the deadline but to stop.
    let falls_back = server.store.config().online_serving.fallback != Fallback::None;
    let deadline = falls_back.then_some(received.deadline);
    let stored = match wants_arrow(&received.headers) {
        true => None,
        false => server.store.retrieve_stored(&plan, &asked.body.entity_rows, deadline).await?,
    };
    if let Some(features) = stored {
        let retrieved = Instant::now();
        let mut response = json_bytes(encode_stored(&features, asked.body.with_versions)?);
        let times = phase_times([started, parsed, planned, retrieved], features.timings);
        tell_times(server, &mut response, &plan, times, started, n_rows);
        return Ok(response);
    }
    // Few requests come here; those that do not would be larger by the room for it.
    let retrieving = Box::pin(server.store.retrieve_online(&plan, &asked.body.entity_rows, deadline));
    let features = retrieving.await?;
    for failure in &features.failures {
        server.metrics.fell_back(&failure.view);
        tracing::warn!(
            feature_view = failure.view,
            error = failure.message,
            "the online store failed; nulls are served"
        );
    }

    let retrieved = Instant::now();
    let mut response = if wants_arrow(&received.headers) {
        let mut response = Response::new(Body::from(arrow_stream(&features)?));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(ARROW_STREAM));
        response
    } else {
        json_bytes(encode(&features, &plan, asked.body.with_versions)?)
    };
    let times = phase_times([started, parsed, planned, retrieved], features.timings);
    tell_times(server, &mut response, &plan, times, started, n_rows);
    Ok(response)
}

fn phase_times([started, parsed, planned, retrieved]: [Instant; 4], timings: Timings) -> PhaseTimes {
    PhaseTimes {
        parse: parsed - started,
        plan: (planned - parsed) + timings.keys,
        store: timings.store,
        transform: timings.transform,
        encode: retrieved.elapsed(),
    }
}

fn tell_times(
    server: &Server,
    response: &mut Response<Body>,
    plan: &RetrievalPlan,
    times: PhaseTimes,
    started: Instant,
    entity_rows: usize,
) {
    server.metrics.online_phases(plan.feature_service.as_deref(), &times);
    if server.traces.is_some() {
        let service = plan.feature_service.clone();
        response.extensions_mut().insert(OnlineParts { started, times, service, entity_rows });
    }
}

struct Asked<'a> {
    body: OnlineBody<'a>,
}

impl<'a> Asked<'a> {
    fn parse(received: &'a Received, options: &ServeOptions) -> Answer<Self> {
        if let Some(body) = online_body::parse(received.json_text()?, options.request_limit_values) {
            return Ok(Self { body });
        }
        let (columns, body) = received.json(options, |members| {
            let entities = members.columns("entities");
            let feature_service = members.optional_text("feature_service").map(Cow::Owned);
            let features = members.texts("features", false).unwrap_or_default();
            let body = OnlineBody {
                entity_rows: EntityRows::default(),
                features: features.into_iter().map(Cow::Owned).collect(),
                feature_service,
                full_feature_names: members.flag("full_feature_names", false),
                with_versions: members.flag("include_feature_view_version_metadata", false),
            };
            (entities, body)
        })?;
        Ok(Self { body: OnlineBody { entity_rows: entity_rows(columns)?, ..body } })
    }

    fn resolve(&self, snapshot: &RegistrySnapshot, project: &str) -> Result<Arc<RetrievalPlan>> {
        let full_feature_names = self.body.full_feature_names;
        match &self.body.feature_service {
            Some(service) => {
                let selection = FeatureSelection::ServiceName(service.clone().into_owned());
                snapshot.resolve(project, &selection, full_feature_names)
            }
            None => snapshot.resolve_references(project, &self.body.features, full_feature_names),
        }
    }
}

fn entity_rows(columns: Columns) -> Result<EntityRows> {
    let given = !columns.is_empty();
    let rows = EntityRows::from_json(
        columns.into_iter().map(|(name, values)| (name, EntityColumn::Values(values))).collect(),
    )?;
    if given && rows.is_empty() {
        let names = feast_core::list_names(rows.names());
        return Err(Error::new(ErrorCode::MissingJoinKey, format!("the entity columns {names} have no values"))
            .with_hint("give at least one value per entity column"));
    }
    Ok(rows)
}

/// Whether the client asks for columns instead of JSON.
fn wants_arrow(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    accepted.flat_map(|value| value.split(',')).any(|media_type| {
        media_type.split(';').next().is_some_and(|essence| essence.trim().eq_ignore_ascii_case(ARROW_STREAM))
    })
}

/// The answer in Arrow's stream format: the columns of the JSON answer by name, then the statuses and event times. Those
/// are the same for all features of a view, so they are there once, and each feature names its own in its metadata.
fn arrow_stream(features: &OnlineFeatures) -> Result<Vec<u8>> {
    let mut fields = Vec::with_capacity(features.columns.len() + 4);
    let mut columns: Vec<ArrayRef> = Vec::with_capacity(features.columns.len() + 4);
    let mut shared: Vec<&OnlineColumn> = Vec::new();
    for column in &features.columns {
        let number = shared.iter().position(|known| is_shared(known, column)).unwrap_or(shared.len());
        if number == shared.len() {
            shared.push(column);
        }
        let mut field = column.value_type.arrow_field(&column.name);
        let mut metadata = field.metadata().clone();
        metadata.insert("feast:status".to_owned(), format!("__status_{number}"));
        metadata.insert("feast:event_timestamp".to_owned(), format!("__event_timestamp_{number}"));
        field.set_metadata(metadata);
        fields.push(field);
        columns.push(Arc::clone(&column.values));
    }
    for (number, column) in shared.iter().enumerate() {
        let statuses = StringArray::from_iter_values(column.statuses.iter().map(|status| status.name()));
        fields.push(Field::new(format!("__status_{number}"), DataType::Utf8, false));
        columns.push(Arc::new(statuses));
        fields.push(Field::new(format!("__event_timestamp_{number}"), timestamp_type(), false));
        columns.push(Arc::clone(&column.event_timestamps) as ArrayRef);
    }
    let schema = Arc::new(Schema::new(fields));
    let options = RecordBatchOptions::new().with_row_count(Some(features.n_rows));
    let batch = RecordBatch::try_new_with_options(Arc::clone(&schema), columns, &options)?;
    let mut writer = StreamWriter::try_new(Vec::new(), &schema)?;
    writer.write(&batch)?;
    writer.finish()?;
    Ok(writer.into_inner()?)
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
fn encode(features: &OnlineFeatures, plan: &RetrievalPlan, with_versions: bool) -> Result<Written> {
    let names = plan.memo.get(|| Ok::<_, Error>(OutputNames::of(plan)))?;
    let mut written = with_capacity(features.columns.len(), features.n_rows);
    written.text.extend_from_slice(b"{\"results\":[");
    // Columns of one view share statuses and times: they are written once and copied.
    let mut shared: Option<(&OnlineColumn, Range<usize>)> = None;
    for column in &features.columns {
        written.text.extend_from_slice(b"{\"values\":");
        put_values(&mut written.text, &column.values, column.value_type)
            .map_err(|error| error.with_context("feature", &column.name))?;
        match shared.as_ref().filter(|(first, _)| is_shared(first, column)) {
            Some((_, piece)) => written.repeat(piece.clone()),
            None => {
                let mut piece = None;
                put_shared(&mut written, &mut piece, || (&column.statuses, column.event_timestamps.values()));
                shared = piece.map(|piece| (column, piece));
            }
        }
    }
    written.pop_comma();
    // The columns of the caller come first, in the caller's order.
    let given = &features.columns[..features.columns.len() - names.n_outputs];
    put_metadata(&mut written.text, given.iter().map(|column| &*column.name), &names, with_versions.then_some(plan));
    Ok(written)
}

fn with_capacity(n_columns: usize, n_rows: usize) -> Written {
    let copied = if Written::shares(n_rows * BYTES_PER_STATUS) { 0 } else { BYTES_PER_STATUS };
    Written::with_capacity(n_columns * (n_rows + 2) * (BYTES_PER_VALUE + copied))
}

/// From so many rows on, the values of a column are too far from each other to go through them column by column.
const MANY_ROWS: usize = 32;

/// [`encode`] for values as the store keeps them.
fn encode_stored(features: &StoredFeatures, with_versions: bool) -> Result<Written> {
    let plan = &features.plan;
    let names = plan.memo.get(|| Ok::<_, Error>(OutputNames::of(plan)))?;
    let n_columns = features.entity_columns.len() + names.n_outputs;
    let mut written = with_capacity(n_columns + 1, features.n_rows);
    written.text.extend_from_slice(b"{\"results\":[");
    let mut shared: Option<Range<usize>> = None;
    for column in &features.entity_columns {
        written.text.extend_from_slice(b"{\"values\":");
        put_values(&mut written.text, &column.values, column.value_type)
            .map_err(|error| error.with_context("feature", &column.name))?;
        let present = || (vec![FieldStatus::Present; features.n_rows], vec![0; features.n_rows]);
        put_shared(&mut written, &mut shared, present);
    }
    let types = |view: &PlannedView| view.features.iter().map(|feature| feature.field.value_type).collect();
    let mut lists = match features.n_rows {
        MANY_ROWS.. => {
            let types: Vec<Vec<ValueType>> = plan.views.iter().map(types).collect();
            stored_lists(&types, features.n_rows, |view, row| features.views[view].row(row))
        }
        _ => Vec::new(),
    }
    .into_iter();
    let mut before: Option<&StoredView> = None;
    for (view, stored) in plan.views.iter().zip(&features.views) {
        // Views that are filled together have the same times.
        let is_same = |before: &StoredView| {
            before.statuses == stored.statuses && before.event_timestamps == stored.event_timestamps
        };
        if !before.is_some_and(is_same) {
            shared = None;
        }
        before = Some(stored);
        let lists = lists.next().unwrap_or_default();
        for (position, feature) in view.features.iter().enumerate().filter(|(_, feature)| feature.returned) {
            written.text.extend_from_slice(b"{\"values\":");
            if let Some(Some(list)) = lists.get(position) {
                written.text.extend_from_slice(list);
                put_shared(&mut written, &mut shared, || (&stored.statuses, &stored.event_timestamps));
                continue;
            }
            put_stored(&mut written.text, stored.values(position), feature.field.value_type).map_err(|error| {
                error.with_context("feature", &feature.field.name).with_context("feature view", &view.online.table.view)
            })?;
            put_shared(&mut written, &mut shared, || (&stored.statuses, &stored.event_timestamps));
        }
    }
    written.pop_comma();
    let given = features.entity_columns.iter().map(|column| column.name.as_str());
    put_metadata(&mut written.text, given, &names, with_versions.then_some(plan));
    Ok(written)
}

/// Appends statuses and times, which columns of one view share: they are written once and copied.
fn put_shared<S: AsRef<[FieldStatus]>, T: AsRef<[i64]>>(
    written: &mut Written,
    shared: &mut Option<Range<usize>>,
    rows: impl FnOnce() -> (S, T),
) {
    match shared {
        Some(piece) => written.repeat(piece.clone()),
        None => {
            let out = &mut written.text;
            let start = out.len();
            let (statuses, times) = rows();
            out.extend_from_slice(b",\"statuses\":");
            put_statuses(out, statuses.as_ref());
            out.extend_from_slice(b",\"event_timestamps\":");
            put_instants(out, times.as_ref());
            out.extend_from_slice(b"},");
            *shared = Some(start..out.len());
        }
    }
}

/// Appends what follows the results; `versions` of which plan are told.
fn put_metadata<'a>(
    out: &mut Vec<u8>,
    given: impl Iterator<Item = &'a str>,
    names: &OutputNames,
    versions: Option<&RetrievalPlan>,
) {
    out.extend_from_slice(b"],\"metadata\":{\"feature_names\":[");
    for name in given {
        put_text(out, name);
        out.push(b',');
    }
    out.extend_from_slice(&names.json);
    if out.last() == Some(&b',') {
        out.pop();
    }
    out.push(b']');
    if let Some(plan) = versions {
        put_versions(out, plan);
    }
    out.extend_from_slice(b"}}");
}

/// The names of the outputs of a plan, in order.
struct OutputNames {
    n_outputs: usize,
    /// With a comma behind each.
    json: Vec<u8>,
}

impl OutputNames {
    fn of(plan: &RetrievalPlan) -> Self {
        let mut names = Self { n_outputs: 0, json: Vec::new() };
        for output in plan.outputs() {
            put_text(&mut names.json, &output.output);
            names.json.push(b',');
            names.n_outputs += 1;
        }
        names
    }
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
