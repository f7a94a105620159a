//! Whether the online store is as the registry says.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{
    ArrayRef, BinaryArray, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use feast_core::{
    EntityKeyEncoder, EntityKeys, Error, ErrorCode, OnlineRead, OnlineStore, OnlineTable, Result, StoredTable,
    ValueType,
};

use crate::FeatureStore;
use crate::delete::tables_of;

/// What was found.
#[derive(Debug)]
pub struct OnlineStoreReport {
    /// The store, as it names itself.
    pub store: String,
    /// How long it took to reach the store and come back, shortest first.
    pub round_trips: Vec<Duration>,
    /// The tables that the registry names, then those that only the store has; in order of their names.
    pub tables: Vec<OnlineTableReport>,
}

/// A table of the online store.
#[derive(Debug)]
pub struct OnlineTableReport {
    /// Name of the table.
    pub table: String,
    /// The feature view whose values it holds; `None` when the registry names none.
    pub feature_view: Option<String>,
    /// What is wrong with it.
    pub problem: Option<OnlineTableProblem>,
}

/// What can be wrong with a table.
#[derive(Debug)]
pub enum OnlineTableProblem {
    /// The store does not have it.
    Missing,
    /// It was made by an older version, and lacks columns.
    MissingColumns(Vec<String>),
    /// Nothing that has to be mended: Feast made it, and it keeps no parts of seconds.
    WholeSeconds,
    /// It cannot be read.
    Unreadable(Error),
    /// No feature view of any project of the registry belongs to it.
    Unknown,
}

/// Tables that a store has, by name: some databases fold the case of names, and PostgreSQL cuts them after 63 bytes.
pub(crate) struct StoredTables<'a>(BTreeMap<String, &'a StoredTable>);

/// Names that are shorter are never cut, not even where a character would have been cut in two.
const CUT: usize = 60;

impl<'a> StoredTables<'a> {
    pub(crate) fn new(tables: &'a [StoredTable]) -> Self {
        Self(tables.iter().map(|table| (table.name.to_lowercase(), table)).collect())
    }

    /// The table that a view calls by this name.
    pub(crate) fn find(&self, name: &str) -> Option<&'a StoredTable> {
        let name = name.to_lowercase();
        let cut = || (CUT..name.len()).rev().filter_map(|end| self.0.get(name.get(..end)?)).next();
        self.0.get(&name).or_else(cut).copied()
    }
}

/// Whether all that a table lacks are the columns for parts of seconds, which are ours: Feast made it, and nothing is wrong.
pub(crate) fn lacks_fractions_only(table: &StoredTable) -> bool {
    table.missing_columns.iter().all(|column| column.ends_with("_micros"))
}

impl OnlineStoreReport {
    /// The median of the round trips.
    pub fn median(&self) -> Duration {
        self.round_trips.get(self.round_trips.len() / 2).copied().unwrap_or_default()
    }

    /// How many tables need attention.
    pub fn n_problems(&self) -> usize {
        let needs_attention = |problem: &OnlineTableProblem| !matches!(problem, OnlineTableProblem::WholeSeconds);
        self.tables.iter().filter(|table| table.problem.as_ref().is_some_and(needs_attention)).count()
    }
}

impl FeatureStore {
    /// Reaches the online store `round_trips` times, reads from each table that the registry names, and compares them
    /// with what the store has.
    ///
    /// # Errors
    /// When the store cannot be reached, and those of reading the registry. What is wrong with single tables is in the
    /// report.
    pub async fn check_online_store(&self, round_trips: usize) -> Result<OnlineStoreReport> {
        let online = self.online_store()?;
        let snapshot = self.snapshot(true).await?;
        let contents = Arc::clone(self.project_of(&snapshot)?);
        let views = contents.feature_views.values().filter(|view| view.has_online_table());
        let tables: Vec<(&str, OnlineTable)> =
            views.map(|view| (view.name.as_str(), self.online_table(view))).collect();
        // The first one also opens the connection. A store without a file yet has no tables; its error says the same.
        let reached = match online.check().await {
            Ok(()) => true,
            Err(error) if error.hint().is_some_and(|hint| hint.contains("feast apply")) => false,
            Err(error) => return Err(error),
        };
        let mut times = Vec::with_capacity(round_trips);
        for _ in 0..round_trips.max(1) {
            let start = Instant::now();
            if reached {
                online.check().await?;
                times.push(start.elapsed());
            }
        }
        times.sort_unstable();
        let stored = online.stored_tables(self.project()).await?.unwrap_or_default();
        let named = StoredTables::new(&stored);
        let mut reports = Vec::new();
        for (view, table) in &tables {
            let name = table.name();
            let found = named.find(&name);
            let problem = match (found, self.readable(online.as_ref(), table).await) {
                (_, Err(error)) if error.code() == ErrorCode::FeatureViewNotFound => Some(OnlineTableProblem::Missing),
                (_, Err(error)) => Some(OnlineTableProblem::Unreadable(error)),
                (Some(found), Ok(())) if !found.missing_columns.is_empty() => {
                    // The columns for parts of seconds are ours.
                    Some(match lacks_fractions_only(found) {
                        true => OnlineTableProblem::WholeSeconds,
                        false => OnlineTableProblem::MissingColumns(found.missing_columns.clone()),
                    })
                }
                _ => None,
            };
            reports.push(OnlineTableReport { table: name, feature_view: Some((*view).to_owned()), problem });
        }
        // A project `a_b` has tables that look like those of `a`.
        let known: BTreeSet<String> = snapshot
            .projects
            .iter()
            .flat_map(|(project, contents)| contents.feature_views.values().map(move |view| (project, view)))
            .flat_map(|(project, view)| {
                let mut names = vec![OnlineTable::name_of(project, &view.name)];
                names.extend(tables_of(&snapshot, project, view).iter().map(OnlineTable::name));
                names.into_iter().map(|name| name.to_lowercase())
            })
            .collect();
        let is_known = |table: &StoredTable| {
            let name = table.name.to_lowercase();
            let is_start = |whole: &String| name.len() >= CUT && whole.starts_with(&name);
            known.range(name.clone()..).next().is_some_and(|next| *next == name || is_start(next))
        };
        for table in stored.iter().filter(|table| !is_known(table)) {
            let problem = Some(OnlineTableProblem::Unknown);
            reports.push(OnlineTableReport { table: table.name.clone(), feature_view: None, problem });
        }
        reports.sort_by(|a, b| (a.feature_view.is_none(), &a.table).cmp(&(b.feature_view.is_none(), &b.table)));
        Ok(OnlineStoreReport { store: online.to_string(), round_trips: times, tables: reports })
    }

    /// Reads the values of some entity, which need not exist.
    async fn readable(&self, online: &dyn OnlineStore, table: &OnlineTable) -> Result<()> {
        let wanted = table.clone().wanted(0..table.columns.len());
        let keys = self.any_key(table)?;
        online.read(&[OnlineRead { wanted: &wanted, keys: &keys }]).await.map(drop)
    }

    fn any_key(&self, table: &OnlineTable) -> Result<EntityKeys> {
        let column = |value_type: ValueType| -> ArrayRef {
            match value_type {
                ValueType::Int32 => Arc::new(Int32Array::from(vec![0])),
                ValueType::Int64 => Arc::new(Int64Array::from(vec![0])),
                ValueType::Bytes => Arc::new(BinaryArray::from(vec![b"".as_slice()])),
                ValueType::UnixTimestamp => Arc::new(TimestampMicrosecondArray::from(vec![0]).with_timezone("UTC")),
                _ => Arc::new(StringArray::from(vec![""])),
            }
        };
        let columns = table.join_keys.iter().map(|key| (key.name.as_str(), column(key.value_type)));
        let encoder = EntityKeyEncoder::new(&table.join_keys, self.config().entity_key_serialization_version)?;
        encoder.encode(RecordBatch::try_from_iter(columns)?)
    }
}
