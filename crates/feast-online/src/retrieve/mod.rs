//! The answer to an online request: one read of the store, taken into request order.

mod asked;
mod row_times;
mod stored;

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, ArrowPrimitiveType, TimestampMicrosecondArray, UInt32Array, new_null_array};
use arrow::compute::take;
use arrow::datatypes::TimestampMicrosecondType;
use feast_core::{
    ENTITY_KEY_VERSION, Error, ErrorCode, ErrorKind, Field, OnlineRead, OnlineRows, OnlineStore, PlannedFeature,
    PlannedView, Result, RetrievalPlan, Timestamp, Transformer, ValueType, timestamp_type,
};
use futures::future::join_all;

pub use self::stored::{EntityColumnValues, StoredFeatures, StoredView, retrieve_stored};

use self::asked::{Asked, check_supported, other_entity_columns, request_columns};
use self::row_times::{RowTimes, indices};
use crate::EntityRows;
use crate::on_demand::{computed_columns, on_demand_input};

/// What is known about one value of an answer. Numbers are those of Feast's `FieldStatus`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names are those of Feast's enum")]
#[repr(i32)]
pub enum FieldStatus {
    Invalid = 0,
    Present = 1,
    NullValue = 2,
    NotFound = 3,
    OutsideMaxAge = 4,
}

impl FieldStatus {
    /// Feast's name, such as `NOT_FOUND`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Invalid => "INVALID",
            Self::Present => "PRESENT",
            Self::NullValue => "NULL_VALUE",
            Self::NotFound => "NOT_FOUND",
            Self::OutsideMaxAge => "OUTSIDE_MAX_AGE",
        }
    }
}

/// What happens to values older than the ttl of their view.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TtlPolicy {
    /// They are served as they are, as Feast does.
    #[default]
    Ignore,
    /// They are served with the status `OUTSIDE_MAX_AGE`.
    Status,
    /// They become null, with the status `OUTSIDE_MAX_AGE`.
    Hide,
}

/// The views whose values become null, with the status `INVALID`, when the store cannot give them. A request that needs
/// any other view fails then.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Fallback {
    /// No view: the request fails.
    #[default]
    None,
    /// These views, by their names in the registry.
    Views(Arc<[String]>),
    /// Every view.
    All,
}

impl Fallback {
    fn covers(&self, view: &PlannedView) -> bool {
        match self {
            Self::None => false,
            Self::Views(names) => names.contains(&view.view.name),
            Self::All => true,
        }
    }
}

/// How to answer.
#[derive(Debug, Clone)]
pub struct RetrieveOptions {
    /// The instant from which ages are counted.
    pub now: Timestamp,
    /// What happens to values that are too old.
    pub ttl_policy: TtlPolicy,
    /// Version of the entity key serialization.
    pub key_version: u8,
    /// When the caller stops waiting; `None`: never.
    pub deadline: Option<Instant>,
    /// What happens when the store fails.
    pub fallback: Fallback,
}

impl Default for RetrieveOptions {
    fn default() -> Self {
        Self {
            now: chrono::Utc::now(),
            ttl_policy: TtlPolicy::default(),
            key_version: ENTITY_KEY_VERSION,
            deadline: None,
            fallback: Fallback::None,
        }
    }
}

/// The answer to an online request.
#[derive(Debug, Clone)]
pub struct OnlineFeatures {
    /// The entity columns, then the features, view by view.
    pub columns: Vec<OnlineColumn>,
    /// Number of rows, that of the request.
    pub n_rows: usize,
    /// Views that the store could not give and that became null.
    pub failures: Vec<ViewFailure>,
    /// Where the time went.
    pub timings: Timings,
}

/// A view that the store could not give.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ViewFailure {
    /// Name of the view in the registry.
    pub view: String,
    /// What the store said.
    pub message: String,
}

/// How long the parts of a request took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Timings {
    /// Bringing the caller's values to the types of the plan, finding and encoding the distinct keys.
    pub keys: Duration,
    /// The read of the store.
    pub store: Duration,
    /// Taking rows into request order, and on-demand views.
    pub transform: Duration,
}

/// One column of an answer.
#[derive(Debug, Clone)]
pub struct OnlineColumn {
    /// Name of the column.
    pub name: Arc<str>,
    /// Declared type.
    pub value_type: ValueType,
    /// One value per row, of the Arrow type of `value_type`.
    pub values: ArrayRef,
    /// One status per row; columns of one view share them.
    pub statuses: Arc<[FieldStatus]>,
    /// When each value became true, the epoch where nobody knows; columns of one view share them.
    pub event_timestamps: Arc<TimestampMicrosecondArray>,
}

impl OnlineColumn {
    /// When the value in a row became true, in microseconds since the epoch.
    pub fn event_timestamp_micros(&self, row: usize) -> i64 {
        self.event_timestamps.value(row)
    }
}

/// Answers a planned request from a store.
///
/// Rows come in request order; the store is read once, each distinct key once. Views without entities need no entity
/// column: alone they answer one row, beside others the same value in every row.
///
/// # Errors
/// `MissingJoinKey` for join keys that are absent or null, `RequestDataNotFoundInEntityRows` for absent request data,
/// `InvalidRequest` for values that do not fit, `Unsupported` for on-demand views without a `transformer` and for
/// older versions of views; `Timeout` after the deadline; those of the store, unless the fallback covers them.
pub async fn retrieve(
    plan: &RetrievalPlan,
    entity_rows: &EntityRows,
    store: &dyn OnlineStore,
    transformer: Option<&dyn Transformer>,
    options: &RetrieveOptions,
) -> Result<OnlineFeatures> {
    let started = Instant::now();
    check_supported(plan, transformer)?;
    let request_columns = request_columns(plan, entity_rows)?;
    let asked = Asked::of(plan, entity_rows, options)?;
    let keys_ready = Instant::now();

    let reads = asked.reads(plan);
    let (answers, failures) = read(plan, &reads, store, options).await?;
    let store_read = Instant::now();

    let Asked { n_rows, entity_columns, key_sets } = &asked;
    let n_rows = *n_rows;
    let (present, unknown) = present(n_rows);
    let mut columns: Vec<OnlineColumn> = Vec::with_capacity(entity_columns.len() + plan.outputs().count());
    let others = other_entity_columns(plan, entity_rows);
    columns.extend(entity_columns.iter().chain(&others).map(|(key, values)| OnlineColumn {
        name: key.column.as_str().into(),
        value_type: key.value_type,
        values: Arc::clone(values),
        statuses: Arc::clone(&present),
        event_timestamps: Arc::clone(&unknown),
    }));
    let mut stored: Vec<Vec<ArrayRef>> = Vec::with_capacity(plan.views.len());
    for (view, answer) in plan.views.iter().zip(answers) {
        let rows = match answer {
            Some(answer) => in_request_order(view, answer, &key_sets[view.key_set].row_of_request, n_rows, options)?,
            None => no_rows(view, n_rows, &unknown),
        };
        for (feature, values) in view.features.iter().zip(&rows.values).filter(|(feature, _)| feature.returned) {
            columns.push(OnlineColumn {
                name: Arc::clone(&feature.output),
                value_type: feature.field.value_type,
                values: Arc::clone(values),
                statuses: Arc::clone(&rows.statuses),
                event_timestamps: Arc::clone(&rows.event_timestamps),
            });
        }
        stored.push(rows.values);
    }
    for view in &plan.on_demand {
        let Some(transformer) = transformer else { continue };
        let input = on_demand_input(plan, view, &stored, &request_columns, entity_columns, None, n_rows)?;
        let computed = within(options.deadline, transformer.apply(&view.view, input)).await?;
        let computed = view.features.iter().zip(computed_columns(view, &computed, n_rows)?);
        for (feature, values) in computed.filter(|(feature, _)| feature.returned) {
            columns.push(OnlineColumn {
                name: Arc::clone(&feature.output),
                value_type: feature.field.value_type,
                values,
                statuses: Arc::clone(&present),
                event_timestamps: Arc::clone(&unknown),
            });
        }
    }
    let timings =
        Timings { keys: keys_ready - started, store: store_read - keys_ready, transform: store_read.elapsed() };
    Ok(OnlineFeatures { columns, n_rows, failures, timings })
}

/// Waits no longer than until the deadline.
async fn within<T>(deadline: Option<Instant>, work: impl Future<Output = Result<T>>) -> Result<T> {
    let Some(deadline) = deadline else { return work.await };
    tokio::time::timeout_at(deadline.into(), work).await.unwrap_or_else(|_| {
        Err(Error::new(ErrorCode::Timeout, "the features were not there before the deadline of the request")
            .with_hint("check that the online store is well, or give requests more time"))
    })
}

/// What the store answered, view by view: `None` where it failed and the fallback covers that.
async fn read(
    plan: &RetrievalPlan,
    reads: &[OnlineRead<'_>],
    store: &dyn OnlineStore,
    options: &RetrieveOptions,
) -> Result<(Vec<Option<OnlineRows>>, Vec<ViewFailure>)> {
    if reads.is_empty() {
        return Ok((Vec::new(), Vec::new()));
    }
    let covered = plan.views.iter().any(|view| options.fallback.covers(view));
    // Who falls back still has to write an answer in time.
    let deadline = match options.deadline {
        Some(deadline) if covered => Some(deadline - deadline.saturating_duration_since(Instant::now()) / 10),
        deadline => deadline,
    };
    let error = match within(deadline, checked(store, reads)).await {
        Ok(answers) => return Ok((answers.into_iter().map(Some).collect(), Vec::new())),
        Err(error) if !covered => return Err(error),
        Err(error) => error,
    };
    let failure =
        |view: &PlannedView, error: &Error| ViewFailure { view: view.view.name.clone(), message: error.to_string() };
    // A store that is down or does not answer is not asked again, view by view.
    if matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Timeout) || reads.len() == 1 {
        if plan.views.iter().all(|view| options.fallback.covers(view)) {
            return Ok((vec![None; reads.len()], plan.views.iter().map(|view| failure(view, &error)).collect()));
        }
        return Err(error);
    }
    let one = |read| within(deadline, checked(store, std::slice::from_ref(read)));
    let alone = join_all(reads.iter().map(one)).await;
    let mut answers = Vec::with_capacity(reads.len());
    let mut failures = Vec::new();
    for (view, rows) in plan.views.iter().zip(alone) {
        answers.push(match rows {
            Ok(mut rows) => rows.pop(),
            Err(error) if options.fallback.covers(view) => {
                failures.push(failure(view, &error));
                None
            }
            Err(error) => return Err(error),
        });
    }
    Ok((answers, failures))
}

/// Status and time of values that nobody stored.
fn present(n_rows: usize) -> (Arc<[FieldStatus]>, Arc<TimestampMicrosecondArray>) {
    (vec![FieldStatus::Present; n_rows].into(), Arc::new(utc(vec![0; n_rows])))
}

fn utc(micros: Vec<<TimestampMicrosecondType as ArrowPrimitiveType>::Native>) -> TimestampMicrosecondArray {
    TimestampMicrosecondArray::from(micros).with_data_type(timestamp_type())
}

async fn checked(store: &dyn OnlineStore, reads: &[OnlineRead<'_>]) -> Result<Vec<OnlineRows>> {
    let answers = store.read(reads).await?;
    check_answers(reads, &answers, store)?;
    Ok(answers)
}

/// Stores may be a team's own: what they answer is checked, so that a mistake there is not a wrong value here.
fn check_answers(reads: &[OnlineRead<'_>], answers: &[OnlineRows], store: &dyn OnlineStore) -> Result<()> {
    let fits = |(read, answer): (&OnlineRead<'_>, &OnlineRows)| {
        let typed = |(field, column): (&Field, &ArrayRef)| *column.data_type() == field.value_type.arrow_type();
        answer.values.num_rows() == read.keys.len()
            && answer.event_timestamps.len() == read.keys.len()
            && answer.values.num_columns() == read.wanted.positions.len()
            && read.wanted.fields().zip(answer.values.columns()).all(typed)
    };
    if reads.len() == answers.len() && reads.iter().zip(answers).all(fits) {
        return Ok(());
    }
    Err(other_answer(store))
}

fn other_answer(store: &dyn OnlineStore) -> Error {
    Error::internal("the online store answered with other rows or columns than it was asked for")
        .with_context("online store", store)
}

/// What the store answered for one view, one row per row of the request.
struct RequestRows {
    values: Vec<ArrayRef>,
    statuses: Arc<[FieldStatus]>,
    event_timestamps: Arc<TimestampMicrosecondArray>,
}

fn in_request_order(
    view: &PlannedView,
    answer: OnlineRows,
    row_of_request: &Option<Vec<u32>>,
    n_rows: usize,
    options: &RetrieveOptions,
) -> Result<RequestRows> {
    let RowTimes { statuses, micros, hides } =
        RowTimes::of(view, &answer.event_timestamps, row_of_request, n_rows, options);
    let values = if row_of_request.is_none() && !hides {
        answer.values.into_parts().1
    } else {
        let indices: UInt32Array = indices(&statuses, hides, row_of_request).collect();
        answer.values.columns().iter().map(|column| take(column, &indices, None)).collect::<Result<_, _>>()?
    };
    Ok(RequestRows { values, statuses: statuses.into(), event_timestamps: Arc::new(utc(micros)) })
}

/// Nulls, where the store could not give the rows of a view.
fn no_rows(view: &PlannedView, n_rows: usize, unknown: &Arc<TimestampMicrosecondArray>) -> RequestRows {
    let nulls = |feature: &PlannedFeature| new_null_array(&feature.field.value_type.arrow_type(), n_rows);
    RequestRows {
        values: view.features.iter().map(nulls).collect(),
        statuses: vec![FieldStatus::Invalid; n_rows].into(),
        event_timestamps: Arc::clone(unknown),
    }
}
