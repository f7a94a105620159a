//! The trait of online stores: tables, keys and columns, nothing else.

use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, LazyLock};

use arrow::array::{RecordBatch, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, TimeUnit};
use async_trait::async_trait;
use bytes::Bytes;

use crate::{EntityKeys, FeatureView, Field, Memo, Result, SerializedRows, Timestamp};

/// The Arrow type of every timestamp column inside the product: microseconds in UTC.
pub fn timestamp_type() -> DataType {
    // Made once, because each answer has several such columns.
    static TYPE: LazyLock<DataType> = LazyLock::new(|| DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())));
    TYPE.clone()
}

/// One version of one view as an online store sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct OnlineTable {
    /// Owning project.
    pub project: String,
    /// Name of the view, with `_vN` where versions have tables of their own.
    pub view: String,
    /// The join key columns.
    pub join_keys: Vec<Field>,
    /// The feature columns.
    pub columns: Vec<Field>,
    /// Labels of the view, for stores that label tables.
    pub tags: crate::Tags,
}

impl OnlineTable {
    /// The table of a view, where its versions share one.
    pub fn of(project: &str, view: &FeatureView) -> Self {
        Self {
            project: project.to_owned(),
            view: view.name.clone(),
            join_keys: view.key_columns(),
            columns: view.features.clone(),
            tags: view.tags.clone(),
        }
    }

    /// The table of one version of the view, where each has its own: the first, number 0, has that of the view.
    #[must_use]
    pub fn in_version(mut self, number: i32) -> Self {
        if number > 0 {
            self.view = format!("{}_v{number}", self.view);
        }
        self
    }

    /// Some of its columns, by their positions.
    pub fn wanted(self, positions: impl IntoIterator<Item = usize>) -> WantedColumns {
        WantedColumns { table: self, positions: positions.into_iter().collect(), memo: Memo::default() }
    }

    /// `<project>_<view>`, the name of the table in stores that have tables.
    pub fn name(&self) -> String {
        Self::name_of(&self.project, &self.view)
    }

    /// The name of the table of a view.
    pub fn name_of(project: &str, view: &str) -> String {
        format!("{project}_{view}")
    }
}

/// Columns of a table that requests want.
#[derive(Debug, Clone, PartialEq)]
pub struct WantedColumns {
    /// The table.
    pub table: OnlineTable,
    /// The positions of the columns in it.
    pub positions: Vec<usize>,
    /// What a store works out about them and needs for each read: they belong to a plan, which many requests share.
    pub memo: Memo,
}

impl WantedColumns {
    /// The columns, in the wanted order.
    pub fn fields(&self) -> impl ExactSizeIterator<Item = &Field> + Clone {
        self.positions.iter().map(|position| &self.table.columns[*position])
    }
}

/// What a request wants from one table.
#[derive(Debug, Clone, Copy)]
pub struct OnlineRead<'a> {
    /// The table and its columns to read.
    pub wanted: &'a WantedColumns,
    /// Distinct keys.
    pub keys: &'a EntityKeys,
}

/// Rows to keep; row `i` belongs to key `i`. A key may occur several times.
#[derive(Debug, Clone, Copy)]
pub struct OnlineWrite<'a> {
    /// The table to write.
    pub table: &'a OnlineTable,
    /// One key per row.
    pub keys: &'a EntityKeys,
    /// One column per column of the table, in its order, of the declared Arrow types.
    pub rows: &'a RecordBatch,
    /// When each row became true; never null.
    pub event_timestamps: &'a TimestampMicrosecondArray,
    /// When each row was written by its source, where the source says so.
    pub created_timestamps: Option<&'a TimestampMicrosecondArray>,
}

/// Rows to keep whose keys and values are serialized already. A key may occur several times.
#[derive(Debug, Clone, Copy)]
pub struct SerializedWrite<'a> {
    /// The table to write.
    pub table: &'a OnlineTable,
    /// Rows with one value per column of the table, in its order.
    pub rows: &'a SerializedRows,
    /// What a store works out about the table and needs for each write.
    pub memo: &'a Memo,
}

/// One row per key, in key order.
#[derive(Debug, Clone)]
pub struct OnlineRows {
    /// The wanted columns in the wanted order, of the declared Arrow types; null where there is no value.
    pub values: RecordBatch,
    /// Event time of each row; null means that the entity is not there.
    pub event_timestamps: TimestampMicrosecondArray,
}

/// Values as a store keeps them: serialized `feast.types.Value` messages that nobody has looked into, inside of whatever
/// the store sent.
#[derive(Debug, Default)]
pub struct StoredCells {
    parts: Vec<Bytes>,
    /// In which part the cells of a row are; empty where there is one part.
    part_of_row: Vec<u32>,
    /// Where the cells are in their part, row by row.
    places: Vec<CellPlace>,
    n_columns: usize,
}

/// Where in its part a cell is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CellPlace {
    start: u32,
    length: u32,
}

impl CellPlace {
    /// No cell.
    pub const NONE: Self = Self { start: u32::MAX, length: 0 };

    /// The bytes from `start` on; `None` beyond what a place can tell.
    #[inline]
    pub fn new(start: usize, length: usize) -> Option<Self> {
        let (start, length) = (u32::try_from(start).ok()?, u32::try_from(length).ok()?);
        (start != u32::MAX).then_some(Self { start, length })
    }

    /// Whether there is a cell.
    #[inline]
    pub fn is_some(self) -> bool {
        self.start != u32::MAX
    }

    /// The cell, in the bytes of its part.
    #[inline]
    pub fn of(self, part: &[u8]) -> Option<&[u8]> {
        let start = self.start as usize;
        part.get(start..start + self.length as usize)
    }
}

impl StoredCells {
    /// Cells of rows, `n_columns` places for each. `part_of_row` may be empty where there is one part.
    pub fn new(parts: Vec<Bytes>, part_of_row: Vec<u32>, places: Vec<CellPlace>, n_columns: usize) -> Self {
        Self { parts, part_of_row, places, n_columns }
    }

    /// The cell of a column in a row.
    #[inline]
    pub fn get(&self, row: usize, column: usize) -> Option<&[u8]> {
        let part = self.part_of_row.get(row).map_or(0, |part| *part as usize);
        self.places.get(row * self.n_columns + column)?.of(self.parts.get(part)?)
    }

    /// The cells of so many columns of a row, for who goes through them.
    #[inline]
    fn row(&self, row: usize, first_column: usize, n_columns: usize) -> RowCells<'_> {
        let part = self.part_of_row.get(row).map_or(0, |part| *part as usize);
        let start = row * self.n_columns + first_column;
        let places = self.places.get(start..start + n_columns).unwrap_or_default();
        RowCells { places, part: self.parts.get(part).map_or(&[], |part| part) }
    }
}

/// Cells of a row, which lie beside each other.
#[derive(Debug, Clone, Copy, Default)]
pub struct RowCells<'a> {
    places: &'a [CellPlace],
    part: &'a [u8],
}

impl<'a> RowCells<'a> {
    /// Number of columns.
    pub fn len(self) -> usize {
        self.places.len()
    }

    /// Whether there is no column.
    pub fn is_empty(self) -> bool {
        self.places.is_empty()
    }

    /// The serialized values, column by column; `None`, as zero bytes, is null.
    #[inline]
    pub fn iter(self) -> impl Iterator<Item = Option<&'a [u8]>> {
        self.places.iter().map(move |place| place.of(self.part))
    }
}

/// One row per key, in key order, as the store keeps it.
#[derive(Debug, Clone)]
pub struct StoredRows {
    /// Where the values are; other reads of the request may have theirs there, too.
    pub cells: Arc<StoredCells>,
    /// The first wanted column among the columns of `cells`; the others follow in the wanted order.
    pub first_column: usize,
    /// Number of wanted columns.
    pub n_columns: usize,
    /// Event time of each row; null means that the entity is not there.
    pub event_timestamps: TimestampMicrosecondArray,
}

impl StoredRows {
    /// Number of rows.
    pub fn len(&self) -> usize {
        self.event_timestamps.len()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The serialized value of a wanted column for a key; `None`, as zero bytes, is null.
    #[inline]
    pub fn cell(&self, row: usize, column: usize) -> Option<&[u8]> {
        self.cells.get(row, self.first_column + column)
    }

    /// The serialized values of the wanted columns for a key.
    #[inline]
    pub fn row(&self, row: usize) -> RowCells<'_> {
        self.cells.row(row, self.first_column, self.n_columns)
    }
}

/// What a store will answer to a read.
pub type Reading<'a, T> = Pin<Box<dyn Future<Output = Result<T>> + Send + 'a>>;

/// A write that is under way.
pub type Writing<'a> = Pin<Box<dyn Future<Output = Result<()>> + Send + 'a>>;

/// A change to the tables of a store.
#[derive(Debug, Clone, PartialEq)]
pub enum TableChange {
    /// Creates the table, or brings an existing one up to date.
    Ensure(OnlineTable),
    /// Drops the table and its rows.
    Drop(OnlineTable),
}

/// Keeps the latest row per entity key.
///
/// A store sees tables, keys and columns; it knows nothing of registries, feature services, ttl or transformations.
#[async_trait]
pub trait OnlineStore: fmt::Debug + fmt::Display + Send + Sync + 'static {
    /// Reads all tables of one request, in one round trip where the backend can. The answer has one entry per read,
    /// in order. A table that does not exist is an error that says to run `feast apply`; a store whose layout knows no
    /// tables answers that there are no rows.
    async fn read(&self, reads: &[OnlineRead<'_>]) -> Result<Vec<OnlineRows>>;

    /// [`read`](Self::read) for who passes values on as the store keeps them; `None` where the store keeps something else
    /// than serialized values.
    fn read_stored<'a>(&'a self, _reads: &'a [OnlineRead<'a>]) -> Option<Reading<'a, Vec<StoredRows>>> {
        None
    }

    /// Upserts rows. The newest event time wins, within the batch and against the store; at equal event times the
    /// greater created time (against the store where its layout keeps that time), then the later write. Writing a batch twice changes nothing. A row is written whole or
    /// not at all; when the call fails, any subset of the rows may have been written.
    async fn write(&self, write: OnlineWrite<'_>) -> Result<()>;

    /// [`write`](Self::write) for who has serialized values; `None` where the store does not keep them as they are.
    fn write_serialized<'a>(&'a self, _write: SerializedWrite<'a>) -> Option<Writing<'a>> {
        None
    }

    /// Applies table changes in order. Safe to repeat.
    async fn update(&self, changes: &[TableChange]) -> Result<()>;

    /// Reaches the backend and returns, or says why it cannot.
    async fn check(&self) -> Result<()>;

    /// Whether each version of a view may have a table of its own, named as Feast names it there.
    fn has_tables_of_versions(&self) -> bool {
        true
    }

    /// The server behind the store, where it is one that has the history as well and loads its tables by itself.
    fn loading_server(&self) -> Option<&dyn LoadingServer> {
        None
    }

    /// How many rows one [`write`](Self::write) should carry.
    fn preferred_batch_rows(&self) -> usize;

    /// The tables that the backend has for a project, as far as their names tell; `None` where it has no tables, or
    /// cannot list them.
    async fn stored_tables(&self, _project: &str) -> Result<Option<Vec<StoredTable>>> {
        Ok(None)
    }

    /// The greatest event time in a table. A backend that would have to hand out its rows for that does not tell; one
    /// that tells may have to read the whole table, so this is no part of a request.
    async fn newest(&self, _table: &OnlineTable) -> Result<NewestValue> {
        Ok(NewestValue::NotTold)
    }
}

/// A server that can be told to load the newest rows of its own history into its tables.
#[async_trait]
pub trait LoadingServer: Send + Sync {
    /// Returns when the rows are there, or when the server has taken the order, as it says.
    ///
    /// # Errors
    /// `Conflict` when a view is being loaded already; what the server answers otherwise.
    async fn load(&self, order: &LoadOrder<'_>) -> Result<()>;
}

/// What a server is told to load.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LoadOrder<'a> {
    /// Which event times.
    pub window: Window,
    /// Which views; none: all that are served online.
    pub feature_views: &'a [String],
    /// Which version of the one view; `None`: the current one.
    pub version: Option<&'a str>,
    /// When the call returns.
    pub wait: Wait,
}

/// The span of event times to materialize; both ends belong to it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Window {
    /// From one instant to another.
    Between(Timestamp, Timestamp),
    /// From where each view stands to this instant.
    Until(Timestamp),
    /// From the epoch to now, for sources whose times mean nothing.
    Everything,
}

/// How long somebody waits for a server that loads its tables by itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Wait {
    /// Until all rows are there.
    #[default]
    UntilDone,
    /// Until the server has taken the order.
    UntilAccepted {
        /// Whether it takes it although a view is said to be being loaded, as by a server that died meanwhile.
        force: bool,
    },
}

/// What a store says about the newest value of a table or source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NewestValue {
    /// The store cannot say.
    NotTold,
    /// There are no values.
    Empty,
    /// The greatest event time.
    At(Timestamp),
}

impl NewestValue {
    /// The value at a number of microseconds since the epoch, or none at all.
    pub fn of_micros(micros: Option<i64>) -> Self {
        micros.and_then(Timestamp::from_timestamp_micros).map_or(Self::Empty, Self::At)
    }
}

/// A table that a backend has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredTable {
    /// Its name.
    pub name: String,
    /// Columns that it lacks, and that [`OnlineStore::update`] would add.
    pub missing_columns: Vec<String>,
}

/// One line of a table of known stores.
pub struct KnownStore {
    /// Name in `feature_store.yaml`.
    pub name: &'static str,
    /// Other names that mean the same.
    pub aliases: &'static [&'static str],
    /// Connects from the store's part of the configuration (JSON) and the folder relative paths are based on.
    pub connect: fn(&serde_json::Value, &std::path::Path) -> Result<Arc<dyn OnlineStore>>,
}

impl fmt::Debug for KnownStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KnownStore").field("name", &self.name).field("aliases", &self.aliases).finish_non_exhaustive()
    }
}
