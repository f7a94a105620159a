//! The answer to an online request: one read of the store, taken into request order.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, RecordBatch, StringArray, TimestampMicrosecondArray, UInt32Array,
    new_null_array,
};
use arrow::compute::take;
use arrow::datatypes::{SchemaRef, TimestampMicrosecondType};
use feast_core::{
    DUMMY_JOIN_KEY, DUMMY_JOIN_KEY_VALUE, ENTITY_KEY_VERSION, EntityKeyEncoder, EntityKeys, Error, ErrorCode,
    ErrorKind, Field, OnlineRead, OnlineRows, OnlineStore, PlannedFeature, PlannedJoinKey, PlannedKeySet, PlannedView,
    Result, RetrievalPlan, StoredRows, Timestamp, Transformer, ValueType, is_expired, list_names, timestamp_type,
};
use futures::future::join_all;
use hashbrown::HashMap;

use crate::EntityRows;
use crate::on_demand::{computed_columns, on_demand_input};
use crate::write::plain_schema;

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
    let unknown: Arc<TimestampMicrosecondArray> = Arc::new(utc(vec![0; n_rows]));
    let present: Arc<[FieldStatus]> = vec![FieldStatus::Present; n_rows].into();
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

/// The answer to an online request whose values are as the store keeps them: for who passes them on in another form, and
/// needs no columns of them.
#[derive(Debug)]
pub struct StoredFeatures<'p> {
    /// The columns of the caller, with their names and types.
    pub entity_columns: Vec<(&'p PlannedJoinKey, ArrayRef)>,
    /// The views of the plan, in its order.
    pub views: Vec<StoredView>,
    /// Number of rows, that of the request.
    pub n_rows: usize,
    /// Where the time went.
    pub timings: Timings,
}

/// The values of the features of one view.
#[derive(Debug)]
pub struct StoredView {
    /// One status per row.
    pub statuses: Vec<FieldStatus>,
    /// When the values of each row became true, in microseconds since the epoch; 0 where nobody knows.
    pub event_timestamps: Vec<i64>,
    rows: StoredRows,
    /// Which of `rows` each row has, `None` for one that is hidden; row `i` has row `i` where there is nothing.
    indices: Option<Vec<Option<u32>>>,
}

impl StoredView {
    /// The serialized value of a feature in each row; `None`, as zero bytes, is null.
    pub fn values(&self, feature: usize) -> impl ExactSizeIterator<Item = Option<&[u8]>> + Clone {
        (0..self.statuses.len()).map(move |row| match &self.indices {
            None => self.rows.cell(row, feature),
            Some(indices) => self.rows.cell(indices[row]? as usize, feature),
        })
    }
}

/// [`retrieve`], with values as the store keeps them. `None`, before anything is read, where that cannot be: where the
/// store keeps something else, where something is computed from values, and where views may fall back.
///
/// # Errors
/// Those of [`retrieve`], but for values that do not fit their types: nobody has looked into them.
pub async fn retrieve_stored<'p>(
    plan: &'p RetrievalPlan,
    entity_rows: &EntityRows,
    store: &dyn OnlineStore,
    options: &RetrieveOptions,
) -> Result<Option<StoredFeatures<'p>>> {
    if !plan.on_demand.is_empty() || options.fallback != Fallback::None || plan.views.is_empty() {
        return Ok(None);
    }
    let started = Instant::now();
    check_supported(plan, None)?;
    let asked = Asked::of(plan, entity_rows, options)?;
    let keys_ready = Instant::now();
    let reads = asked.reads(plan);
    let Some(reading) = store.read_stored(&reads) else { return Ok(None) };
    let answers = within(options.deadline, reading).await?;
    let fits = |(read, rows): (&OnlineRead<'_>, &StoredRows)| {
        rows.len() == read.keys.len() && rows.n_columns == read.wanted.positions.len()
    };
    if reads.len() != answers.len() || !reads.iter().zip(&answers).all(fits) {
        return Err(other_answer(store));
    }
    let store_read = Instant::now();
    let Asked { n_rows, mut entity_columns, key_sets } = asked;
    let views = plan.views.iter().zip(answers).map(|(view, rows)| {
        let row_of_request = &key_sets[view.key_set].row_of_request;
        let RowTimes { statuses, micros, hides } =
            RowTimes::of(view, &rows.event_timestamps, row_of_request, n_rows, options);
        let indices =
            (hides || row_of_request.is_some()).then(|| indices(&statuses, hides, row_of_request).collect::<Vec<_>>());
        StoredView { statuses, event_timestamps: micros, rows, indices }
    });
    let views = views.collect();
    entity_columns.extend(other_entity_columns(plan, entity_rows));
    let timings =
        Timings { keys: keys_ready - started, store: store_read - keys_ready, transform: store_read.elapsed() };
    Ok(Some(StoredFeatures { entity_columns, views, n_rows, timings }))
}

/// What a request asks of the store.
struct Asked<'p> {
    n_rows: usize,
    entity_columns: Vec<(&'p PlannedJoinKey, ArrayRef)>,
    key_sets: Vec<KeySet>,
}

impl<'p> Asked<'p> {
    fn of(plan: &'p RetrievalPlan, entity_rows: &EntityRows, options: &RetrieveOptions) -> Result<Self> {
        let needs_rows = !plan.join_keys.is_empty() || !plan.request_fields.is_empty();
        let n_rows = if needs_rows || entity_rows.names().next().is_some() { entity_rows.len() } else { 1 };
        let entity_columns = entity_columns(plan, entity_rows)?;
        let key_sets = key_sets(plan, &entity_columns, n_rows, options.key_version)?;
        Ok(Self { n_rows, entity_columns, key_sets })
    }

    fn reads<'a>(&'a self, plan: &'a RetrievalPlan) -> Vec<OnlineRead<'a>> {
        let read = |view: &'a PlannedView| OnlineRead { wanted: &view.online, keys: &self.key_sets[view.key_set].keys };
        plan.views.iter().map(read).collect()
    }
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

fn check_supported(plan: &RetrievalPlan, transformer: Option<&dyn Transformer>) -> Result<()> {
    if transformer.is_none() && !plan.on_demand.is_empty() {
        let names = list_names(plan.on_demand.iter().map(|view| view.name.as_str()));
        return Err(Error::unsupported(format!("the on-demand views {names} cannot be computed here, without Python"))
            .with_hint("ask for stored features only, or use a process that runs Python"));
    }
    if let Some(view) = plan.views.iter().find(|view| !view.is_stored) {
        return Err(Error::invalid_request(format!(
            "`{}` asks for a version that is not the current one, and only that one has values online",
            view.name
        ))
        .with_hint(format!(
            "ask for `{}`, or keep the values of each version with `enable_online_feature_view_versioning: true` \
             below `registry` in feature_store.yaml, where the online store can",
            view.view.name
        )));
    }
    Ok(())
}

/// The caller's columns that hold join keys, in the caller's order.
fn entity_columns<'a>(plan: &'a RetrievalPlan, rows: &EntityRows) -> Result<Vec<(&'a PlannedJoinKey, ArrayRef)>> {
    let position = |key: &PlannedJoinKey| {
        // The name of the entity, and of the join key before it was renamed, mean the same column.
        let aliases = plan.entity_aliases.iter().filter(|alias| alias.join_key == key.key);
        rows.position(&key.column)
            .or_else(|| aliases.map(|alias| alias.entity.as_str()).find_map(|name| rows.position(name)))
            .or_else(|| rows.position(&key.key))
    };
    let mut found: Vec<(usize, &PlannedJoinKey)> = Vec::with_capacity(plan.join_keys.len());
    let mut missing = Vec::new();
    for key in &plan.join_keys {
        match position(key) {
            Some(position) => found.push((position, key)),
            None => missing.push(key.column.as_str()),
        }
    }
    if !missing.is_empty() {
        return Err(Error::new(
            ErrorCode::MissingJoinKey,
            format!(
                "the entity rows lack the join keys {}, the columns given are {}",
                list_names(missing),
                list_names(rows.names())
            ),
        )
        .with_hint("give each row a value for every join key"));
    }
    found.sort_by_key(|(position, _)| *position);
    found
        .into_iter()
        .map(|(position, key)| {
            let values = rows.column(position, key.value_type)?;
            match (0..values.len()).find(|row| values.is_null(*row)) {
                None => Ok((key, values)),
                Some(row) => Err(Error::new(
                    ErrorCode::MissingJoinKey,
                    format!("join key `{}` is null in row {row}", key.column),
                )
                .with_hint("every row needs a value for each join key")),
            }
        })
        .collect()
}

/// Columns that are join keys of other views: whoever puts rows together by them finds them in the answer, as in Feast.
fn other_entity_columns<'a>(plan: &'a RetrievalPlan, rows: &EntityRows) -> Vec<(&'a PlannedJoinKey, ArrayRef)> {
    // Nearly all requests have what their plan needs, and nothing else.
    if rows.names().count() <= plan.join_keys.len() + plan.request_fields.len() {
        return Vec::new();
    }
    let is_output = |key: &&PlannedJoinKey| plan.outputs().any(|feature| *feature.output == *key.column);
    let others = plan.other_join_keys.iter().filter(|key| !is_output(key));
    others
        .filter_map(|key| {
            // What does not fit its type is of no use to the request either way.
            let values = rows.column(rows.position(&key.column)?, key.value_type).ok()?;
            Some((key, values))
        })
        .collect()
}

fn request_columns<'a>(plan: &'a RetrievalPlan, rows: &EntityRows) -> Result<Vec<(&'a Field, ArrayRef)>> {
    let missing: Vec<&str> = plan
        .request_fields
        .iter()
        .map(|field| field.name.as_str())
        .filter(|name| rows.position(name).is_none())
        .collect();
    if !missing.is_empty() {
        return Err(Error::new(
            ErrorCode::RequestDataNotFoundInEntityRows,
            format!(
                "the entity rows lack the request data {}, the columns given are {}",
                list_names(missing),
                list_names(rows.names())
            ),
        )
        .with_hint("pass request data beside the join keys"));
    }
    let fields = plan.request_fields.iter();
    fields
        .filter_map(|field| Some((field, rows.position(&field.name)?)))
        .map(|(field, position)| Ok((field, rows.column(position, field.value_type)?)))
        .collect()
}

/// The distinct keys of one set of join keys.
struct KeySet {
    keys: EntityKeys,
    /// Which key each row of the request has; `None`: row `i` has key `i`.
    row_of_request: Option<Vec<u32>>,
}

/// One entry per key set of the plan.
fn key_sets(
    plan: &RetrievalPlan,
    entity_columns: &[(&PlannedJoinKey, ArrayRef)],
    n_rows: usize,
    key_version: u8,
) -> Result<Vec<KeySet>> {
    let key_set = |set: &PlannedKeySet| {
        let mut encoding = set.memo.get(|| Encoding::of(set, key_version))?;
        if encoding.key_version != key_version {
            encoding = Arc::new(Encoding::of(set, key_version)?);
        }
        if set.join_keys.iter().all(|key| key.key == DUMMY_JOIN_KEY) {
            let dummy: ArrayRef = Arc::new(StringArray::from(vec![DUMMY_JOIN_KEY_VALUE]));
            let keys = encoding.encode(vec![dummy])?;
            return Ok(KeySet { keys, row_of_request: (n_rows != 1).then(|| vec![0; n_rows]) });
        }
        let columns = set.join_keys.iter().map(|key| {
            let column = entity_columns.iter().find(|(known, _)| known.column == key.column);
            let (known, values) =
                column.ok_or_else(|| Error::internal(format!("join key `{}` is gone", key.column)))?;
            // Views may declare one caller's column with different types.
            match known.value_type == key.value_type {
                true => Ok(Arc::clone(values)),
                false => crate::coerce_column(values, key.value_type, &key.column),
            }
        });
        let (keys, row_of_request) = distinct(encoding.encode(columns.collect::<Result<_>>()?)?)?;
        Ok(KeySet { keys, row_of_request })
    };
    plan.key_sets.iter().map(key_set).collect()
}

/// How the keys of a set are encoded, which is the same for every request with the same plan.
struct Encoding {
    key_version: u8,
    encoder: EntityKeyEncoder,
    schema: SchemaRef,
}

impl Encoding {
    fn of(set: &PlannedKeySet, key_version: u8) -> Result<Self> {
        let encoder = EntityKeyEncoder::new(&set.fields, key_version)?;
        Ok(Self { key_version, encoder, schema: plain_schema(&set.fields) })
    }

    fn encode(&self, columns: Vec<ArrayRef>) -> Result<EntityKeys> {
        self.encoder.encode(RecordBatch::try_new(Arc::clone(&self.schema), columns)?)
    }
}

/// The distinct keys in order of first appearance, and which of them each row has.
fn distinct(keys: EntityKeys) -> Result<(EntityKeys, Option<Vec<u32>>)> {
    if keys.len() < 2 {
        return Ok((keys, None));
    }
    let mut position_of: HashMap<&[u8], u32> = HashMap::with_capacity(keys.len());
    let mut first_rows: Vec<u32> = Vec::with_capacity(keys.len());
    let mut row_of_request: Vec<u32> = Vec::with_capacity(keys.len());
    for row in 0..keys.len() {
        let next = first_rows.len() as u32;
        let position = *position_of.entry(keys.encoded.value(row)).or_insert(next);
        if position == next {
            first_rows.push(row as u32);
        }
        row_of_request.push(position);
    }
    drop(position_of);
    if first_rows.len() == keys.len() {
        return Ok((keys, None));
    }
    let first_rows = UInt32Array::from(first_rows);
    let columns = keys.columns.columns().iter().map(|column| take(column, &first_rows, None));
    let columns = RecordBatch::try_new(keys.columns.schema(), columns.collect::<Result<_, _>>()?)?;
    let encoded = first_rows.values().iter().map(|row| Some(keys.encoded.value(*row as usize))).collect();
    Ok((EntityKeys { columns, encoded }, Some(row_of_request)))
}

/// What the store answered for one view, one row per row of the request.
struct RequestRows {
    values: Vec<ArrayRef>,
    statuses: Arc<[FieldStatus]>,
    event_timestamps: Arc<TimestampMicrosecondArray>,
}

/// What is known of the rows of a view, one per row of the request.
struct RowTimes {
    statuses: Vec<FieldStatus>,
    /// When their values became true, the epoch where nobody knows.
    micros: Vec<i64>,
    /// Whether values that are too old become null.
    hides: bool,
}

impl RowTimes {
    fn of(
        view: &PlannedView,
        times: &TimestampMicrosecondArray,
        row_of_request: &Option<Vec<u32>>,
        n_rows: usize,
        options: &RetrieveOptions,
    ) -> Self {
        let checks_age = options.ttl_policy != TtlPolicy::Ignore && view.ttl.limit().is_some();
        let mut statuses = Vec::with_capacity(n_rows);
        let mut micros = Vec::with_capacity(n_rows);
        for row in 0..n_rows {
            let key = row_of_request.as_ref().map_or(row, |rows| rows[row] as usize);
            if times.is_null(key) {
                statuses.push(FieldStatus::NotFound);
                micros.push(0);
                continue;
            }
            let time = times.value(key);
            let expired = checks_age
                && Timestamp::from_timestamp_micros(time).is_some_and(|time| is_expired(view.ttl, time, options.now));
            statuses.push(if expired { FieldStatus::OutsideMaxAge } else { FieldStatus::Present });
            micros.push(time);
        }
        let hides = options.ttl_policy == TtlPolicy::Hide && statuses.contains(&FieldStatus::OutsideMaxAge);
        Self { statuses, micros, hides }
    }
}

/// Which row of an answer each row of the request has; none where it is hidden.
fn indices<'a>(
    statuses: &'a [FieldStatus],
    hides: bool,
    row_of_request: &'a Option<Vec<u32>>,
) -> impl Iterator<Item = Option<u32>> + 'a {
    statuses.iter().enumerate().map(move |(row, status)| {
        let shown = !hides || *status != FieldStatus::OutsideMaxAge;
        shown.then(|| row_of_request.as_ref().map_or(row as u32, |rows| rows[row]))
    })
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
