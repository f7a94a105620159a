//! Views whose rows are computed: by a query or a function, from a source or from other views, and then aggregated.
//!
//! The rows that were computed rest in a temporary Parquet file, so that the rules of time and value, which read files,
//! hold for them as for all others, and memory does not depend on how many there are. Queries stream; functions in
//! Python get all rows of the window at once, as in Feast, because they may look at several rows together.

use std::fmt;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Schema, SchemaRef};
use datafusion::catalog::streaming::StreamingTable;
use datafusion::common::TableReference;
use datafusion::error::DataFusionError;
use datafusion::execution::context::SQLOptions;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use datafusion::prelude::{DataFrame, SessionContext};
use feast_core::{
    BatchFeatures, BatchFunctions, DataSource, Error, FeatureView, FeatureViewKind, Result, Timestamp, Transformation,
    UserDefinedFunction, list_names,
};
use futures::future::BoxFuture;
use futures::{StreamExt, TryStreamExt};
use tempfile::TempDir;

use super::aggregates::{aggregated, aggregations};
use crate::window_rows::WindowRows;
use crate::{BatchStream, CREATED_TIMESTAMP_COLUMN, EVENT_TIMESTAMP_COLUMN, LatestRequest, OfflineStore, WriteOptions};

/// Modes whose function returns a query.
const QUERY_MODES: [&str; 1] = ["sql"];
/// Modes whose function gets and returns rows.
const ROW_MODES: [&str; 2] = ["pandas", "python"];

/// Rows that were computed, in files that vanish with this.
#[derive(Debug)]
pub(crate) struct Scratch {
    folder: TempDir,
    n_files: usize,
    schema: SchemaRef,
}

impl Scratch {
    pub(super) async fn of(offline: &OfflineStore, rows: BatchStream) -> Result<Self> {
        let folder = tempfile::tempdir().map_err(|error| {
            Error::unavailable("there is no place for temporary files")
                .with_source(error)
                .with_hint("make room, or name another folder in `TMPDIR`")
        })?;
        let mut scratch = Self { folder, n_files: 0, schema: Arc::clone(rows.schema()) };
        scratch.add(offline, rows).await?;
        Ok(scratch)
    }

    /// Adds rows of the same columns.
    pub(super) async fn add(&mut self, offline: &OfflineStore, rows: BatchStream) -> Result<()> {
        let file = self.folder.path().join(format!("{:08}.parquet", self.n_files));
        offline.write_dataset(&file.display().to_string(), rows, WriteOptions::default()).await?;
        self.n_files += 1;
        Ok(())
    }

    fn path(&self) -> String {
        self.folder.path().display().to_string()
    }
}

/// Rows that were computed and where their times are; the created time is empty where there is none.
pub(super) struct Rows {
    pub(super) scratch: Scratch,
    pub(super) event: String,
    pub(super) created: String,
}

impl Rows {
    /// The view as one over these rows.
    pub(super) fn under(self, view: &FeatureView) -> (FeatureView, Scratch) {
        let Self { scratch, event, created } = self;
        let mut source = DataSource::file(format!("the computed rows of {}", view.name), scratch.path(), &event);
        let has_created = |name: &String| scratch.schema.index_of(name).is_ok();
        source.created_timestamp_column = Some(created).filter(has_created).unwrap_or_default();
        let kind = BatchFeatures { batch_source: Some(source), ..BatchFeatures::default() };
        (FeatureView { kind: FeatureViewKind::Batch(kind), ..view.clone() }, scratch)
    }
}

/// Computes the rows of views.
#[derive(Clone, Copy)]
pub(crate) struct Computer<'a> {
    pub(crate) offline: &'a OfflineStore,
    /// For rows that were computed: the same store, unless that is a database.
    pub(crate) files: &'a OfflineStore,
    pub(crate) functions: Option<&'a dyn BatchFunctions>,
}

impl Computer<'_> {
    /// The rows of a computed view for a window of its sources, and the same view as one over their file.
    pub(crate) async fn compute(
        self,
        view: &FeatureView,
        start: Timestamp,
        end: Timestamp,
    ) -> Result<(FeatureView, Scratch)> {
        // A window of an aggregation may begin before the run does.
        let longest = aggregations(view).iter().filter_map(|aggregation| aggregation.time_window).max();
        let first = longest.and_then(|window| end.checked_sub_signed(window)).map_or(start, |first| first.min(start));
        let mut rows = self.transformed_rows(view, first, end).await?;
        if !aggregations(view).is_empty() {
            let frame = aggregated(view, self.frame(view, &rows).await?, &rows.event, (start, end))?;
            rows.scratch = Scratch::of(self.files, stream_of(view, frame).await?.holding(rows.scratch)).await?;
        }
        Ok(rows.under(view))
    }

    /// The rows of a view before they are aggregated.
    pub(super) async fn transformed_rows(self, view: &FeatureView, start: Timestamp, end: Timestamp) -> Result<Rows> {
        let inputs = self.inputs(view, start, end).await?;
        let (event, created) = time_columns(view, &inputs)?;
        let scratch = Scratch::of(self.files, self.transformed(view, inputs).await?).await?;
        Ok(Rows { scratch, event, created })
    }

    /// Rows that were computed, as DataFusion reads them.
    pub(super) async fn frame(self, view: &FeatureView, rows: &Rows) -> Result<DataFrame> {
        let source = DataSource::file(view.name.clone(), rows.scratch.path(), &rows.event);
        let rows = self.files.window_rows(&source, Timestamp::MIN_UTC, Timestamp::MAX_UTC).await?;
        self.session()?.read_table(table(&rows)?).map_err(|error| failed(view, error))
    }

    /// What the transformation of a view gets.
    async fn inputs(self, view: &FeatureView, start: Timestamp, end: Timestamp) -> Result<Vec<Input>> {
        if let FeatureViewKind::Batch(BatchFeatures { source_views, .. }) = &view.kind
            && !source_views.is_empty()
        {
            let mut inputs = Vec::with_capacity(source_views.len());
            for source_view in source_views {
                inputs.push(self.newest_of(source_view, start, end).await?);
            }
            return Ok(inputs);
        }
        let source = crate::view_columns::batch_source(view)?;
        let (rows, scratch) = self.rows_of(source, start, end).await?;
        Ok(vec![Input {
            name: source.name.clone(),
            rows,
            event: source.timestamp_field.clone(),
            created: source.created_timestamp_column.clone(),
            _scratch: scratch,
        }])
    }

    /// The rows of a source in a window. Those of a database are copied into a file, because a query may read its input
    /// several times.
    async fn rows_of(
        self,
        source: &DataSource,
        start: Timestamp,
        end: Timestamp,
    ) -> Result<(WindowRows, Option<Scratch>)> {
        if !self.offline.is_a_database() {
            return Ok((self.offline.window_rows(source, start, end).await?, None));
        }
        let scratch = Scratch::of(self.files, self.offline.rows(source, start, end).await?).await?;
        let event = source.unmapped(&source.timestamp_field);
        let event = source.field_mapping.get(event).map_or(event, String::as_str);
        let file = DataSource::file(&source.name, scratch.path(), event);
        Ok((self.files.window_rows(&file, start, end).await?, Some(scratch)))
    }

    /// The newest row of each key of a view that is the input of another one, as in Feast.
    fn newest_of<'b>(self, view: &'b FeatureView, start: Timestamp, end: Timestamp) -> BoxFuture<'b, Result<Input>>
    where
        Self: 'b,
    {
        Box::pin(async move {
            let computed = match view.is_computed() {
                true => Some(self.compute(view, start, end).await?),
                false => None,
            };
            let over_rows = computed.as_ref().map_or(view, |(view, _)| view);
            let request = match computed {
                Some(_) => whole(over_rows),
                None => LatestRequest { view: Arc::new(view.clone()), start, end },
            };
            let source = crate::view_columns::batch_source(over_rows)?;
            let (event, created) = (source.timestamp_field.clone(), source.created_timestamp_column.clone());
            let latest = match computed {
                Some(_) => self.files.latest(request).await?,
                None => self.offline.latest(request).await?,
            };
            let scratch =
                Scratch::of(self.files, with_time_columns(latest, &event, &created).holding(computed)).await?;
            let rows = DataSource::file(&view.name, scratch.path(), &event);
            let rows = self.files.window_rows(&rows, Timestamp::MIN_UTC, Timestamp::MAX_UTC).await?;
            Ok(Input { name: view.name.clone(), rows, event, created, _scratch: Some(scratch) })
        })
    }

    async fn transformed(self, view: &FeatureView, mut inputs: Vec<Input>) -> Result<BatchStream> {
        let Some(function) = function(view)? else {
            if inputs.len() > 1 {
                return Err(Error::unsupported(format!(
                    "feature view `{}` joins several views without a transformation",
                    view.name
                ))
                .with_hint("give it a transformation in mode `sql` that joins them"));
            }
            let Some(input) = inputs.pop() else {
                return Err(Error::internal(format!("feature view `{}` has no input", view.name)));
            };
            return Ok(input.rows.read().holding(input));
        };
        let mode = match function.mode.as_str() {
            "" => view_mode(view),
            mode => mode,
        };
        let is_query = QUERY_MODES.contains(&mode);
        if !is_query && !ROW_MODES.contains(&mode) {
            return Err(Error::unsupported(format!(
                "the transformation of feature view `{}` is in mode `{mode}`, which is not run here",
                view.name
            ))
            .with_hint(format!("modes that are run are {}", list_names(QUERY_MODES.into_iter().chain(ROW_MODES)))));
        }
        let functions = self.functions.ok_or_else(|| {
            Error::unsupported(format!(
                "feature view `{}` is computed by a Python function, which this program cannot run",
                view.name
            ))
            .with_hint("use the `feast` command of the Python package")
        })?;
        if is_query {
            let names: Vec<String> = inputs.iter().map(|input| identifier(&input.name)).collect();
            let query = functions.query(view, &names).await?;
            return Box::pin(self.run_query(view, &query, inputs)).await;
        }
        let mut given = Vec::with_capacity(inputs.len());
        for input in inputs {
            given.push((Arc::clone(input.rows.schema()), input.rows.read().collect().await?));
        }
        let (schema, batches) = functions.rows(view, given).await?;
        Ok(BatchStream::from_batches(schema, batches))
    }

    /// Runs the query of a view; the tables are its inputs, by name.
    async fn run_query(self, view: &FeatureView, query: &str, inputs: Vec<Input>) -> Result<BatchStream> {
        let refused = |error| failed(view, error).with_context("query", query.trim());
        let context = self.session()?;
        let state = context.state();
        let dialect = state.config_options().sql_parser.dialect;
        let statement = state.sql_to_statement(query, &dialect).map_err(refused)?;
        for reference in state.resolve_table_references(&statement).map_err(refused)? {
            let name = reference.table().to_owned();
            let names = || inputs.iter().map(|input| input.name.as_str());
            let input = inputs
                .iter()
                .find(|input| input.name == name)
                .or_else(|| inputs.iter().find(|input| input.name.eq_ignore_ascii_case(&name)))
                .ok_or_else(|| {
                    Error::invalid_definition(format!(
                        "the query of feature view `{}` names a table `{name}`, which is not its input",
                        view.name
                    ))
                    .with_hint(format!("its inputs are {}", list_names(names())))
                })?;
            context.register_table(TableReference::bare(name), table(&input.rows)?).map_err(refused)?;
        }
        let options = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
        let frame = context.sql_with_options(query, options).await.map_err(refused)?;
        Ok(stream_of(view, frame).await?.holding(inputs))
    }

    fn session(self) -> Result<SessionContext> {
        self.files.session()
    }
}

/// A request for the newest rows of a view over a file of its own.
pub(crate) fn whole(view: &FeatureView) -> LatestRequest {
    LatestRequest { view: Arc::new(view.clone()), start: Timestamp::MIN_UTC, end: Timestamp::MAX_UTC }
}

/// Rows with a name, as a transformation gets them.
struct Input {
    name: String,
    rows: WindowRows,
    event: String,
    created: String,
    _scratch: Option<Scratch>,
}

/// A name as a query has it: in quotes, unless it is a plain word in lower case.
fn identifier(name: &str) -> String {
    let is_plain = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    if is_plain { name.to_owned() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}

/// Event time and created time of the rows of a view; the latter is empty where there is none. A function names them
/// as the source of its view does; what is not transformed keeps the names of the input.
fn time_columns(view: &FeatureView, inputs: &[Input]) -> Result<(String, String)> {
    let own = view.batch_source().filter(|source| !source.timestamp_field.is_empty());
    let own = if function(view)?.is_some() { own } else { None };
    Ok(match (own, inputs.first()) {
        (Some(source), _) => (source.timestamp_field.clone(), source.created_timestamp_column.clone()),
        (None, Some(input)) => (input.event.clone(), input.created.clone()),
        (None, None) => Default::default(),
    })
}

fn view_mode(view: &FeatureView) -> &str {
    match &view.kind {
        FeatureViewKind::Batch(batch) => &batch.mode,
        FeatureViewKind::Stream(stream) => &stream.mode,
        FeatureViewKind::OnDemand(_) | FeatureViewKind::Label(_) => "",
    }
}

/// The function of a view, if it has one.
fn function(view: &FeatureView) -> Result<Option<UserDefinedFunction>> {
    let (transformation, old) = match &view.kind {
        FeatureViewKind::Batch(batch) => (&batch.transformation, None),
        FeatureViewKind::Stream(stream) => (&stream.transformation, stream.user_defined_function.as_ref()),
        FeatureViewKind::OnDemand(_) | FeatureViewKind::Label(_) => return Ok(None),
    };
    match transformation {
        None => Ok(old.cloned()),
        Some(Transformation::UserDefinedFunction(function)) => Ok(Some(function.clone())),
        Some(Transformation::Substrait(_)) => Err(Error::unsupported(format!(
            "the transformation of feature view `{}` is a Substrait plan, which is not run here",
            view.name
        ))
        .with_hint("write it in mode `sql`")),
    }
}

/// The same rows with their times under other names; `created` may be empty.
fn with_time_columns(rows: BatchStream, event: &str, created: &str) -> BatchStream {
    let fields = rows.schema().fields().iter().filter_map(|field| {
        let name = match field.name().as_str() {
            EVENT_TIMESTAMP_COLUMN => event,
            CREATED_TIMESTAMP_COLUMN if created.is_empty() => return None,
            CREATED_TIMESTAMP_COLUMN => created,
            name => name,
        };
        Some(field.as_ref().clone().with_name(name))
    });
    let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    let target = Arc::clone(&schema);
    // The created time is the last column.
    let renamed = move |batch: RecordBatch| {
        let columns = batch.columns()[..target.fields().len()].to_vec();
        Ok(RecordBatch::try_new(Arc::clone(&target), columns)?)
    };
    BatchStream::new(schema, rows.map(move |batch| batch.and_then(&renamed)))
}

fn table(rows: &WindowRows) -> Result<Arc<StreamingTable>> {
    let partition = Arc::new(RowsPartition(rows.clone()));
    StreamingTable::try_new(Arc::clone(rows.schema()), vec![partition])
        .map(Arc::new)
        .map_err(|error| Error::internal("rows are no table").with_source(error))
}

/// Rows as DataFusion reads them, anew for each time that a query names them.
struct RowsPartition(WindowRows);

impl fmt::Debug for RowsPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RowsPartition")
    }
}

impl PartitionStream for RowsPartition {
    fn schema(&self) -> &SchemaRef {
        self.0.schema()
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let rows = self.0.read().map_err(|error| DataFusionError::External(Box::new(error)));
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(self.0.schema()), rows))
    }
}

pub(super) async fn stream_of(view: &FeatureView, frame: DataFrame) -> Result<BatchStream> {
    let schema = Arc::new(plain(frame.schema().as_arrow()));
    let name = view.name.clone();
    let rows = frame.execute_stream().await.map_err(|error| failed(view, error))?;
    let target = Arc::clone(&schema);
    let rows = rows.map(move |batch| {
        let batch = batch.map_err(|error| failed_view(&name, error))?;
        let columns = batch.columns().iter().zip(target.fields());
        let columns = columns.map(|(column, field)| Ok(arrow::compute::cast(column, field.data_type())?));
        Ok(RecordBatch::try_new(Arc::clone(&target), columns.collect::<Result<_>>()?)?)
    });
    Ok(BatchStream::new(schema, rows))
}

/// The schema with texts as files have them, and every column nullable.
fn plain(schema: &Schema) -> Schema {
    let fields = schema.fields().iter().map(|field| {
        let data_type = match field.data_type() {
            DataType::Utf8View => DataType::Utf8,
            DataType::BinaryView => DataType::Binary,
            other => other.clone(),
        };
        arrow::datatypes::Field::new(field.name(), data_type, true)
    });
    Schema::new(fields.collect::<Vec<_>>())
}

pub(super) fn failed(view: &FeatureView, error: DataFusionError) -> Error {
    failed_view(&view.name, error)
}

fn failed_view(view: &str, error: DataFusionError) -> Error {
    let text = error.strip_backtrace();
    let reason = text.lines().next().unwrap_or_default().trim_end_matches('.').to_owned();
    Error::invalid_definition(format!("the rows of feature view `{view}` cannot be computed: {reason}"))
        .with_hint("correct the transformation and run `feast apply`")
}
