//! Entity rows given as a query.
//!
//! Each data source that the query names is a table under its name in lower case or as declared; what follows the last
//! dot of a name works too. Queries read; statements that change anything are refused.

use std::path::Path;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::catalog::TableProvider;
use datafusion::catalog::streaming::StreamingTable;
use datafusion::common::TableReference;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::datasource::file_format::FileFormat;
use datafusion::datasource::file_format::csv::CsvFormat;
use datafusion::datasource::file_format::file_compression_type::FileCompressionType;
use datafusion::datasource::file_format::parquet::ParquetFormat;
use datafusion::datasource::listing::{ListingOptions, ListingTable, ListingTableConfig, ListingTableUrl};
use datafusion::error::DataFusionError;
use datafusion::execution::context::SQLOptions;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use datafusion::prelude::{SessionConfig, SessionContext};
use feast_core::{DataSource, Error, Result, did_you_mean};
use futures::{StreamExt, TryStreamExt};

use crate::BatchStream;
use crate::entity_rows::{EntityRows, EntityRowsBuilder};
use crate::parallel::blocking;
use crate::sources::SourceTable;
use crate::sources::file::{ENDINGS, Encoding, Files, Shape};

/// Runs a query over the data sources and collects its rows; more than `kept` bytes of them wait in a file.
pub(crate) async fn entity_rows(
    sql: &str,
    sources: &[Arc<DataSource>],
    base: &Path,
    memory_limit: Option<usize>,
    kept: usize,
) -> Result<EntityRows> {
    let context = session(memory_limit).map_err(|error| refused(sql, error))?;
    let state = context.state();
    let dialect = state.config_options().sql_parser.dialect;
    let statement = state.sql_to_statement(sql, &dialect).map_err(|error| refused(sql, error))?;
    for reference in state.resolve_table_references(&statement).map_err(|error| refused(sql, error))? {
        let name = reference.table().to_owned();
        let source = find_source(&name, sources)?;
        let (source, base) = (Arc::clone(source), base.to_path_buf());
        let table = blocking(move || SourceTable::open(&source, &base)).await?;
        let provider = provider(table).map_err(|error| refused(sql, error))?;
        context.register_table(TableReference::bare(name), provider).map_err(|error| refused(sql, error))?;
    }
    let options = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
    let rows = context.sql_with_options(sql, options).await.map_err(|error| refused(sql, error))?;
    let schema = Arc::clone(rows.schema().inner());
    let plan = rows.create_physical_plan().await.map_err(|error| refused(sql, error))?;
    let plan = interruptible(plan).map_err(|error| refused(sql, error))?;
    let mut batches = execute_stream(plan, context.task_ctx()).map_err(|error| refused(sql, error))?;
    let mut rows = EntityRowsBuilder::new(schema, kept)?;
    while let Some(batch) = batches.next().await {
        let batch = batch.map_err(|error| refused(sql, error))?;
        rows = blocking(move || rows.push(batch).map(|()| rows)).await?;
    }
    rows.finish()
}

/// A session of DataFusion that spills beyond a number of bytes.
pub(crate) fn session(memory_limit: Option<usize>) -> Result<SessionContext, DataFusionError> {
    let mut runtime = RuntimeEnvBuilder::new();
    if let Some(limit) = memory_limit {
        runtime = runtime.with_memory_limit(limit, 1.0);
    }
    Ok(SessionContext::new_with_config_rt(SessionConfig::new(), runtime.build_arc()?))
}

/// The same plan, in which every step pauses now and then: a join can make many rows from few, and whoever gives up on
/// the query can only stop it at a pause.
fn interruptible(plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
    let paused = plan.transform_up(|step| Ok(Transformed::yes(Arc::new(CooperativeExec::new(step)) as _)))?;
    Ok(paused.data)
}

/// The source with this name, its case and what precedes the last dot aside.
fn find_source<'a>(name: &str, sources: &'a [Arc<DataSource>]) -> Result<&'a Arc<DataSource>> {
    let bare = |source: &DataSource| source.name.rsplit('.').next().unwrap_or_default().to_owned();
    sources
        .iter()
        .find(|source| source.name == name)
        .or_else(|| sources.iter().find(|source| source.name.eq_ignore_ascii_case(name)))
        .or_else(|| sources.iter().find(|source| bare(source).eq_ignore_ascii_case(name)))
        .ok_or_else(|| {
            Error::invalid_request(format!("the entity query names a table `{name}`, which is not a data source"))
                .with_hint_opt(did_you_mean(name, sources.iter().map(|source| source.name.as_str())))
        })
}

/// A source as a table of DataFusion, which reads the files itself where it can.
fn provider(table: SourceTable) -> Result<Arc<dyn TableProvider>, DataFusionError> {
    // DataFusion would look into the directory again, and find what was left out; it has no keys to buckets, and
    // reads no log of a Delta table.
    if !table.replaced.is_empty() || table.files.bucket.is_some() || table.files.delta.is_some() {
        return streamed(table);
    }
    let files = &table.files;
    let format: Arc<dyn FileFormat> = match files.encoding {
        Encoding::Parquet => Arc::new(ParquetFormat::default()),
        Encoding::Csv { gzip } => {
            let compression = if gzip { FileCompressionType::GZIP } else { FileCompressionType::UNCOMPRESSED };
            Arc::new(CsvFormat::default().with_has_header(true).with_file_compression_type(compression))
        }
        Encoding::Json { .. } => return streamed(table),
    };
    // Partition columns come from the folders below the directory; a glob has no such directory.
    let partitions = if files.shape == Shape::Directory { files.partitions.clone() } else { Vec::new() };
    let urls = match files.shape {
        Shape::Directory if !partitions.is_empty() => {
            vec![ListingTableUrl::parse(format!("{}/", files.root.display()))?]
        }
        _ => files.files.iter().map(|file| ListingTableUrl::parse(file.to_string_lossy())).collect::<Result<_, _>>()?,
    };
    let own = |field: &&Arc<arrow::datatypes::Field>| !files.partitions.iter().any(|(name, _)| name == field.name());
    let fields: Vec<_> = table.schema().fields().iter().filter(own).cloned().collect();
    let options = ListingOptions::new(format).with_file_extension(ending(files)).with_table_partition_cols(partitions);
    let config = ListingTableConfig::new_with_multi_paths(urls)
        .with_listing_options(options)
        .with_schema(Arc::new(arrow::datatypes::Schema::new(fields)));
    Ok(Arc::new(ListingTable::try_new(config)?))
}

/// A source whose rows we read.
fn streamed(table: SourceTable) -> Result<Arc<dyn TableProvider>, DataFusionError> {
    let schema = Arc::clone(table.schema());
    Ok(Arc::new(StreamingTable::try_new(schema, vec![Arc::new(Streamed(Arc::new(table)))])?))
}

#[derive(Debug)]
struct Streamed(Arc<SourceTable>);

impl PartitionStream for Streamed {
    fn schema(&self) -> &SchemaRef {
        self.0.schema()
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let (table, schema) = (Arc::clone(&self.0), Arc::clone(self.0.schema()));
        let rows = BatchStream::from_blocking(Arc::clone(&schema), move |sender| {
            let columns: Vec<usize> = (0..table.schema().fields().len()).collect();
            table.scan(&columns, None, 1, &|_, batch| sender.send(batch))
        });
        let rows = rows.map_err(|error| DataFusionError::External(Box::new(error)));
        Box::pin(RecordBatchStreamAdapter::new(schema, rows))
    }
}

/// How the names of the files end, so that others in their directory are left alone.
fn ending(files: &Files) -> &str {
    let name = files.files.first().and_then(|file| file.file_name()?.to_str()).unwrap_or_default();
    let ending = ENDINGS.iter().find(|(ending, _)| name.to_lowercase().ends_with(ending));
    ending.map_or("", |(ending, _)| &name[name.len() - ending.len()..])
}

/// What DataFusion has against a query, in one sentence.
fn refused(sql: &str, error: DataFusionError) -> Error {
    let text = error.strip_backtrace();
    let reason = text.lines().next().unwrap_or_default().trim_end_matches('.');
    // The parser's words are shown as Rust shows an enum.
    let of_parser = reason.strip_prefix("SQL error: ParserError(\"").and_then(|words| words.strip_suffix("\")"));
    let reason = of_parser.unwrap_or(reason).replace("\\\"", "\"");
    Error::invalid_request(format!("the entity query cannot be run: {reason}"))
        .with_context("query", sql.trim())
        .with_hint("select the join keys and `event_timestamp`; the tables are the data sources, by name")
}
