//! Delta Lake tables: which Parquet files hold the rows of a version, and how to read them as the table means them.
//!
//! The log is read by Delta's own kernel. The files are then read as any Parquet: what a deletion vector removes is left
//! out of the row groups, columns are found by the names (or ids) that a column mapping gave them in the files, and
//! columns of partitions come from the log. So training data from a table takes as long as from its files.
//!
//! Files without a row of the times that a request needs are found by the statistics of the log and never opened.
//!
//! The newest version is read when a source is opened; `path@v3` names version 3 for good. Files come in the order in
//! which they were written.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanBufferBuilder, StringArray, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use chrono::DateTime;
use delta_kernel::engine::arrow_conversion::TryIntoArrow;
use delta_kernel::expressions::Scalar;
use delta_kernel::scan::state::ScanFile;
use delta_kernel::schema::{ColumnMetadataKey, DataType as TableType, MetadataValue, StructField};
use delta_kernel::table_features::ColumnMappingMode;
use delta_kernel::{Engine, Expression, KernelError, Predicate, Snapshot, SnapshotRef};
use delta_kernel_default_engine::DefaultEngineBuilder;
use delta_kernel_default_engine::executor::tokio::TokioMultiThreadExecutor;
use feast_core::{Error, ErrorCode, Result};
use object_store::local::LocalFileSystem;
use object_store::path::Path as Key;
use object_store::{ObjectMeta, ObjectStore};
use parquet::arrow::PARQUET_FIELD_ID_META_KEY;
use parquet::arrow::arrow_reader::RowSelection;
use tokio::runtime::{Handle, RuntimeFlavor};
use url::Url;

use super::Wanted;
use super::bucket::{self, Bucket};
use crate::cast::cast_to;

/// The folder that makes a folder a table.
pub(crate) const LOG: &str = "_delta_log";

/// A version of a table.
#[derive(Debug)]
pub(crate) struct DeltaTable {
    pub(crate) version: u64,
    /// The columns, in the order and of the types that the table declares.
    pub(crate) schema: SchemaRef,
    /// What the columns are called in files, in the order of `schema`.
    stored: Vec<StoredName>,
    /// Whether names in files differ from those of the table.
    is_mapped: bool,
    /// Partition columns, with a value for each file.
    partitions: Vec<(String, ArrayRef)>,
    /// By file, the rows that are deleted, ascending.
    deleted: Vec<Vec<u64>>,
}

#[derive(Debug)]
enum StoredName {
    Name(String),
    /// An id, or the name where a file has no ids.
    Id(String, String),
}

/// A data file of a table.
#[derive(Debug)]
pub(crate) struct DataFile {
    pub(crate) path: PathBuf,
    /// The object, where the table is in a bucket.
    pub(crate) object: Option<ObjectMeta>,
}

/// The path of a table and the version that `path@v3` names.
pub(crate) fn pinned(path: &str) -> Option<(&str, u64)> {
    let (table, version) = path.trim_end_matches('/').rsplit_once("@v")?;
    let is_number = !version.is_empty() && version.bytes().all(|byte| byte.is_ascii_digit());
    Some((table, version.parse().ok().filter(|_| is_number)?))
}

/// The error for a table that is none.
pub(crate) fn not_a_table(path: &str) -> Error {
    Error::new(ErrorCode::FileNotFound, format!("`{path}` is not a Delta table: it has no folder `{LOG}`"))
        .with_hint("name the folder that holds the table; leave `file_format` out for other files")
}

/// The error for writing.
pub(crate) fn read_only(source: &str) -> Error {
    Error::unsupported(format!("data source `{source}` is a Delta table, to which rows cannot be added here"))
        .with_hint("add the rows with a writer of Delta Lake, or use a source of Parquet files")
}

impl DeltaTable {
    /// Reads the log of a table on a local disk. `path` is its name in messages.
    pub(crate) fn open(
        path: &str,
        root: &Path,
        version: Option<u64>,
        wanted: Option<Wanted<'_>>,
    ) -> Result<(Self, Vec<DataFile>)> {
        let url = Url::from_directory_path(root)
            .map_err(|()| Error::invalid_definition(format!("`{path}` is not an absolute path")))?;
        let log = Log::new(path, url, Arc::new(LocalFileSystem::new()), version)?;
        log.table(wanted, |url| {
            let local = url.to_file_path().map_err(|()| elsewhere(path, url))?;
            Ok(DataFile { path: local, object: None })
        })
    }

    /// Reads the log of a table in a bucket.
    pub(crate) fn open_in(
        bucket: &Bucket,
        key: &str,
        path: &str,
        version: Option<u64>,
        wanted: Option<Wanted<'_>>,
    ) -> Result<(Self, Vec<DataFile>)> {
        let root = bucket.url(key);
        let url = Url::parse(&format!("{}/", root.display()))
            .map_err(|error| Error::invalid_definition(format!("`{path}` is not a URL")).with_source(error))?;
        let own = url.clone();
        let log = Log::new(path, url, bucket.store(), version)?;
        log.table(wanted, |url| {
            if url.host_str() != own.host_str() {
                return Err(elsewhere(path, url));
            }
            let location = Key::from_url_path(url.path()).map_err(|_| elsewhere(path, url))?;
            let path = bucket.url(location.as_ref());
            // Size and time of change are those of the log; an object of a table is never written again.
            let object =
                ObjectMeta { location, last_modified: DateTime::UNIX_EPOCH, size: 0, e_tag: None, version: None };
            Ok(DataFile { path, object: Some(object) })
        })
    }

    /// The columns that files do not hold.
    pub(crate) fn partitions(&self) -> Vec<(String, DataType)> {
        self.partitions.iter().map(|(name, values)| (name.clone(), values.data_type().clone())).collect()
    }

    /// A partition column of `n_rows` rows of a file.
    pub(crate) fn partition_array(&self, file: usize, partition: usize, n_rows: usize) -> Result<ArrayRef> {
        Ok(take(&self.partitions[partition].1, &UInt32Array::from(vec![file as u32; n_rows]), None)?)
    }

    /// The columns of a file under the names of the table. What the table does not know keeps its name.
    pub(crate) fn renamed(&self, file: &SchemaRef) -> SchemaRef {
        if !self.is_mapped {
            return Arc::clone(file);
        }
        let is_stored_in = |stored: &StoredName, field: &Field| match stored {
            StoredName::Name(name) => field.name() == name,
            StoredName::Id(id, name) => match field.metadata().get(PARQUET_FIELD_ID_META_KEY) {
                Some(found) => found == id,
                None => field.name() == name,
            },
        };
        let fields = file.fields().iter().map(|field| {
            match self.stored.iter().position(|stored| is_stored_in(stored, field)) {
                Some(column) => field.as_ref().clone().with_name(self.schema.field(column).name()),
                // Not the name of another column of the table by accident.
                None => field.as_ref().clone().with_name(format!("{}\0", field.name())),
            }
        });
        Arc::new(Schema::new(fields.collect::<Vec<_>>()))
    }

    /// Refuses columns whose parts were renamed.
    pub(crate) fn check_readable(&self, field: &Field) -> Result<()> {
        fn has_struct(data_type: &DataType) -> bool {
            match data_type {
                DataType::Struct(_) | DataType::Map(..) => true,
                DataType::List(item) => has_struct(item.data_type()),
                _ => false,
            }
        }
        if self.is_mapped && has_struct(field.data_type()) {
            return Err(Error::unsupported(format!(
                "column `{}` is a {}, which is not read from a Delta table with column mapping",
                field.name(),
                field.data_type()
            ))
            .with_hint("ask for other columns, or write the table without column mapping"));
        }
        Ok(())
    }

    /// The rows of a part of a file that are left, where some are deleted.
    pub(crate) fn kept(&self, file: usize, first_row: u64, n_rows: usize) -> Option<RowSelection> {
        let deleted = &self.deleted[file];
        let past = first_row + n_rows as u64;
        let inside = deleted.partition_point(|row| *row < first_row)..deleted.partition_point(|row| *row < past);
        if inside.is_empty() {
            return None;
        }
        let mut kept = BooleanBufferBuilder::new(n_rows);
        kept.append_n(n_rows, true);
        deleted[inside].iter().for_each(|row| kept.set_bit((row - first_row) as usize, false));
        Some(RowSelection::from_boolean_buffer(kept.finish()))
    }
}

/// What reads logs. The connections of a store belong to the runtime that opened them, so requests run on ours.
fn engine(store: Arc<dyn ObjectStore>) -> Arc<dyn Engine> {
    let builder = DefaultEngineBuilder::new(store);
    match Handle::try_current() {
        Ok(handle) if handle.runtime_flavor() == RuntimeFlavor::MultiThread => {
            Arc::new(builder.with_task_executor(Arc::new(TokioMultiThreadExecutor::new(handle))).build())
        }
        _ => Arc::new(builder.build()),
    }
}

/// The log of a table, read up to a version.
struct Log<'a> {
    /// Name of the table in messages.
    path: &'a str,
    engine: Arc<dyn Engine>,
    snapshot: SnapshotRef,
}

impl<'a> Log<'a> {
    fn new(path: &'a str, root: Url, store: Arc<dyn ObjectStore>, version: Option<u64>) -> Result<Self> {
        let engine = engine(store);
        let newest = || Snapshot::builder_for(&root).build(engine.as_ref());
        let snapshot = match version {
            None => newest(),
            Some(version) => Snapshot::builder_for(&root).at_version(version).build(engine.as_ref()),
        };
        let snapshot = snapshot.map_err(|error| match (version, newest()) {
            (Some(version), Ok(newest)) if newest.version() < version => no_version(path, version, newest.version()),
            _ => unreadable(path, error),
        })?;
        Ok(Self { path, engine, snapshot })
    }

    /// What the log says, and the data files, of which `find` knows where they are; those aside that hold no wanted row
    /// by the statistics of the log.
    fn table(
        &self,
        wanted: Option<Wanted<'_>>,
        find: impl Fn(&Url) -> Result<DataFile>,
    ) -> Result<(DeltaTable, Vec<DataFile>)> {
        let failed = |error| unreadable(self.path, error);
        let snapshot = &self.snapshot;
        let columns = snapshot.schema();
        let types: Schema = columns.as_ref().try_into_arrow().map_err(|error| {
            Error::unsupported(format!("the columns of `{}` are of unknown types: {error}", self.path))
        })?;
        let fields = types.fields().iter().map(|field| Field::new(field.name(), field.data_type().clone(), true));
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let mode = snapshot.table_properties().column_mapping_mode.unwrap_or(ColumnMappingMode::None);
        let stored: Vec<StoredName> = columns.fields().map(|field| stored_name(field, mode)).collect();
        let name_of = |stored: &'_ StoredName| match stored {
            StoredName::Name(name) | StoredName::Id(_, name) => name.clone(),
        };

        let predicate = wanted.and_then(|wanted| predicate(columns.field(wanted.column)?, wanted)).map(Arc::new);
        let scan = Arc::clone(snapshot).scan_builder().with_predicate(predicate).build().map_err(failed)?;
        let mut files: Vec<ScanFile> = Vec::new();
        for part in scan.scan_metadata(self.engine.as_ref()).map_err(failed)? {
            files =
                part.and_then(|part| part.visit_scan_files(files, |files, file| files.push(file))).map_err(failed)?;
        }
        files.sort_by(|one, other| (one.modification_time, &one.path).cmp(&(other.modification_time, &other.path)));

        // What a scan does not read from files comes from the log.
        let in_files = scan.physical_schema();
        let mut partitions = Vec::new();
        for (field, stored) in schema.fields().iter().zip(&stored) {
            let name = name_of(stored);
            if in_files.contains(&name) {
                continue;
            }
            let values = files.iter().map(|file| file.partition_values.get(&name).filter(|value| !value.is_empty()));
            let values: ArrayRef = Arc::new(StringArray::from_iter(values));
            let of = format!("partition column `{}` of `{}`", field.name(), self.path);
            partitions.push((field.name().clone(), cast_to(&values, field.data_type(), &of)?));
        }

        let root = snapshot.table_root();
        let mut found = Vec::with_capacity(files.len());
        let mut deleted = Vec::with_capacity(files.len());
        for file in files {
            let url = root.join(&file.path).map_err(|_| elsewhere(self.path, root))?;
            let mut data = find(&url)?;
            if let Some(object) = &mut data.object {
                object.size = file.size.unsigned_abs();
                object.last_modified = DateTime::from_timestamp_millis(file.modification_time).unwrap_or_default();
            }
            found.push(data);
            let mut rows =
                file.dv_info.get_row_indexes(self.engine.as_ref(), root).map_err(failed)?.unwrap_or_default();
            rows.sort_unstable();
            deleted.push(rows);
        }
        let is_mapped = mode != ColumnMappingMode::None;
        Ok((DeltaTable { version: snapshot.version(), schema, stored, is_mapped, partitions, deleted }, found))
    }
}

/// The condition on wanted rows, if the log has statistics of such a column.
fn predicate(field: &StructField, wanted: Wanted<'_>) -> Option<Predicate> {
    let instant: fn(i64) -> Scalar = match field.data_type() {
        zoned if *zoned == TableType::TIMESTAMP => Scalar::Timestamp,
        naive if *naive == TableType::TIMESTAMP_NTZ => Scalar::TimestampNtz,
        _ => return None,
    };
    let time = || Expression::column([field.name().as_str()]);
    let literal = |micros| Expression::literal(instant(micros));
    Some(Predicate::and(time().ge(literal(wanted.first)), time().le(literal(wanted.last))))
}

fn stored_name(field: &StructField, mode: ColumnMappingMode) -> StoredName {
    let text =
        |key| field.get_config_value(&key).map(|value: &MetadataValue| value.to_string().trim_matches('"').to_owned());
    let name = || text(ColumnMetadataKey::ColumnMappingPhysicalName).unwrap_or_else(|| field.name().clone());
    match mode {
        ColumnMappingMode::None => StoredName::Name(field.name().clone()),
        ColumnMappingMode::Name => StoredName::Name(name()),
        ColumnMappingMode::Id => match text(ColumnMetadataKey::ColumnMappingId) {
            Some(id) => StoredName::Id(id, name()),
            None => StoredName::Name(name()),
        },
    }
}

fn no_version(path: &str, version: u64, newest: u64) -> Error {
    Error::new(
        ErrorCode::FileNotFound,
        format!("the Delta table `{path}` has no version {version}; its newest is {newest}"),
    )
    .with_hint(format!("name a version with `{path}@v{newest}`, or leave it out for the newest"))
}

fn elsewhere(path: &str, url: &Url) -> Error {
    Error::unsupported(format!("the Delta table `{path}` has a file in another place, `{url}`"))
        .with_hint("read the table that was cloned, or make a deep clone of it")
}

fn unreadable(path: &str, error: KernelError) -> Error {
    match error {
        KernelError::ObjectStore(error) => bucket::failed(path, error),
        KernelError::Unsupported(what) => {
            Error::unsupported(format!("the Delta table `{path}` cannot be read here: {what}"))
                .with_hint("write the table without that feature")
        }
        error => Error::invalid_request(format!("the log of the Delta table `{path}` cannot be read"))
            .with_source(error)
            .with_hint("check that the log is complete: a version can be read while its files and its log are kept"),
    }
}
