//! Some entity rows that follow each other, joined to all views of a request.

use std::sync::{Arc, Mutex};

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, SchemaRef};
use feast_core::{DUMMY_JOIN_KEY, Error, Result};

use crate::cast::to_declared;
use crate::entity_rows::EntityPart;
use crate::explain::{Explanation, StepId};
use crate::found_features::FoundFeatures;
use crate::historical::{Historical, JoinOptions, MatchedKeys, OpenPlan, OpenView};
use crate::join_keys::canonical;
use crate::kept_rows::KeptRows;
use crate::packed_rows::{IntegerBounds, PackedRowsBuilder};
use crate::parallel;
use crate::point_in_time::{FeatureRows, PointInTimeJoin, Rule};
use crate::sources::{SourceTable, Texts, Window, is_dictionary_of_texts};
use crate::timelines::Timelines;
use crate::view_columns::{Scanned, declared_columns};
use crate::winners::Winners;

/// The steps of a request as they are explained.
pub(crate) struct Steps {
    pub(crate) explanation: Explanation,
    pub(crate) output: StepId,
    sort: StepId,
    /// By table.
    scans: Vec<StepId>,
    /// By view.
    joins: Vec<StepId>,
    fetches: Vec<StepId>,
}

impl Steps {
    pub(crate) fn new(explanation: &Explanation, request: &Historical) -> Self {
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
            let version = table.version().map(|version| format!(" at version {version}")).unwrap_or_default();
            let name = format!("scan of `{}`{version}: {read} of {of} {}", table.name, table.parts_name());
            steps.scans.push(explanation.step(3, name));
        }
        steps.sort = explanation.step(1, "entity rows sorted by key and time");
        steps
    }
}

/// A part of the entity rows while it is joined.
pub(crate) struct PartJoin<'a> {
    pub(crate) open: &'a OpenPlan,
    pub(crate) keys: &'a [MatchedKeys],
    pub(crate) options: JoinOptions,
    pub(crate) part: &'a EntityPart,
    pub(crate) steps: &'a Steps,
    /// Fails when nobody waits for the answer any more.
    pub(crate) check: &'a (dyn Fn() -> Result<()> + Sync),
    /// Whether all rows of the answer will be in memory at the end.
    pub(crate) is_kept: &'a (dyn Fn() -> bool + Sync),
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
    pub(crate) fn run(&self, entity_schema: &SchemaRef) -> Result<Vec<FoundFeatures>> {
        let explanation = &self.steps.explanation;
        // Each is let go once its view is joined: the values are then read without it.
        let timelines = explanation.timed(self.steps.sort, || self.timelines(entity_schema))?;
        let timelines: Vec<Mutex<Option<Arc<Timelines>>>> =
            timelines.into_iter().map(|timelines| Mutex::new(Some(timelines))).collect();
        let found: Vec<Mutex<Option<FoundFeatures>>> = self.open.views.iter().map(|_| Mutex::default()).collect();
        let n_tables = self.open.tables.len();
        let (side_by_side, threads) = Self::threads(n_tables);
        parallel::for_each(side_by_side, n_tables, &|table| {
            for (view, features) in self.join(table, &timelines, threads)? {
                *found[view].lock().map_err(|_| Error::internal("a thread failed"))? = Some(features);
            }
            Ok(())
        })?;
        Ok(found.into_iter().filter_map(|found| found.into_inner().ok().flatten()).collect())
    }

    /// How many of so many tables are joined side by side, and by how many threads each.
    pub(crate) fn threads(n_tables: usize) -> (usize, usize) {
        let side_by_side = parallel::threads().min(n_tables).max(1);
        (side_by_side, parallel::threads().div_ceil(side_by_side))
    }

    /// The sorted entity rows of each view; views with the same keys share them.
    fn timelines(&self, entity_schema: &SchemaRef) -> Result<Vec<Arc<Timelines>>> {
        let mut distinct: Vec<(&MatchedKeys, Arc<Timelines>)> = Vec::new();
        let mut timelines = Vec::new();
        let times = self.part.times()?;
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
            let sorted = Arc::new(Timelines::new(&keys.types, &batches, &times)?);
            self.steps.explanation.count(self.steps.sort, sorted.len(), sorted.size());
            distinct.push((keys, Arc::clone(&sorted)));
            timelines.push(sorted);
        }
        Ok(timelines)
    }

    /// Joins all views on one source in one scan.
    fn join(
        &self,
        table: usize,
        timelines: &[Mutex<Option<Arc<Timelines>>>],
        threads: usize,
    ) -> Result<Vec<(usize, FoundFeatures)>> {
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
                let timelines = timelines[index].lock().ok().and_then(|mut timelines| timelines.take());
                let timelines = timelines.ok_or_else(|| Error::internal("a view was joined twice"))?;
                let join = PointInTimeJoin::new(timelines, rule, view.columns.created.is_some());
                Ok(ViewJoin { index, view, keys: &self.keys[index], join })
            })
            .collect::<Result<_>>()?;
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
                    let chosen = join.finish(threads)?;
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
                // Else, and under a limit, the answer is made as it is asked for.
                let found = match self.options.memory {
                    usize::MAX if (self.is_kept)() => explanation.timed(self.steps.output, || found.ready(threads))?,
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
pub(crate) fn wider(windows: impl Iterator<Item = Option<Window>>) -> Option<Window> {
    let wider = |a: Option<Window>, b: Option<Window>| {
        let (a, b) = (a?, b?);
        (a.column == b.column).then(|| Window { first: a.first.min(b.first), last: a.last.max(b.last), ..a })
    };
    windows.reduce(wider).flatten()
}

impl Winners {
    /// Reads the feature columns of the chosen rows.
    fn fetch(&self, view: &OpenView, table: &SourceTable, threads: usize) -> Result<PackedRowsBuilder> {
        let columns = view.columns.feature_columns();
        let mut bounds: Vec<IntegerBounds> = columns.iter().map(|column| table.integer_bounds(*column)).collect();
        loop {
            let rows = PackedRowsBuilder::new(&view.fields, self.rows.len(), bounds);
            self.fetch_into(&rows, view, table, threads)?;
            if !rows.was_outside() {
                return Ok(rows);
            }
            // A file that told untrue bounds is read again without them.
            bounds = Vec::new();
        }
    }

    fn fetch_into(&self, rows: &PackedRowsBuilder, view: &OpenView, table: &SourceTable, threads: usize) -> Result<()> {
        let columns = view.columns.feature_columns();
        table.fetch(&columns, &self.rows, threads, Texts::WithDictionaries, &|rank, batch| {
            let columns = batch.columns().iter().zip(&view.fields).zip(&view.columns.features);
            let columns = columns.map(|((array, field), (column, declared))| match array.data_type() {
                DataType::Dictionary(..) if is_dictionary_of_texts(array, field.data_type()) => Ok(Arc::clone(array)),
                _ => to_declared(array, *declared, &table.describe(*column)),
            });
            rows.put(rank, batch.num_rows(), &columns.collect::<Result<Vec<_>>>()?)
        })
    }

    /// The same for rows that were kept.
    fn kept(&self, view: &OpenView, table: &SourceTable, kept: KeptRows) -> Result<PackedRowsBuilder> {
        let rows = PackedRowsBuilder::new(&view.fields, self.rows.len(), Vec::new());
        let mut rank = 0;
        for batch in kept.into_batches(&self.rows.within(0..u64::MAX))? {
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
