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
use std::sync::Arc;

use arrow::datatypes::{DataType, Field as ArrowField, Schema, SchemaRef};
use feast_core::{
    DUMMY_JOIN_KEY, DataSource, Error, ErrorCode, PlannedFeature, PlannedView, Result, RetrievalPlan, Timestamp,
};

use crate::batch_stream::{BatchSender, BatchStream};
use crate::entity_rows::{EntityRows, EntitySource, OUTPUT_ROWS};
use crate::explain::Explanation;
use crate::found_features::gather;
use crate::join_keys::common_type;
use crate::leaks::LeakReport;
use crate::parallel;
use crate::part_join::{PartJoin, Steps, wider};
use crate::point_in_time::PointInTimeJoin;
use crate::sources::{SourceTable, Window};
use crate::timestamps::instant;
use crate::view_columns::{ViewColumns, batch_source, output_field, record_batch};

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

/// The sources of a plan, opened.
pub(crate) struct OpenPlan {
    pub(crate) plan: Arc<RetrievalPlan>,
    pub(crate) tables: Vec<SourceTable>,
    pub(crate) views: Vec<OpenView>,
}

/// A view of a plan, its columns found.
pub(crate) struct OpenView {
    /// Position in `tables`.
    pub(crate) table: usize,
    pub(crate) columns: ViewColumns,
    /// Names of the output columns and their types.
    pub(crate) fields: Vec<ArrowField>,
}

impl OpenPlan {
    /// Opens the sources for entity rows between two times, if there are any, and finds all columns.
    pub(crate) fn new(plan: Arc<RetrievalPlan>, base: &Path, bounds: Option<(i64, i64)>) -> Result<Self> {
        let mut open = Self { plan: Arc::clone(&plan), tables: Vec::new(), views: Vec::new() };
        let mut paths: Vec<String> = Vec::new();
        for planned in &plan.views {
            let view = &planned.view;
            let source = batch_source(view)?;
            let path = crate::sources::path_of(source)?;
            let table = match paths.iter().position(|known| known == path) {
                Some(table) => table,
                None => {
                    let within = bounds.and_then(|bounds| times_needed(&plan, source, bounds));
                    let mut table = SourceTable::open_within(source, base, within)
                        .map_err(|error| error.with_context("feature view", &view.name))?;
                    for sharing in &plan.views {
                        let own = batch_source(&sharing.view)?;
                        if crate::sources::path_of(own)? == path {
                            table.take_texts(&sharing.view, own);
                        }
                    }
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
    pub(crate) fn window(&self, table: usize, least: i64, greatest: i64) -> Option<Window> {
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

/// The event times that the views on the path of a source need for entity rows between two times; `None` where they do
/// not have them in the same column.
fn times_needed(plan: &RetrievalPlan, source: &DataSource, (least, greatest): (i64, i64)) -> Option<(i64, i64)> {
    let path = crate::sources::path_of(source).ok()?;
    let sources = plan.views.iter().filter_map(|planned| Some((batch_source(&planned.view).ok()?, planned.ttl)));
    let mut first = least;
    for (other, ttl) in sources.filter(|(other, _)| crate::sources::path_of(other).is_ok_and(|other| other == path)) {
        if other.unmapped(&other.timestamp_field) != source.unmapped(&source.timestamp_field) {
            return None;
        }
        first = first.min(ttl.micros().map_or(i64::MIN, |ttl| least.saturating_sub(ttl)));
    }
    Some((first, greatest))
}

/// Where the keys of a view are in the entity rows, and the types in which both sides are compared.
#[derive(PartialEq, Eq, Clone)]
pub(crate) struct MatchedKeys {
    pub(crate) entity_columns: Vec<usize>,
    pub(crate) types: Vec<DataType>,
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
    pub(crate) open: OpenPlan,
    /// By view.
    keys: Vec<MatchedKeys>,
    pub(crate) entity: EntityRows,
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
        let (most, at_once) = (self.rows_at_a_time(), self.rows_handed_out());
        let Self { open, keys, entity, options, schema } = self;
        let entity_schema = Arc::clone(&entity.schema);
        for part in entity.into_parts(most)? {
            let part = part?;
            let (check, is_kept) = (&|| sender.check(), &|| sender.is_kept());
            let join = PartJoin { open: &open, keys: &keys, options, part: &part, steps, check, is_kept };
            let found = join.run(&entity_schema)?;
            let mut pieces = Vec::new();
            for batch in part.into_output_batches(&entity_schema)? {
                let starts = (0..batch.num_rows()).step_by(at_once);
                pieces.extend(starts.map(|start| batch.slice(start, at_once.min(batch.num_rows() - start))));
            }
            let mut first = 0;
            // Each thread makes a batch.
            for pieces in pieces.chunks(parallel::threads()) {
                let runs = pieces.iter().scan(first, |first, piece| {
                    *first += piece.num_rows();
                    Some(*first - piece.num_rows()..*first)
                });
                let runs: Vec<Range<usize>> = runs.collect();
                first = runs.last().map_or(first, |last| last.end);
                let gathered = steps.explanation.timed(steps.output, || gather(&found, &runs))?;
                for (piece, features) in pieces.iter().zip(gathered) {
                    let mut columns = piece.columns().to_vec();
                    columns.extend(features);
                    let output = record_batch(&schema, columns, piece.num_rows())?;
                    let sizes = output.columns().iter().map(|column| column.to_data().get_slice_memory_size());
                    steps.explanation.count(steps.output, output.num_rows(), sizes.sum::<Result<usize, _>>()?);
                    sender.send(output)?;
                }
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
                let (check, is_kept) = (&|| Ok(()), &|| false);
                PartJoin { open: &open, keys: &keys, options, part: &part, steps: &steps, check, is_kept }
                    .run(&entity_schema)
            };
            let (known, today) = (answer(known)?, answer(today)?);
            let n_rows = part.n_rows();
            for start in (0..n_rows).step_by(OUTPUT_ROWS) {
                let rows = start..(start + OUTPUT_ROWS).min(n_rows);
                let n_rows = rows.len();
                let (known, today) = (gather(&known, std::slice::from_ref(&rows))?, gather(&today, &[rows])?);
                known.iter().zip(&today).try_for_each(|(known, today)| report.count(n_rows, known, today))?;
            }
        }
        Ok(report)
    }

    /// How many entity rows fit the memory limit with all that they need.
    fn rows_at_a_time(&self) -> usize {
        // A key in a hash table, a time, its row, and what sorting them takes.
        const KEY: usize = 32 + 8 + 4 + 4 + 16;
        // Winners and their ranks beside the join.
        let view = PointInTimeJoin::most_size(PartJoin::threads(self.open.tables.len()).1) + 16;
        // Tests have few rows and want several parts.
        const LEAST_ROWS: usize = if cfg!(test) { 7 } else { 4096 };
        let mut distinct: Vec<&MatchedKeys> = Vec::new();
        for keys in &self.keys {
            if !distinct.contains(&keys) {
                distinct.push(keys);
            }
        }
        let per_row = self.entity.spilled_row_size()
            + distinct.len() * KEY
            + self.open.views.len() * view
            // What is read, and once more a column of it while it is put together.
            + self.features_width() / 4 * 5;
        // What readers hold while they decode.
        let columns: usize = self.open.views.iter().map(|view| view.columns.features.len() + 3).sum();
        let readers = (parallel::threads() * columns * READER_COLUMN).min(self.options.memory / 2);
        let room = (self.options.memory - readers).saturating_sub(self.entity.held());
        (room / per_row.max(1)).max(LEAST_ROWS)
    }

    /// How many rows of the answer are handed out at once: a few batches wait between those who make and take them.
    fn rows_handed_out(&self) -> usize {
        let width = self.features_width() + self.entity.spilled_row_size();
        (self.options.memory / 64 / width.max(1)).clamp(OUTPUT_ROWS / 64, OUTPUT_ROWS)
    }

    /// Bytes of the features of an entity row in memory, about.
    fn features_width(&self) -> usize {
        let of_view = |view: &OpenView| -> usize {
            let table = &self.open.tables[view.table];
            view.columns.features.iter().map(|(column, _)| table.width(*column)).sum()
        };
        self.open.views.iter().map(of_view).sum()
    }
}

/// Bytes that a reader holds per column: a page, compressed and decoded, and a batch.
const READER_COLUMN: usize = 2 << 20;
