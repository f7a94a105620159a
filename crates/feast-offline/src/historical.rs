//! Training data: each entity row with the features that were true at its time.
//!
//! A request opens the sources of its views, scans each source once for all views on it, and then reads the feature
//! columns; sources are read side by side. Where rows can be read by position (Parquet), the scan reads keys and times
//! only, on several threads, and the feature columns are read for the winning rows alone; elsewhere one pass keeps the
//! rows that lead.
//!
//! Memory is that of the entity rows, never of the feature rows. Under a memory limit, as many entity rows as fit are
//! taken at a time, in order, and the sources are read once for each such part: an entity row's answer depends on no
//! other. So rows stream out in their order and nothing but entity rows ever waits on disk.
//!
//! Entity columns pass through untouched, whatever their unit or zone; the output has the entity rows in their order.

use std::collections::HashSet;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex};

use arrow::array::{Array, ArrayRef, RecordBatch, new_null_array};
use arrow::compute::concat;
use arrow::datatypes::{DataType, Field as ArrowField, Schema, SchemaRef};
use arrow::row::{RowConverter, SortField};
use chrono::{TimeDelta, Utc};
use feast_core::{
    DUMMY_JOIN_KEY, DataSource, Error, ErrorCode, PlannedFeature, PlannedJoinKey, PlannedView, Result, RetrievalPlan,
    Timestamp, timestamp_type,
};

use crate::batch_stream::{BatchSender, BatchStream};
use crate::cast::to_declared;
use crate::entity_rows::{EntityPart, EntityRows, EntityRowsBuilder, EntitySource, OUTPUT_ROWS};
use crate::explain::{Explanation, StepId};
use crate::join_keys::{canonical, common_type};
use crate::kept_rows::KeptRows;
use crate::leaks::LeakReport;
use crate::packed_rows::{PackedRows, PackedRowsBuilder};
use crate::parallel;
use crate::point_in_time::{FeatureRows, PointInTimeJoin, Rule, Timelines};
use crate::sources::{SourceTable, Texts, Window, is_dictionary_of_texts};
use crate::timestamps::{instant, micros_array};
use crate::view_columns::{Scanned, ViewColumns, batch_source, declared_columns, output_field, record_batch};
use crate::winners::Winners;

/// A request for training data.
#[derive(Debug)]
pub struct HistoricalRequest {
    /// What to read. Its on-demand views are not computed here.
    pub plan: Arc<RetrievalPlan>,
    /// The rows to find features for.
    pub entity: EntitySource,
    /// Sources that SQL entity rows may name as tables.
    pub tables: Vec<Arc<DataSource>>,
    /// Count a feature row only from its created time on, where its source has one.
    pub filter_by_created_timestamp: bool,
    /// Count only feature rows that had happened and been written by then; where a source has a created time, rows
    /// without it never count.
    pub as_of: Option<Timestamp>,
}

/// Training data as it is made.
#[derive(Debug)]
pub struct HistoricalStream {
    /// The entity columns; then, view by view in the order of the plan, every planned feature in its order, those read
    /// only as input of on-demand views included. The latter are named `view__feature` where their name is taken.
    pub batches: BatchStream,
    /// How many of the columns are the caller's.
    pub entity_columns: usize,
    /// Name of the caller's time column.
    pub event_timestamp_column: String,
    /// Least time of the entity rows.
    pub min_event_timestamp: Option<Timestamp>,
    /// Greatest time of the entity rows.
    pub max_event_timestamp: Option<Timestamp>,
    /// What is done, and what that took so far.
    pub explanation: Explanation,
}

/// How far a request without entity rows looks back when no view has a ttl.
pub(crate) const DEFAULT_LOOK_BACK: TimeDelta = TimeDelta::days(30);

/// The sources of a plan, opened.
pub(crate) struct OpenPlan {
    plan: Arc<RetrievalPlan>,
    tables: Vec<SourceTable>,
    views: Vec<OpenView>,
}

struct OpenView {
    /// Position in `tables`.
    table: usize,
    columns: ViewColumns,
    /// Names of the output columns and their types.
    fields: Vec<ArrowField>,
}

impl OpenPlan {
    /// Opens the sources and finds all columns.
    pub(crate) fn new(plan: Arc<RetrievalPlan>, base: &Path) -> Result<Self> {
        let mut open = Self { plan: Arc::clone(&plan), tables: Vec::new(), views: Vec::new() };
        let mut paths: Vec<String> = Vec::new();
        for planned in &plan.views {
            let view = &planned.view;
            let source = batch_source(view)?;
            let path = crate::sources::path_of(source)?;
            let table = match paths.iter().position(|known| known == path) {
                Some(table) => table,
                None => {
                    let table = SourceTable::open(source, base)
                        .map_err(|error| error.with_context("feature view", &view.name))?;
                    open.tables.push(table);
                    paths.push(path.to_owned());
                    paths.len() - 1
                }
            };
            let columns = ViewColumns::find(
                view,
                &open.tables[table],
                source,
                planned.join_keys.iter().map(|key| key.key.as_str()),
                planned.features.iter().map(|feature| &feature.field),
            )?;
            let fields = planned
                .features
                .iter()
                .zip(&columns.features)
                .map(|(feature, (column, declared))| {
                    output_field(&feature.output, *declared, &open.tables[table], *column)
                })
                .collect();
            open.views.push(OpenView { table, columns, fields });
        }
        Ok(open)
    }

    /// Every key and event time the views have between two instants, as entity rows in order of time and key.
    ///
    /// A view without one of the join keys contributes rows in which it is null. Entity-less views contribute times
    /// only when there is no other view.
    ///
    /// Where more than `limit` bytes would be needed, the span is split and the sources are read once for each part.
    pub(crate) fn range(&self, start: Option<Timestamp>, end: Option<Timestamp>, limit: usize) -> Result<EntityRows> {
        if self.views.is_empty() {
            return Err(Error::invalid_request(
                "there are no entity rows, and no stored feature view to take them from",
            )
            .with_hint("give entity rows, or ask for features of a stored feature view"));
        }
        let end = end.unwrap_or_else(Utc::now);
        let look_back = self.plan.longest_ttl().unwrap_or(DEFAULT_LOOK_BACK);
        let start = start.or_else(|| end.checked_sub_signed(look_back)).unwrap_or(Timestamp::MIN_UTC);
        if start > end {
            return Err(Error::invalid_request(format!("the start {start} is after the end {end}"))
                .with_hint("swap the two dates"));
        }
        let (first, last) = (start.timestamp_micros(), end.timestamp_micros());
        let keys: Vec<_> = self.plan.join_keys.iter().filter(|key| key.key != DUMMY_JOIN_KEY).collect();
        let mut fields = vec![ArrowField::new("event_timestamp", timestamp_type(), true)];
        fields.extend(keys.iter().map(|key| ArrowField::new(&key.column, key.value_type.arrow_type(), true)));
        let schema = Arc::new(Schema::new(fields));
        let sort_fields = schema.fields().iter().map(|field| SortField::new(field.data_type().clone())).collect();
        let converter = RowConverter::new(sort_fields)?;
        let mut entity = EntityRowsBuilder::new(Arc::clone(&schema), limit)?;
        let mut first = Some(first);
        while let Some(from) = first {
            let mut seen = DistinctRows::new(limit);
            self.collect_range(&keys, &converter, (from, last), &mut seen)?;
            let (rows, rest) = seen.into_rows();
            let parser = converter.parser();
            for rows in rows.chunks(OUTPUT_ROWS) {
                let columns = converter.convert_rows(rows.iter().map(|row| parser.parse(row)))?;
                entity.push(record_batch(&schema, columns, rows.len())?)?;
            }
            first = rest;
        }
        entity.finish()
    }

    /// The distinct keys and times of all views in a window.
    fn collect_range(
        &self,
        keys: &[&PlannedJoinKey],
        converter: &RowConverter,
        (first, last): (i64, i64),
        seen: &mut DistinctRows,
    ) -> Result<()> {
        let seen = Mutex::new(seen);
        for (view, planned) in self.views.iter().zip(&self.plan.views) {
            if view.columns.keys.is_empty() && !keys.is_empty() {
                continue;
            }
            let table = &self.tables[view.table];
            let scanned = Scanned::new(view.columns.keys.iter().copied().chain([view.columns.event]));
            let window = Window { column: view.columns.event, first, last };
            let own_keys: Vec<Option<usize>> =
                keys.iter().map(|key| planned.join_keys.iter().position(|own| own.column == key.column)).collect();
            table.scan(&scanned.columns, Some(window), parallel::threads(), &|_, batch| {
                let times = scanned.times(&batch, view.columns.event, table)?;
                let inside: Vec<bool> =
                    times.iter().map(|time| time.is_some_and(|time| (first..=last).contains(&time))).collect();
                let mut columns: Vec<ArrayRef> = vec![micros_array(times.clone())];
                for (key, own) in keys.iter().zip(&own_keys) {
                    columns.push(match own {
                        None => new_null_array(&key.value_type.arrow_type(), batch.num_rows()),
                        Some(own) => {
                            let column = view.columns.keys[*own];
                            let array = scanned.array(&batch, column)?;
                            crate::cast::to_declared(array, key.value_type, &table.describe(column))?
                        }
                    });
                }
                let rows = converter.convert_columns(&columns)?;
                let mut seen = seen.lock().map_err(|_| Error::internal("a thread failed"))?;
                for (index, row) in rows.iter().enumerate() {
                    let whole = (0..keys.len()).all(|key| own_keys[key].is_none() || columns[key + 1].is_valid(index));
                    if inside[index] && whole {
                        seen.add(times.value(index), row.data());
                    }
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Checks the entity rows against the plan and names the output columns.
    pub(crate) fn with_entity_rows(self, entity: EntityRows, options: JoinOptions) -> Result<Historical> {
        entity.check_request_fields(&self.plan)?;
        let mut views = Vec::new();
        for (view, planned) in self.views.iter().zip(&self.plan.views) {
            views.push(self.match_keys(view, planned, &entity)?);
        }
        let fields: Vec<&[ArrowField]> = self.views.iter().map(|view| view.fields.as_slice()).collect();
        let schema = output_schema(&entity.schema, &self.plan, &fields)?;
        Ok(Historical { open: self, keys: views, entity, options, schema })
    }

    /// The event times that can match entity rows between two times; `None` when they are in different columns.
    fn window(&self, table: usize, least: i64, greatest: i64) -> Option<Window> {
        let views = self.views.iter().zip(&self.plan.views).filter(|(view, _)| view.table == table);
        wider(views.map(|(view, planned)| {
            let first = planned.ttl.micros().map_or(i64::MIN, |ttl| least.saturating_sub(ttl));
            Some(Window { column: view.columns.event, first, last: greatest })
        }))
    }

    /// The same plan, its sources read as if they could not be read twice.
    #[cfg(test)]
    pub(crate) fn streamed(mut self) -> Self {
        self.tables = self.tables.into_iter().map(SourceTable::streamed).collect();
        self
    }

    fn match_keys(&self, view: &OpenView, planned: &PlannedView, entity: &EntityRows) -> Result<MatchedKeys> {
        let table = &self.tables[view.table];
        let mut matched = MatchedKeys { entity_columns: Vec::new(), types: Vec::new() };
        let keys = planned.join_keys.iter().filter(|key| key.key != DUMMY_JOIN_KEY);
        for (key, column) in keys.zip(&view.columns.keys) {
            let entity_column = entity.key_column(&self.plan, key)?;
            let entity_type = entity.schema.field(entity_column).data_type();
            let source_type = table.data_type(*column);
            let common = common_type(entity_type, source_type).ok_or_else(|| {
                Error::invalid_request(format!(
                    "join key `{}` is {entity_type} in the entity rows and {source_type} in {}",
                    entity.schema.field(entity_column).name(),
                    table.describe(*column)
                ))
                .with_hint(format!("convert the column of the entity rows to {source_type}"))
            })?;
            matched.entity_columns.push(entity_column);
            matched.types.push(common);
        }
        Ok(matched)
    }
}

/// Where the keys of a view are in the entity rows, and the types in which both sides are compared.
#[derive(PartialEq, Eq, Clone)]
struct MatchedKeys {
    entity_columns: Vec<usize>,
    types: Vec<DataType>,
}

/// The columns of the answer: those of the entity rows, then the given fields of each view, renamed where a name is taken.
pub(crate) fn output_schema(entity: &SchemaRef, plan: &RetrievalPlan, views: &[&[ArrowField]]) -> Result<SchemaRef> {
    let mut fields: Vec<ArrowField> = entity.fields().iter().map(|field| field.as_ref().clone()).collect();
    let returned: HashSet<&str> = plan.outputs().map(|feature| &*feature.output).collect();
    for (view, planned) in views.iter().zip(&plan.views) {
        for (field, feature) in view.iter().zip(&planned.features) {
            let taken = entity.index_of(&feature.output).is_ok();
            if taken && feature.returned {
                return Err(name_collision(feature, planned));
            }
            let taken = taken
                || (!feature.returned
                    && (returned.contains(&*feature.output)
                        || fields.iter().any(|known| **known.name() == *feature.output)));
            fields.push(match taken {
                true => field.clone().with_name(format!("{}__{}", planned.name, feature.field.name)),
                false => field.clone(),
            });
        }
    }
    Ok(Arc::new(Schema::new_with_metadata(fields, entity.metadata().clone())))
}

fn name_collision(feature: &PlannedFeature, planned: &PlannedView) -> Error {
    let full = format!("{}__{}", planned.name, feature.field.name);
    let hint = if *feature.output == *full {
        "rename the column of the entity rows".to_owned()
    } else {
        format!("use full feature names, which call the feature `{full}`, or rename the column of the entity rows")
    };
    Error::new(
        ErrorCode::FeatureNameCollision,
        format!("the entity rows have a column `{}` already, as a requested feature is called", feature.output),
    )
    .with_hint(hint)
}

/// How a request is joined.
#[derive(Debug, Clone, Copy)]
pub(crate) struct JoinOptions {
    /// Rows count from their created time on.
    pub(crate) known_at_entity_time: bool,
    /// Rows that became true or were written later do not count.
    pub(crate) known_until: Option<i64>,
    /// Bytes that may be used, about.
    pub(crate) memory: usize,
}

/// A request that is ready to run.
pub(crate) struct Historical {
    open: OpenPlan,
    /// By view.
    keys: Vec<MatchedKeys>,
    entity: EntityRows,
    options: JoinOptions,
    schema: SchemaRef,
}

impl Historical {
    /// Starts the work; it runs as batches are read.
    pub(crate) fn start(self) -> HistoricalStream {
        let bounds = self.entity.bounds();
        let explanation = Explanation::default();
        let steps = Steps::new(&explanation, &self);
        HistoricalStream {
            entity_columns: self.entity.schema.fields().len(),
            event_timestamp_column: self.entity.time_name().to_owned(),
            min_event_timestamp: bounds.and_then(|(least, _)| instant(least)),
            max_event_timestamp: bounds.and_then(|(_, greatest)| instant(greatest)),
            explanation,
            batches: BatchStream::from_blocking(Arc::clone(&self.schema), move |sender| self.run(&steps, sender)),
        }
    }

    fn run(self, steps: &Steps, sender: &BatchSender) -> Result<()> {
        let most = self.rows_at_a_time();
        let Self { open, keys, entity, options, schema } = self;
        let entity_schema = Arc::clone(&entity.schema);
        for part in entity.into_parts(most)? {
            let part = part?;
            let join = PartJoin { open: &open, keys: &keys, options, part: &part, steps, check: &|| sender.check() };
            let found = join.run(&entity_schema)?;
            let mut start = 0;
            for batch in part.into_output_batches(&entity_schema)? {
                let (n_rows, rows) = (batch.num_rows(), start..start + batch.num_rows());
                let output = steps.explanation.timed(steps.output, || {
                    let mut columns = batch.columns().to_vec();
                    columns.extend(gather(&found, rows)?);
                    record_batch(&schema, columns, n_rows)
                })?;
                let sizes = output.columns().iter().map(|column| column.to_data().get_slice_memory_size());
                steps.explanation.count(steps.output, n_rows, sizes.sum::<Result<usize, _>>()?);
                sender.send(output)?;
                start += n_rows;
            }
        }
        Ok(())
    }

    /// Joins by what was known and by what the sources say today, and compares.
    pub(crate) fn leaks(mut self) -> Result<LeakReport> {
        // Both answers are in memory at a time.
        self.options.memory /= 2;
        let most = self.rows_at_a_time();
        let known = JoinOptions {
            known_at_entity_time: self.options.known_at_entity_time || self.options.known_until.is_none(),
            ..self.options
        };
        let today = JoinOptions { known_at_entity_time: false, known_until: None, ..self.options };
        let explanation = Explanation::default();
        let steps = Steps::new(&explanation, &self);
        let Self { open, keys, entity, .. } = self;
        let has_created: Vec<bool> = open.views.iter().map(|view| view.columns.created.is_some()).collect();
        let mut report = LeakReport::new(&open.plan, &has_created);
        let entity_schema = Arc::clone(&entity.schema);
        for part in entity.into_parts(most)? {
            let part = part?;
            let answer = |options| {
                let join =
                    PartJoin { open: &open, keys: &keys, options, part: &part, steps: &steps, check: &|| Ok(()) };
                join.run(&entity_schema)
            };
            let (known, today) = (answer(known)?, answer(today)?);
            for start in (0..part.times.len()).step_by(OUTPUT_ROWS) {
                let rows = start..(start + OUTPUT_ROWS).min(part.times.len());
                report.count(rows.len(), &gather(&known, rows.clone())?, &gather(&today, rows)?)?;
            }
        }
        Ok(report)
    }

    /// How many entity rows fit the memory limit with all that they need.
    fn rows_at_a_time(&self) -> usize {
        // A key in a hash table, a time, its row, and what sorting them takes.
        const KEY: usize = 32 + 8 + 4 + 4 + 16;
        // A slot with its created time, the winner and its rank.
        const VIEW: usize = 24 + 8 + 16;
        // Tests have few rows and want several parts.
        const LEAST_ROWS: usize = if cfg!(test) { 7 } else { 4096 };
        let mut distinct: Vec<&MatchedKeys> = Vec::new();
        for keys in &self.keys {
            if !distinct.contains(&keys) {
                distinct.push(keys);
            }
        }
        let features = self.open.views.iter().map(|view| {
            let table = &self.open.tables[view.table];
            view.columns.features.iter().map(|(column, _)| table.width(*column)).sum::<usize>()
        });
        let per_row = self.entity.spilled_row_size()
            + distinct.len() * KEY
            + self.open.views.len() * VIEW
            // What is read, and once more a column of it while it is put together.
            + features.map(|width| width + width / 4).sum::<usize>();
        // What readers hold while they decode, and rows that wait for others.
        let columns: usize = self.open.views.iter().map(|view| view.columns.features.len() + 3).sum();
        let readers = columns * READER_COLUMN + self.open.views.len() * PointInTimeJoin::MOST_WAITING_SIZE;
        let readers = (parallel::threads() * readers).min(self.options.memory / 2);
        let room = (self.options.memory - readers).saturating_sub(self.entity.held());
        (room / per_row.max(1)).max(LEAST_ROWS)
    }
}

/// Bytes that a reader holds per column: a page, compressed and decoded, and a batch.
const READER_COLUMN: usize = 2 << 20;

/// The steps of a request as they are explained.
struct Steps {
    explanation: Explanation,
    output: StepId,
    sort: StepId,
    /// By table.
    scans: Vec<StepId>,
    /// By view.
    joins: Vec<StepId>,
    fetches: Vec<StepId>,
}

impl Steps {
    fn new(explanation: &Explanation, request: &Historical) -> Self {
        let open = &request.open;
        let output = explanation.step(0, "entity rows with their features");
        let mut steps = Self {
            explanation: explanation.clone(),
            output,
            sort: output,
            scans: Vec::new(),
            joins: vec![output; open.views.len()],
            fetches: vec![output; open.views.len()],
        };
        for (index, table) in open.tables.iter().enumerate() {
            let views = || (0..open.views.len()).filter(|view| open.views[*view].table == index);
            for view in views() {
                let planned = &open.plan.views[view];
                let ttl =
                    planned.ttl.limit().map_or_else(|| "none".to_owned(), |ttl| format!("{} s", ttl.num_seconds()));
                let keys = planned.join_keys.iter().filter(|key| key.key != DUMMY_JOIN_KEY);
                let keys: Vec<&str> = keys.map(|key| key.column.as_str()).collect();
                let keys = if keys.is_empty() { "none".to_owned() } else { keys.join(", ") };
                let features = match planned.features.len() {
                    1 => "1 feature".to_owned(),
                    several => format!("{several} features"),
                };
                let read = if table.is_seekable() { "of the winning rows" } else { "kept in passing" };
                steps.fetches[view] = explanation.step(1, format!("`{}`: {features} {read}", planned.name));
                steps.joins[view] = explanation.step(2, format!("point-in-time join on {keys}, ttl {ttl}"));
            }
            let window = request.entity.bounds().and_then(|(least, greatest)| open.window(index, least, greatest));
            let (read, of) = table.parts_inside(window);
            let name = format!("scan of `{}`: {read} of {of} {}", table.name, table.parts_name());
            steps.scans.push(explanation.step(3, name));
        }
        steps.sort = explanation.step(1, "entity rows sorted by key and time");
        steps
    }
}

/// A part of the entity rows while it is joined.
struct PartJoin<'a> {
    open: &'a OpenPlan,
    keys: &'a [MatchedKeys],
    options: JoinOptions,
    part: &'a EntityPart,
    steps: &'a Steps,
    /// Fails when nobody waits for the answer any more.
    check: &'a (dyn Fn() -> Result<()> + Sync),
}

/// A view with its keys and its join.
struct ViewJoin<'a> {
    /// Position in the plan.
    index: usize,
    view: &'a OpenView,
    keys: &'a MatchedKeys,
    join: PointInTimeJoin,
}

impl PartJoin<'_> {
    /// The features of each view for the rows of the part.
    fn run(&self, entity_schema: &SchemaRef) -> Result<Vec<FoundFeatures>> {
        let explanation = &self.steps.explanation;
        let timelines = explanation.timed(self.steps.sort, || self.timelines(entity_schema))?;
        let found: Vec<Mutex<Option<FoundFeatures>>> = self.open.views.iter().map(|_| Mutex::default()).collect();
        let n_tables = self.open.tables.len();
        let side_by_side = parallel::threads().min(n_tables).max(1);
        let threads = parallel::threads().div_ceil(side_by_side);
        parallel::for_each(side_by_side, n_tables, &|table| {
            for (view, features) in self.join(table, &timelines, threads)? {
                *found[view].lock().map_err(|_| Error::internal("a thread failed"))? = Some(features);
            }
            Ok(())
        })?;
        Ok(found.into_iter().filter_map(|found| found.into_inner().ok().flatten()).collect())
    }

    /// The sorted entity rows of each view; views with the same keys share them.
    fn timelines(&self, entity_schema: &SchemaRef) -> Result<Vec<Arc<Timelines>>> {
        let mut distinct: Vec<(&MatchedKeys, Arc<Timelines>)> = Vec::new();
        let mut timelines = Vec::new();
        for keys in self.keys {
            if let Some((_, known)) = distinct.iter().find(|(known, _)| *known == keys) {
                timelines.push(Arc::clone(known));
                continue;
            }
            let mut batches = Vec::new();
            for batch in &self.part.batches {
                let columns = keys.entity_columns.iter().zip(&keys.types).map(|(column, key_type)| {
                    let of = format!("column `{}` of the entity rows", entity_schema.field(*column).name());
                    canonical(batch.column(*column), key_type, &of)
                });
                batches.push((batch.num_rows(), columns.collect::<Result<Vec<_>>>()?));
            }
            let sorted = Arc::new(Timelines::new(&keys.types, &batches, &self.part.times)?);
            self.steps.explanation.count(self.steps.sort, sorted.len(), sorted.size());
            distinct.push((keys, Arc::clone(&sorted)));
            timelines.push(sorted);
        }
        Ok(timelines)
    }

    /// Joins all views on one source in one scan.
    fn join(&self, table: usize, timelines: &[Arc<Timelines>], threads: usize) -> Result<Vec<(usize, FoundFeatures)>> {
        let (explanation, scan) = (&self.steps.explanation, self.steps.scans[table]);
        let views = (0..self.open.views.len()).filter(|view| self.open.views[*view].table == table);
        let joins: Vec<ViewJoin<'_>> = views
            .map(|index| {
                let view = &self.open.views[index];
                let rule = Rule {
                    ttl: self.open.plan.views[index].ttl,
                    known_at_entity_time: self.options.known_at_entity_time,
                    known_until: self.options.known_until,
                };
                let join = PointInTimeJoin::new(Arc::clone(&timelines[index]), rule, view.columns.created.is_some());
                ViewJoin { index, view, keys: &self.keys[index], join }
            })
            .collect();
        let table = &self.open.tables[table];
        let seekable = table.is_seekable();
        let feature_columns = |view: &OpenView| if seekable { Vec::new() } else { view.columns.feature_columns() };
        let scanned =
            Scanned::new(joins.iter().flat_map(|joined| {
                joined.view.columns.deciding().chain(feature_columns(joined.view)).collect::<Vec<_>>()
            }));
        // One pass over a source that cannot be read twice keeps what it will need.
        let kept: Vec<Mutex<KeptRows>> = joins
            .iter()
            .map(|joined| {
                let schema = table.schema().project(&feature_columns(joined.view))?;
                Ok(Mutex::new(KeptRows::new(Arc::new(schema))))
            })
            .collect::<Result<_>>()?;
        if joins.iter().any(|joined| joined.join.can_match()) {
            let window = common_window(&joins);
            explanation.count(scan, 0, table.stored_size(&scanned.columns, window));
            explanation.timed(scan, || {
                table.scan(&scanned.columns, window, threads, &|first_row, batch| {
                    (self.check)()?;
                    explanation.count(scan, batch.num_rows(), 0);
                    joins.iter().zip(&kept).try_for_each(|(joined, kept)| {
                        let offered = joined.offer(table, &scanned, first_row, &batch, !seekable)?;
                        let Some(taken) = offered else { return Ok(()) };
                        let mut kept = kept.lock().map_err(|_| Error::internal("a thread failed"))?;
                        kept.keep(first_row, scanned.project(&batch, &feature_columns(joined.view))?, taken)?;
                        if kept.is_full() {
                            kept.retain(&joined.join.leading_rows())?;
                        }
                        Ok(())
                    })
                })
            })?;
        }
        joins
            .into_iter()
            .zip(kept)
            .map(|(ViewJoin { index, view, join, .. }, kept)| {
                (self.check)()?;
                let (join_step, fetch_step) = (self.steps.joins[index], self.steps.fetches[index]);
                let winners = explanation.timed(join_step, || {
                    let chosen = join.finish();
                    Ok(Winners::new(chosen.n_entity_rows(), chosen.iter()))
                })?;
                explanation.count(join_step, winners.rows.len(), winners.size());
                let found = explanation.timed(fetch_step, || {
                    let kept = kept.into_inner().map_err(|_| Error::internal("a thread failed"))?;
                    let rows = match seekable {
                        true => winners.fetch(view, table, threads)?,
                        false => winners.kept(view, table, kept)?,
                    };
                    winners.locate(table, rows)
                })?;
                if let FoundFeatures::Packed { rows, .. } = &found {
                    explanation.count(fetch_step, rows.len(), rows.size());
                }
                // Under a limit, the answer is made as it is asked for.
                let found = match self.options.memory {
                    usize::MAX => explanation.timed(self.steps.output, || found.ready(threads))?,
                    _ => found,
                };
                Ok((index, found))
            })
            .collect()
    }
}

impl ViewJoin<'_> {
    /// Offers the rows of a batch; with `tell`, says which of them are the best of an entity row for now.
    fn offer(
        &self,
        table: &SourceTable,
        scanned: &Scanned,
        first_row: u64,
        batch: &RecordBatch,
        tell: bool,
    ) -> Result<Option<Vec<bool>>> {
        let columns = &self.view.columns;
        let event = scanned.times(batch, columns.event, table)?;
        let created = columns.created.map(|created| scanned.times(batch, created, table)).transpose()?;
        let rows = FeatureRows { first_row, event: &event, created: created.as_ref() };
        let keys =
            columns.keys.iter().zip(&self.keys.types).map(|(column, key_type)| {
                canonical(scanned.array(batch, *column)?, key_type, &table.describe(*column))
            });
        let keys = keys.collect::<Result<Vec<_>>>()?;
        if tell {
            return self.join.offer_now(&keys, rows).map(Some);
        }
        self.join.offer(&keys, rows).map(|()| None)
    }
}

/// The window that serves all joins that can match anything; `None` when their times are in different columns.
fn common_window(joins: &[ViewJoin<'_>]) -> Option<Window> {
    let windows = joins.iter().filter(|joined| joined.join.can_match()).map(|joined| {
        let (first, last) = joined.join.window();
        Some(Window { column: joined.view.columns.event, first, last })
    });
    wider(windows)
}

/// One window around several.
fn wider(windows: impl Iterator<Item = Option<Window>>) -> Option<Window> {
    let wider = |a: Option<Window>, b: Option<Window>| {
        let (a, b) = (a?, b?);
        (a.column == b.column).then(|| Window { first: a.first.min(b.first), last: a.last.max(b.last), ..a })
    };
    windows.reduce(wider).flatten()
}

impl Winners {
    /// Reads the feature columns of the chosen rows.
    fn fetch(&self, view: &OpenView, table: &SourceTable, threads: usize) -> Result<PackedRowsBuilder> {
        let rows = PackedRowsBuilder::new(&view.fields, self.rows.len());
        let columns = view.columns.feature_columns();
        table.fetch(&columns, &self.rows, threads, Texts::WithDictionaries, &|rank, batch| {
            let columns = batch.columns().iter().zip(&view.fields).zip(&view.columns.features);
            let columns = columns.map(|((array, field), (column, declared))| match array.data_type() {
                DataType::Dictionary(..) if is_dictionary_of_texts(array, field.data_type()) => Ok(Arc::clone(array)),
                _ => to_declared(array, *declared, &table.describe(*column)),
            });
            rows.put(rank, batch.num_rows(), &columns.collect::<Result<Vec<_>>>()?)
        })?;
        Ok(rows)
    }

    /// The same for rows that were kept.
    fn kept(&self, view: &OpenView, table: &SourceTable, kept: KeptRows) -> Result<PackedRowsBuilder> {
        let rows = PackedRowsBuilder::new(&view.fields, self.rows.len());
        let mut rank = 0;
        for batch in kept.into_batches(&self.rows)? {
            let columns = declared_columns(batch.columns(), &view.columns.features, table)?;
            rows.put(rank, batch.num_rows(), &columns)?;
            rank += batch.num_rows() as u64;
        }
        Ok(rows)
    }

    /// Points every entity row at its values.
    fn locate(self, table: &SourceTable, rows: PackedRowsBuilder) -> Result<FoundFeatures> {
        let rows = rows.finish()?.ok_or_else(|| {
            Error::unavailable(format!("the files of data source `{}` changed while being read", table.name))
                .with_hint("run the request again")
        })?;
        Ok(FoundFeatures::Packed { ranks: self.ranks, rows })
    }
}

/// The feature values of one view for all entity rows of a part.
enum FoundFeatures {
    /// Which row belongs to each entity row.
    Packed { ranks: Vec<u32>, rows: PackedRows },
    /// The columns of every so many entity rows.
    Ready { step: usize, columns: Vec<Vec<ArrayRef>> },
}

impl FoundFeatures {
    /// Lets go of the rows where they take about as much as the answer made of them.
    fn ready(self, threads: usize) -> Result<Self> {
        // Columns of some rows together: enough for huge pages, and several for each thread.
        const SIZE: usize = 32 << 20;
        match self {
            Self::Packed { ranks, rows } if !ranks.is_empty() && 2 * rows.len() >= ranks.len() => {
                let step = (SIZE / rows.width().max(1))
                    .min(ranks.len().div_ceil(threads))
                    .max(1)
                    .next_multiple_of(OUTPUT_ROWS);
                let steps: Vec<&[u32]> = ranks.chunks(step).collect();
                let columns: Vec<Mutex<Vec<ArrayRef>>> = steps.iter().map(|_| Mutex::default()).collect();
                parallel::for_each(threads, steps.len(), &|step| {
                    *columns[step].lock().map_err(|_| Error::internal("a thread failed"))? =
                        rows.gather(steps[step])?;
                    Ok(())
                })?;
                let columns = columns.into_iter().map(Mutex::into_inner).collect::<std::result::Result<_, _>>();
                let columns = columns.map_err(|_| Error::internal("a thread failed"))?;
                Ok(Self::Ready { step, columns })
            }
            other => Ok(other),
        }
    }

    /// The columns for some entity rows.
    fn columns(&self, rows: Range<usize>) -> Result<Vec<ArrayRef>> {
        let (step, columns) = match self {
            Self::Packed { ranks, rows: packed } => return packed.gather(&ranks[rows]),
            Self::Ready { step, columns } => (*step, columns),
        };
        let pieces = (rows.start / step..rows.end.div_ceil(step)).map(|index| {
            let (start, end) = (rows.start.max(index * step), rows.end.min((index + 1) * step));
            let piece = |column: &ArrayRef| column.slice(start - index * step, end - start);
            columns[index].iter().map(piece).collect::<Vec<_>>()
        });
        let pieces: Vec<Vec<ArrayRef>> = pieces.collect();
        if let [all] = pieces.as_slice() {
            return Ok(all.clone());
        }
        let n_columns = pieces.first().map_or(0, Vec::len);
        let joined = (0..n_columns).map(|column| {
            let parts: Vec<&dyn Array> = pieces.iter().map(|piece| piece[column].as_ref()).collect();
            Ok(concat(&parts)?)
        });
        joined.collect()
    }
}

/// The feature columns of some entity rows, view by view.
fn gather(found: &[FoundFeatures], rows: Range<usize>) -> Result<Vec<ArrayRef>> {
    let columns: Vec<Mutex<Vec<ArrayRef>>> = found.iter().map(|_| Mutex::default()).collect();
    // Threads cost more than they save on a few rows.
    let threads = if rows.len() < 4096 { 1 } else { parallel::threads() };
    parallel::for_each(threads, found.len(), &|view| {
        *columns[view].lock().map_err(|_| Error::internal("a thread failed"))? = found[view].columns(rows.clone())?;
        Ok(())
    })?;
    Ok(columns.into_iter().filter_map(|columns| columns.into_inner().ok()).flatten().collect())
}

/// Distinct encoded rows within a number of bytes: where there are too many, the latest are left to another pass.
struct DistinctRows {
    rows: HashSet<(i64, Box<[u8]>)>,
    size: usize,
    limit: usize,
    /// Rows of this time and later ones are left out.
    cut: Option<i64>,
}

impl DistinctRows {
    /// What a row takes beside its bytes.
    const ENTRY: usize = 48;

    fn new(limit: usize) -> Self {
        Self { rows: HashSet::new(), size: 0, limit, cut: None }
    }

    fn add(&mut self, time: i64, row: &[u8]) {
        if self.cut.is_some_and(|cut| time >= cut) || !self.rows.insert((time, row.into())) {
            return;
        }
        self.size += row.len() + Self::ENTRY;
        if self.size > self.limit {
            self.halve();
        }
    }

    /// Leaves out the later half of the rows; rows of one time stay together.
    fn halve(&mut self) {
        let mut times: Vec<i64> = self.rows.iter().map(|(time, _)| *time).collect();
        let middle = times.len() / 2;
        let (before, median, _) = times.select_nth_unstable(middle);
        let cut = *median;
        if before.iter().all(|time| *time == cut) {
            // As good as all rows have one time; let them be.
            self.limit = self.limit.max(self.size).saturating_mul(2);
            return;
        }
        self.rows.retain(|(time, _)| *time < cut);
        self.size = self.rows.iter().map(|(_, row)| row.len() + Self::ENTRY).sum();
        self.cut = Some(cut);
    }

    /// The rows in order, and the time from which on there are more.
    fn into_rows(self) -> (Vec<Box<[u8]>>, Option<i64>) {
        let mut rows: Vec<Box<[u8]>> = self.rows.into_iter().map(|(_, row)| row).collect();
        // The encoding sorts as the columns do: by time, then by key.
        rows.sort_unstable();
        (rows, self.cut)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn distinct_rows_beyond_the_limit_come_in_later_passes() {
        let given: Vec<i64> = (0..1000).map(|number| number * 37 % 100).collect();
        let (mut from, mut passes, mut all) = (Some(i64::MIN), 0, Vec::new());
        while let Some(first) = from {
            let mut rows = DistinctRows::new(1000);
            given.iter().filter(|time| **time >= first).for_each(|time| rows.add(*time, &time.to_be_bytes()));
            let (rows, rest) = rows.into_rows();
            all.extend(rows.iter().map(|row| i64::from_be_bytes(row.as_ref().try_into().unwrap())));
            (from, passes) = (rest, passes + 1);
        }
        assert_eq!(all, (0..100).collect::<Vec<i64>>());
        assert!(passes > 3);
        let mut same = DistinctRows::new(100);
        (0..100u8).for_each(|key| same.add(5, &[key]));
        assert_eq!(same.into_rows().0.len(), 100);
    }
}
