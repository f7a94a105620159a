//! Training data: each entity row with the features that were true at its time.
//!
//! A request opens the sources of its views, scans each source once for all views on it, and then reads the feature
//! columns. Where rows can be read by position (Parquet), the scan reads keys and times only, on several threads, and
//! the feature columns are read for the winning rows alone; elsewhere one pass keeps the rows that lead.
//!
//! Entity columns pass through untouched, whatever their unit or zone; the output has the entity rows in their order.

use std::collections::HashSet;
use std::path::Path;
use std::sync::{Arc, Mutex};

use arrow::array::{Array, ArrayRef, RecordBatch, new_null_array};
use arrow::compute::interleave;
use arrow::datatypes::{DataType, Field as ArrowField, Schema, SchemaRef};
use arrow::row::{RowConverter, SortField};
use chrono::{TimeDelta, Utc};
use feast_core::{
    DUMMY_JOIN_KEY, DataSource, Error, ErrorCode, PlannedFeature, PlannedView, Result, RetrievalPlan, Timestamp,
    timestamp_type,
};

use crate::batch_stream::{BatchSender, BatchStream};
use crate::entity_rows::{EntityRows, EntitySource};
use crate::join_keys::{canonical, common_type};
use crate::kept_rows::KeptRows;
use crate::parallel;
use crate::point_in_time::{FeatureRows, NO_ROW, PointInTimeJoin, Timelines};
use crate::sources::{SourceTable, Window};
use crate::timestamps::{instant, micros_array};
use crate::view_columns::{Scanned, ViewColumns, batch_source, declared_columns, output_field, record_batch};

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
    pub(crate) fn range(&self, start: Option<Timestamp>, end: Option<Timestamp>) -> Result<EntityRows> {
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
        let seen: Mutex<HashSet<Box<[u8]>>> = Mutex::default();
        for (view, planned) in self.views.iter().zip(&self.plan.views) {
            if view.columns.keys.is_empty() && !keys.is_empty() {
                continue;
            }
            let table = &self.tables[view.table];
            let scanned = Scanned::new(view.columns.keys.iter().copied().chain([view.columns.event]));
            let window = Window { column: view.columns.event, first, last };
            table.scan(&scanned.columns, Some(window), parallel::threads(), &|_, batch| {
                let times = scanned.times(&batch, view.columns.event, table)?;
                let inside: arrow::array::BooleanArray =
                    times.iter().map(|time| Some(time.is_some_and(|time| (first..=last).contains(&time)))).collect();
                let mut columns: Vec<ArrayRef> = vec![micros_array(times)];
                for key in &keys {
                    let own = planned.join_keys.iter().position(|own| own.column == key.column);
                    columns.push(match own {
                        None => new_null_array(&key.value_type.arrow_type(), batch.num_rows()),
                        Some(own) => {
                            let column = view.columns.keys[own];
                            let array = scanned.array(&batch, column)?;
                            crate::cast::to_declared(array, key.value_type, &table.describe(column))?
                        }
                    });
                }
                let own_keys: Vec<bool> =
                    keys.iter().map(|key| planned.join_keys.iter().any(|own| own.column == key.column)).collect();
                let rows = converter.convert_columns(&columns)?;
                let mut seen = seen.lock().map_err(|_| Error::internal("a thread failed"))?;
                for (index, row) in rows.iter().enumerate() {
                    let whole = (0..keys.len()).all(|key| !own_keys[key] || columns[key + 1].is_valid(index));
                    if inside.value(index) && whole && !seen.contains(row.data()) {
                        seen.insert(row.data().into());
                    }
                }
                Ok(())
            })?;
        }
        let mut rows: Vec<Box<[u8]>> = seen.into_inner().unwrap_or_default().into_iter().collect();
        // The encoding sorts as the columns do: by time, then by key.
        rows.sort_unstable();
        let parser = converter.parser();
        let columns = converter.convert_rows(rows.iter().map(|row| parser.parse(row)))?;
        let batch = record_batch(&schema, columns, rows.len())?;
        EntityRows::new(schema, vec![batch])
    }

    /// Checks the entity rows against the plan and names the output columns.
    pub(crate) fn with_entity_rows(self, entity: EntityRows, known_at_entity_time: bool) -> Result<Historical> {
        entity.check_request_fields(&self.plan)?;
        let mut views = Vec::new();
        for (view, planned) in self.views.iter().zip(&self.plan.views) {
            views.push(self.match_keys(view, planned, &entity)?);
        }
        let fields: Vec<&[ArrowField]> = self.views.iter().map(|view| view.fields.as_slice()).collect();
        let schema = output_schema(&entity.schema, &self.plan, &fields)?;
        Ok(Historical { open: self, keys: views, entity, known_at_entity_time, schema })
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
    let returned: HashSet<&str> = plan.outputs().map(|feature| feature.output.as_str()).collect();
    for (view, planned) in views.iter().zip(&plan.views) {
        for (field, feature) in view.iter().zip(&planned.features) {
            let taken = entity.index_of(&feature.output).is_ok();
            if taken && feature.returned {
                return Err(name_collision(feature, planned));
            }
            let taken = taken
                || (!feature.returned
                    && (returned.contains(feature.output.as_str())
                        || fields.iter().any(|known| known.name() == &feature.output)));
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
    let hint = if feature.output == full {
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

/// A request that is ready to run.
pub(crate) struct Historical {
    open: OpenPlan,
    /// By view.
    keys: Vec<MatchedKeys>,
    entity: EntityRows,
    known_at_entity_time: bool,
    schema: SchemaRef,
}

impl Historical {
    /// Starts the work; it runs as batches are read.
    pub(crate) fn start(self) -> HistoricalStream {
        let bounds = self.entity.bounds();
        HistoricalStream {
            entity_columns: self.entity.schema.fields().len(),
            event_timestamp_column: self.entity.time_name().to_owned(),
            min_event_timestamp: bounds.and_then(|(least, _)| instant(least)),
            max_event_timestamp: bounds.and_then(|(_, greatest)| instant(greatest)),
            batches: BatchStream::from_blocking(Arc::clone(&self.schema), move |sender| self.run(sender)),
        }
    }

    fn run(self, sender: &BatchSender) -> Result<()> {
        let timelines = self.timelines()?;
        let mut found: Vec<Option<FoundFeatures>> = self.open.views.iter().map(|_| None).collect();
        for table in 0..self.open.tables.len() {
            let views: Vec<usize> = (0..found.len()).filter(|view| self.open.views[*view].table == table).collect();
            for (view, features) in views.iter().zip(self.join(table, &views, &timelines, sender)?) {
                found[*view] = Some(features);
            }
        }
        drop(timelines);
        let found: Vec<FoundFeatures> = found.into_iter().flatten().collect();
        let mut start = 0;
        for batch in self.entity.into_output_batches()? {
            let end = start + batch.num_rows();
            let mut columns = batch.columns().to_vec();
            for features in &found {
                columns.extend(features.gather(start..end)?);
            }
            sender.send(record_batch(&self.schema, columns, batch.num_rows())?)?;
            start = end;
        }
        Ok(())
    }

    /// The sorted entity rows of each view; views with the same keys share them.
    fn timelines(&self) -> Result<Vec<Arc<Timelines>>> {
        let mut distinct: Vec<(&MatchedKeys, Arc<Timelines>)> = Vec::new();
        let mut timelines = Vec::new();
        for keys in &self.keys {
            if let Some((_, known)) = distinct.iter().find(|(known, _)| *known == keys) {
                timelines.push(Arc::clone(known));
                continue;
            }
            let mut batches = Vec::new();
            for batch in &self.entity.batches {
                let columns = keys.entity_columns.iter().zip(&keys.types).map(|(column, key_type)| {
                    let of = format!("column `{}` of the entity rows", self.entity.schema.field(*column).name());
                    canonical(batch.column(*column), key_type, &of)
                });
                batches.push((batch.num_rows(), columns.collect::<Result<Vec<_>>>()?));
            }
            let sorted = Arc::new(Timelines::new(&keys.types, &batches, &self.entity.times)?);
            distinct.push((keys, Arc::clone(&sorted)));
            timelines.push(sorted);
        }
        Ok(timelines)
    }

    /// Joins all views on one source in one scan.
    fn join(
        &self,
        table: usize,
        views: &[usize],
        timelines: &[Arc<Timelines>],
        sender: &BatchSender,
    ) -> Result<Vec<FoundFeatures>> {
        let table = &self.open.tables[table];
        let joins: Vec<(&OpenView, &MatchedKeys, PointInTimeJoin)> = views
            .iter()
            .map(|view| {
                let ttl = self.open.plan.views[*view].ttl;
                let join = PointInTimeJoin::new(Arc::clone(&timelines[*view]), ttl, self.known_at_entity_time);
                (&self.open.views[*view], &self.keys[*view], join)
            })
            .collect();
        let seekable = table.is_seekable();
        let feature_columns = |view: &OpenView| if seekable { Vec::new() } else { view.columns.feature_columns() };
        let scanned = Scanned::new(
            joins
                .iter()
                .flat_map(|(view, ..)| view.columns.deciding().chain(feature_columns(view)).collect::<Vec<_>>()),
        );
        // One pass over a source that cannot be read twice keeps what it will need.
        let kept: Vec<Mutex<KeptRows>> = joins
            .iter()
            .map(|(view, ..)| Ok(Mutex::new(KeptRows::new(Arc::new(table.schema().project(&feature_columns(view))?)))))
            .collect::<Result<_>>()?;
        if joins.iter().any(|(_, _, join)| join.can_match()) {
            table.scan(&scanned.columns, common_window(&joins), parallel::threads(), &|first_row, batch| {
                sender.check()?;
                for ((view, keys, join), kept) in joins.iter().zip(&kept) {
                    let columns = &view.columns;
                    let event = scanned.times(&batch, columns.event, table)?;
                    let created = columns.created.map(|created| scanned.times(&batch, created, table)).transpose()?;
                    let rows = FeatureRows { first_row, event: &event, created: created.as_ref() };
                    let key_arrays = columns.keys.iter().zip(&keys.types).map(|(column, key_type)| {
                        canonical(scanned.array(&batch, *column)?, key_type, &table.describe(*column))
                    });
                    let key_arrays = key_arrays.collect::<Result<Vec<_>>>()?;
                    if seekable {
                        join.offer(&key_arrays, rows, None)?;
                        continue;
                    }
                    let mut taken = Vec::new();
                    join.offer(&key_arrays, rows, Some(&mut taken))?;
                    let mut kept = kept.lock().map_err(|_| Error::internal("a thread failed"))?;
                    kept.keep(first_row, scanned.project(&batch, &feature_columns(view))?, taken)?;
                    if kept.is_full() {
                        kept.retain(&join.leading_rows())?;
                    }
                }
                Ok(())
            })?;
        }
        let kept = kept.into_iter().map(|kept| kept.into_inner().map_err(|_| Error::internal("a thread failed")));
        joins
            .into_iter()
            .zip(kept)
            .map(|((view, _, join), kept)| {
                sender.check()?;
                let winners = Winners::new(&join.finish());
                let batches = if seekable { winners.fetch(view, table)? } else { kept?.into_batches(&winners.rows)? };
                winners.locate(view, table, batches)
            })
            .collect()
    }
}

/// The window that serves all joins that can match anything; `None` when their times are in different columns.
fn common_window(joins: &[(&OpenView, &MatchedKeys, PointInTimeJoin)]) -> Option<Window> {
    let windows = joins.iter().filter(|(_, _, join)| join.can_match()).map(|(view, _, join)| {
        let (first, last) = join.window();
        Some(Window { column: view.columns.event, first, last })
    });
    let wider = |a: Option<Window>, b: Option<Window>| {
        let (a, b) = (a?, b?);
        (a.column == b.column).then(|| Window { first: a.first.min(b.first), last: a.last.max(b.last), ..a })
    };
    windows.reduce(wider).flatten()
}

/// The feature rows that were chosen, and by which entity rows.
struct Winners {
    /// Ascending and distinct.
    rows: Vec<u64>,
    /// Position in `rows` by entity row; [`NO_RANK`] where there is none.
    ranks: Vec<u32>,
}

const NO_RANK: u32 = u32::MAX;

impl Winners {
    fn new(by_entity_row: &[u64]) -> Self {
        let mut order: Vec<(u64, u32)> =
            (0..).zip(by_entity_row).filter(|(_, row)| **row != NO_ROW).map(|(entity, row)| (*row, entity)).collect();
        order.sort_unstable();
        let mut winners = Self { rows: Vec::new(), ranks: vec![NO_RANK; by_entity_row.len()] };
        for (row, entity) in order {
            if winners.rows.last() != Some(&row) {
                winners.rows.push(row);
            }
            winners.ranks[entity as usize] = (winners.rows.len() - 1) as u32;
        }
        winners
    }

    /// Reads the feature columns of the chosen rows, in their order.
    fn fetch(&self, view: &OpenView, table: &SourceTable) -> Result<Vec<RecordBatch>> {
        let batches: Mutex<Vec<(u64, RecordBatch)>> = Mutex::default();
        table.fetch(&view.columns.feature_columns(), &self.rows, parallel::threads(), &|rank, batch| {
            batches.lock().map_err(|_| Error::internal("a thread failed"))?.push((rank, batch));
            Ok(())
        })?;
        let mut batches = batches.into_inner().unwrap_or_default();
        batches.sort_by_key(|(rank, _)| *rank);
        Ok(batches.into_iter().map(|(_, batch)| batch).collect())
    }

    /// Brings the columns to their declared types and points every entity row at its values.
    fn locate(self, view: &OpenView, table: &SourceTable, batches: Vec<RecordBatch>) -> Result<FoundFeatures> {
        let mut places = Vec::with_capacity(self.rows.len());
        let mut columns: Vec<Vec<ArrayRef>> =
            view.fields.iter().map(|field| vec![new_null_array(field.data_type(), 1)]).collect();
        for (index, batch) in (1u32..).zip(batches) {
            places.extend((0..batch.num_rows() as u32).map(|row| (index, row)));
            for (column, array) in
                columns.iter_mut().zip(declared_columns(batch.columns(), &view.columns.features, table)?)
            {
                column.push(array);
            }
        }
        if places.len() != self.rows.len() {
            return Err(Error::unavailable(format!(
                "the files of data source `{}` changed while being read",
                table.name
            ))
            .with_hint("run the request again"));
        }
        let places = self.ranks.iter().map(|rank| match *rank {
            NO_RANK => (0, 0),
            rank => places[rank as usize],
        });
        Ok(FoundFeatures { places: places.collect(), columns })
    }
}

/// The feature values of one view for all entity rows.
struct FoundFeatures {
    /// Array and row by entity row; array 0 holds a null.
    places: Vec<(u32, u32)>,
    /// The arrays of each feature.
    columns: Vec<Vec<ArrayRef>>,
}

impl FoundFeatures {
    /// The feature columns of some entity rows.
    fn gather(&self, rows: std::ops::Range<usize>) -> Result<Vec<ArrayRef>> {
        let places: Vec<(usize, usize)> =
            self.places[rows].iter().map(|(array, row)| (*array as usize, *row as usize)).collect();
        self.columns
            .iter()
            .map(|arrays| {
                let arrays: Vec<&dyn Array> = arrays.iter().map(AsRef::as_ref).collect();
                Ok(interleave(&arrays, &places)?)
            })
            .collect()
    }
}
