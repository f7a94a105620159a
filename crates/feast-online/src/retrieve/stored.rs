//! Features as the store keeps them, for who passes them on in another form and needs no columns of them.

use std::sync::Arc;
use std::time::Instant;

use arrow::array::ArrayRef;
use feast_core::{OnlineRead, OnlineStore, PlannedView, Result, RetrievalPlan, RowCells, StoredRows, ValueType};
use feast_proto::value_codec::ColumnDecoder;

use super::asked::{Asked, check_supported, other_entity_columns};
use super::row_times::{RowTimes, indices};
use super::{
    Fallback, FieldStatus, OnlineColumn, OnlineFeatures, RetrieveOptions, Timings, other_answer, present, utc, within,
};
use crate::EntityRows;

/// The answer to an online request whose values are as the store keeps them.
#[derive(Debug)]
pub struct StoredFeatures {
    /// What was asked for.
    pub plan: Arc<RetrievalPlan>,
    /// The columns of the caller.
    pub entity_columns: Vec<EntityColumnValues>,
    /// The views of the plan, in its order.
    pub views: Vec<StoredView>,
    /// Number of rows, that of the request.
    pub n_rows: usize,
    /// Where the time went.
    pub timings: Timings,
}

/// A column of the caller.
#[derive(Debug)]
pub struct EntityColumnValues {
    /// Name of the column.
    pub name: String,
    /// Declared type.
    pub value_type: ValueType,
    /// One value per row, of the Arrow type of `value_type`.
    pub values: ArrayRef,
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
        (0..self.statuses.len()).map(move |row| self.value(row, feature))
    }

    /// The serialized value of a feature in a row. The values of a row lie beside each other.
    #[inline]
    pub fn value(&self, row: usize, feature: usize) -> Option<&[u8]> {
        match &self.indices {
            None => self.rows.cell(row, feature),
            Some(indices) => self.rows.cell(indices[row]? as usize, feature),
        }
    }

    /// The serialized values of a row, feature by feature; `None` where they are hidden.
    #[inline]
    pub fn row(&self, row: usize) -> Option<RowCells<'_>> {
        match &self.indices {
            None => Some(self.rows.row(row)),
            Some(indices) => indices[row].map(|row| self.rows.row(row as usize)),
        }
    }
}

impl StoredFeatures {
    /// The values of a feature of a view of the plan as a column of the declared type.
    ///
    /// # Errors
    /// Values that are not of that type, naming feature and view.
    pub fn column(&self, view: &PlannedView, stored: &StoredView, feature: usize) -> Result<ArrayRef> {
        let field = &view.features[feature].field;
        let decode = || {
            let mut column = ColumnDecoder::new(field.value_type, self.n_rows);
            for cell in stored.values(feature) {
                match cell {
                    None => column.push_null(),
                    Some(cell) => column.push(cell)?,
                }
            }
            column.finish()
        };
        decode().map_err(|error| {
            error.with_context("feature", &field.name).with_context("feature view", &view.online.table.view)
        })
    }

    /// The same answer as columns.
    ///
    /// # Errors
    /// Values that do not fit their types.
    pub fn columns(&self) -> Result<OnlineFeatures> {
        let (present, unknown) = present(self.n_rows);
        let mut columns = Vec::with_capacity(self.entity_columns.len() + self.plan.outputs().count());
        columns.extend(self.entity_columns.iter().map(|column| OnlineColumn {
            name: column.name.as_str().into(),
            value_type: column.value_type,
            values: Arc::clone(&column.values),
            statuses: Arc::clone(&present),
            event_timestamps: Arc::clone(&unknown),
        }));
        for (view, stored) in self.plan.views.iter().zip(&self.views) {
            let statuses: Arc<[FieldStatus]> = stored.statuses.as_slice().into();
            let event_timestamps = Arc::new(utc(stored.event_timestamps.clone()));
            for (position, feature) in view.features.iter().enumerate().filter(|(_, feature)| feature.returned) {
                columns.push(OnlineColumn {
                    name: Arc::clone(&feature.output),
                    value_type: feature.field.value_type,
                    values: self.column(view, stored, position)?,
                    statuses: Arc::clone(&statuses),
                    event_timestamps: Arc::clone(&event_timestamps),
                });
            }
        }
        Ok(OnlineFeatures { columns, n_rows: self.n_rows, failures: Vec::new(), timings: self.timings })
    }
}

/// [`retrieve`](super::retrieve), with values as the store keeps them. `None`, before anything is read, where that cannot
/// be: where the store keeps something else, where something is computed from values, and where views may fall back.
///
/// # Errors
/// Those of [`retrieve`](super::retrieve), but for values that do not fit their types: nobody has looked into them.
pub async fn retrieve_stored(
    plan: &Arc<RetrievalPlan>,
    entity_rows: &EntityRows,
    store: &dyn OnlineStore,
    options: &RetrieveOptions,
) -> Result<Option<StoredFeatures>> {
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
    let Asked { n_rows, entity_columns, key_sets } = asked;
    let views = plan.views.iter().zip(answers).map(|(view, rows)| {
        let row_of_request = &key_sets[view.key_set].row_of_request;
        let RowTimes { statuses, micros, hides } =
            RowTimes::of(view, &rows.event_timestamps, row_of_request, n_rows, options);
        let indices =
            (hides || row_of_request.is_some()).then(|| indices(&statuses, hides, row_of_request).collect::<Vec<_>>());
        StoredView { statuses, event_timestamps: micros, rows, indices }
    });
    let views = views.collect();
    let entity_columns = entity_columns.into_iter().chain(other_entity_columns(plan, entity_rows));
    let entity_columns = entity_columns.map(|(key, values)| EntityColumnValues {
        name: key.column.clone(),
        value_type: key.value_type,
        values,
    });
    let entity_columns = entity_columns.collect();
    let timings =
        Timings { keys: keys_ready - started, store: store_read - keys_ready, transform: store_read.elapsed() };
    Ok(Some(StoredFeatures { plan: Arc::clone(plan), entity_columns, views, n_rows, timings }))
}
