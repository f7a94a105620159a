//! Which columns of a source a feature view needs.

use arrow::array::{Array, ArrayRef, RecordBatch, TimestampMicrosecondArray};
use arrow::datatypes::{Field as ArrowField, SchemaRef};
use feast_core::{
    DUMMY_JOIN_KEY, DataSource, Error, ErrorCode, FeatureView, Field, Result, ValueType, did_you_mean, list_names,
};

use crate::cast::to_declared;
use crate::sources::SourceColumns;
use crate::timestamps::{can_be_time, to_micros};

/// Positions of a view's columns in its source.
pub(crate) struct ViewColumns {
    /// The join keys, in the order of the view; none for entity-less views.
    pub(crate) keys: Vec<usize>,
    pub(crate) event: usize,
    pub(crate) created: Option<usize>,
    /// The features wanted, with their declared types.
    pub(crate) features: Vec<(usize, ValueType)>,
}

/// The source that holds the history of a view.
pub(crate) fn batch_source(view: &FeatureView) -> Result<&DataSource> {
    view.batch_source().and_then(DataSource::batch).ok_or_else(|| {
        Error::invalid_definition(format!(
            "{} `{}` has no batch source to read history from",
            view.object_kind(),
            view.name
        ))
        .with_hint("declare the view with a source whose rows rest in files or tables")
    })
}

impl ViewColumns {
    /// Finds the columns; every problem with them is found here, before any row is read.
    pub(crate) fn find<'a>(
        view: &FeatureView,
        table: &SourceColumns,
        source: &DataSource,
        keys: impl Iterator<Item = &'a str>,
        features: impl Iterator<Item = &'a Field>,
    ) -> Result<Self> {
        if source.timestamp_field.is_empty() {
            return Err(Error::invalid_definition(format!("data source `{}` has no timestamp field", source.name))
                .with_hint("declare `timestamp_field`, or run `feast apply`, which infers it"));
        }
        let event = table.column(source, &source.timestamp_field)?;
        let created = match source.created_timestamp_column.as_str() {
            "" => None,
            name => Some(table.column(source, name)?),
        };
        for column in created.into_iter().chain([event]) {
            if !can_be_time(table.data_type(column)) {
                return Err(Error::invalid_definition(format!(
                    "{} has type {}, which is not a time",
                    table.describe(column),
                    table.data_type(column)
                ))
                .with_hint("name another column as timestamp, or store it as a timestamp or text in ISO 8601"));
            }
        }
        let keys: Vec<usize> =
            keys.filter(|key| *key != DUMMY_JOIN_KEY).map(|key| table.column(source, key)).collect::<Result<_>>()?;
        if keys.is_empty() && !view.is_entity_less() {
            return Err(Error::invalid_definition(format!("feature view `{}` has no join key columns", view.name))
                .with_hint("run `feast apply`, which infers them from the entities and the source"));
        }
        let wanted: Vec<&Field> = features.collect();
        let column_of = |feature: &Field| table.column(source, &feature.name).ok();
        let missing: Vec<&str> =
            wanted.iter().filter(|feature| column_of(feature).is_none()).map(|feature| feature.name.as_str()).collect();
        if let [first, ..] = missing.as_slice() {
            return Err(Error::new(
                ErrorCode::MissingColumns,
                format!(
                    "data source `{}` has no column for {} of feature view `{}`",
                    source.name,
                    list_names(missing.iter().copied()),
                    view.name
                ),
            )
            .with_hint_opt(did_you_mean(first, table.schema().fields().iter().map(|field| field.name().as_str()))));
        }
        let features = wanted.iter().filter_map(|feature| Some((column_of(feature)?, feature.value_type))).collect();
        Ok(Self { keys, event, created, features })
    }

    /// The columns that decide which rows count.
    pub(crate) fn deciding(&self) -> impl Iterator<Item = usize> {
        self.keys.iter().copied().chain([self.event]).chain(self.created)
    }

    /// The feature columns.
    pub(crate) fn feature_columns(&self) -> Vec<usize> {
        self.features.iter().map(|(column, _)| *column).collect()
    }
}

/// The output field of a feature: the declared type, and for opaque types that of the source.
pub(crate) fn output_field(name: &str, declared: ValueType, table: &SourceColumns, column: usize) -> ArrowField {
    let field = declared.arrow_field(name);
    if declared.is_opaque() { field.with_data_type(table.data_type(column).clone()) } else { field }
}

/// Columns as their declared types; `columns` names them in the source.
pub(crate) fn declared_columns(
    arrays: &[ArrayRef],
    columns: &[(usize, ValueType)],
    table: &SourceColumns,
) -> Result<Vec<ArrayRef>> {
    arrays
        .iter()
        .zip(columns)
        .map(|(array, (column, declared))| to_declared(array, *declared, &table.describe(*column)))
        .collect()
}

/// Some columns of a source as they lie in the batches of a scan.
pub(crate) struct Scanned {
    /// Ascending and distinct.
    pub(crate) columns: Vec<usize>,
}

impl Scanned {
    /// The columns a scan has to read.
    pub(crate) fn new(columns: impl Iterator<Item = usize>) -> Self {
        let mut columns: Vec<usize> = columns.collect();
        columns.sort_unstable();
        columns.dedup();
        Self { columns }
    }

    /// A column of a batch of the scan.
    pub(crate) fn array<'a>(&self, batch: &'a RecordBatch, column: usize) -> Result<&'a ArrayRef> {
        let index = self.columns.binary_search(&column).map_err(|_| Error::internal("a column was not scanned"))?;
        Ok(batch.column(index))
    }

    /// A time column of a batch of the scan.
    pub(crate) fn times(
        &self,
        batch: &RecordBatch,
        column: usize,
        table: &SourceColumns,
    ) -> Result<TimestampMicrosecondArray> {
        to_micros(self.array(batch, column)?.as_ref() as &dyn Array, &table.describe(column))
    }

    /// Several columns of a batch of the scan.
    pub(crate) fn project(&self, batch: &RecordBatch, columns: &[usize]) -> Result<Vec<ArrayRef>> {
        columns.iter().map(|column| self.array(batch, *column).cloned()).collect()
    }
}

/// A batch of these columns; a batch may have rows and no columns.
pub(crate) fn record_batch(schema: &SchemaRef, columns: Vec<ArrayRef>, n_rows: usize) -> Result<RecordBatch> {
    let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(n_rows));
    Ok(RecordBatch::try_new_with_options(std::sync::Arc::clone(schema), columns, &options)?)
}
