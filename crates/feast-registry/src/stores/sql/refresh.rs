//! From what was last read to what the database has.
//!
//! Of a table whose summary changed, the rows that are younger than the last reading are fetched. When with them the rows
//! that are known sum up to the table's summary, they are all that changed. Otherwise rows are gone, or the clock of
//! whoever wrote is behind, and the names and stamps of all rows are compared. Messages are read when all are there.

use std::collections::{BTreeMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use chrono::Utc;
use feast_core::{Error, ErrorCode, RegistryVersion, Result};
use tokio::task::{JoinHandle, spawn_blocking};

use super::database::{Dialect, Row, Seen, Session, Value};
use super::pool::Pool;
use super::state::{Difference, Key, Stamp, State, StoredRow, Summary};
use super::tables::{COMMITS, OBJECT_TABLES, ObjectTable, VERSIONS};
use super::{MOST_NAMES, SqlRegistry, marks, versions};
use crate::parallel::map_in_parallel;

/// Where the tables stand.
pub(super) struct Standing {
    /// The number of our commits.
    pub(super) commits: i64,
    /// A summary of each table, and at last of the older definitions.
    pub(super) summaries: Vec<Summary>,
    /// What the session saw that was asked.
    pub(super) seen: Option<Seen>,
}

impl Standing {
    /// Of a registry without rows.
    pub(super) fn empty() -> Self {
        Self { commits: 0, summaries: vec![Summary::default(); OBJECT_TABLES.len() + 1], seen: None }
    }

    /// Its name.
    pub(super) fn version(&self) -> RegistryVersion {
        let mut hasher = DefaultHasher::new();
        self.summaries.hash(&mut hasher);
        RegistryVersion(format!("{}-{:016x}", self.commits, hasher.finish()))
    }
}

/// A row whose message is not read yet.
struct RawRow {
    key: Key,
    time: i64,
    message: Vec<u8>,
}

impl RawRow {
    fn stamp(&self) -> Stamp {
        Stamp { time: self.time, length: self.message.len() as i64 }
    }
}

impl SqlRegistry {
    /// Where the tables stand; `None` when there is no registry. They stand where they stood when `state` was read if the
    /// session has seen no change since.
    pub(super) async fn standing(
        &self,
        pool: &Pool,
        session: &mut dyn Session,
        tables: &HashSet<&'static str>,
        state: &State,
    ) -> Result<Option<Standing>> {
        let seen = session.seen().await?;
        if seen.is_some() && seen == state.seen {
            return Ok(state.standing());
        }
        let dialect = pool.database.dialect();
        let summed = |place: usize, table: &str, time: &str, message: &str| {
            let sum = |what: String| format!("CAST(COALESCE(SUM({what}), 0) AS {})", dialect.integer);
            let length = format!("{}({message})", dialect.length);
            format!(
                "SELECT CAST({place} AS {}), CAST(COUNT(*) AS {}), {}, {} FROM {table}",
                dialect.integer,
                dialect.integer,
                sum(time.to_owned()),
                sum(length)
            )
        };
        let mut parts: Vec<String> = OBJECT_TABLES
            .iter()
            .enumerate()
            .filter(|(_, table)| tables.contains(table.name))
            .map(|(place, table)| summed(place, table.name, "last_updated_timestamp", table.message))
            .collect();
        if tables.contains(VERSIONS) {
            parts.push(summed(OBJECT_TABLES.len(), VERSIONS, "created_timestamp", "feature_view_proto"));
        }
        if tables.contains(COMMITS) {
            let place = OBJECT_TABLES.len() + 1;
            let integer = dialect.integer;
            parts.push(format!(
                "SELECT CAST({place} AS {integer}), CAST(COUNT(*) AS {integer}), \
                 CAST(COALESCE(SUM(commits), 0) AS {integer}), CAST(0 AS {integer}) FROM {COMMITS}"
            ));
        }
        if parts.is_empty() {
            return Ok(None);
        }
        let mut summaries = vec![Summary::default(); OBJECT_TABLES.len() + 2];
        for mut row in session.query(&parts.join(" UNION ALL "), Vec::new()).await? {
            let place = usize::try_from(row.integer()?).unwrap_or(usize::MAX);
            let summary = Summary { n_rows: row.integer()?, times: row.integer()?, lengths: row.integer()? };
            if let Some(entry) = summaries.get_mut(place) {
                *entry = summary;
            }
        }
        let commits = summaries.pop().unwrap_or_default();
        if commits.n_rows == 0 && summaries.iter().all(|summary| summary.n_rows == 0) {
            return Ok(None);
        }
        Ok(Some(Standing { commits: commits.times, summaries, seen }))
    }

    /// A registry that may not be seen is not an empty one.
    async fn refuse_hidden(&self, session: &mut dyn Session, dialect: &Dialect) -> Result<()> {
        let Some(sql) = dialect.hidden_tables else { return Ok(()) };
        let Some(mut schema) = session.query(sql, Vec::new()).await?.into_iter().next() else { return Ok(()) };
        let schema = schema.text()?;
        Err(Error::new(ErrorCode::PermissionDenied, format!("{self} may not be read by this user: its tables are in the schema `{schema}`, which this user may not use"))
            .with_hint(format!("give the user of the registry's `path` the right: GRANT USAGE ON SCHEMA \"{schema}\" TO …")))
    }

    /// Brings `state` to what the database has, in a transaction that sees one state of it.
    pub(super) async fn read(&self, session: &mut dyn Session, state: &mut State) -> Result<()> {
        let pool = self.reads();
        let tables = self.tables(pool, session).await?;
        if tables.is_empty() {
            self.refuse_hidden(session, pool.database.dialect()).await?;
        }
        let Some(standing) = self.standing(pool, session, &tables, state).await? else {
            *state = State::empty();
            return Ok(());
        };
        // Equal versions have equal contents: those of our own last commit, for instance.
        if state.version == Some(standing.version()) {
            state.seen = standing.seen;
            return Ok(());
        }
        let dialect = pool.database.dialect();
        let read_at = Utc::now().timestamp();
        let mut difference = Difference::default();
        let mut reading = Vec::new();
        for (place, table) in OBJECT_TABLES.iter().enumerate().filter(|(_, table)| tables.contains(table.name)) {
            let young = state.tables[place].values().any(|row| row.stamp.time >= state.read_at - 1);
            if state.summaries[place] == standing.summaries[place] && !young {
                continue;
            }
            let (gone, changed) = changed_rows(session, dialect, place, state, standing.summaries[place]).await?;
            difference.rows.extend(gone.into_iter().map(|key| (place, key, None)));
            reading.push((place, read_messages(table, changed)));
        }
        let last = OBJECT_TABLES.len();
        if tables.contains(VERSIONS) && state.summaries[last] != standing.summaries[last] {
            difference.versions = versions::changed(session, state, standing.summaries[last]).await?;
        }
        for (place, rows) in reading {
            let rows =
                rows.await.map_err(|error| Error::internal("reading a registry failed").with_source(error))??;
            difference.rows.extend(rows.into_iter().map(|(key, row)| (place, key, Some(row))));
        }
        // From here on nothing can fail: the state is either the old or the new one.
        state.apply(difference, standing, read_at);
        Ok(())
    }
}

/// The rows of a table that are gone, and those that are new or changed, since `state` was read.
async fn changed_rows(
    session: &mut dyn Session,
    dialect: &Dialect,
    place: usize,
    state: &State,
    now: Summary,
) -> Result<(Vec<Key>, Vec<RawRow>)> {
    let table = &OBJECT_TABLES[place];
    let known = &state.tables[place];
    if known.is_empty() {
        return Ok((Vec::new(), rows_where(session, table, "", Vec::new()).await?));
    }
    // What was read in the second of its time may have changed again within it.
    let since = state.read_at - 1;
    let young = rows_where(session, table, " WHERE last_updated_timestamp >= ?", vec![Value::Integer(since)]).await?;
    let mut summary = state.summaries[place];
    for row in &young {
        summary.replace(known.get(&row.key).map(|known| known.stamp), Some(row.stamp()));
    }
    if summary == now {
        return Ok((Vec::new(), young));
    }
    let ObjectTable { name, key, message, .. } = table;
    let sql = format!(
        "SELECT project_id, {key}, last_updated_timestamp, CAST({}({message}) AS {}) FROM {name}",
        dialect.length, dialect.integer
    );
    let mut present = HashSet::new();
    let mut stale: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for mut row in session.query(&sql, Vec::new()).await? {
        let key: Key = (row.text()?, row.text()?);
        let stamp = Stamp { time: row.integer()?, length: row.integer()? };
        if known.get(&key).is_none_or(|known| known.stamp != stamp || stamp.time >= since) {
            stale.entry(key.0.clone()).or_default().push(key.1.clone());
        }
        present.insert(key);
    }
    let gone = known.keys().filter(|key| !present.contains(*key)).cloned().collect();
    let mut changed = Vec::new();
    for (project, names) in stale {
        for names in names.chunks(MOST_NAMES) {
            let condition = format!(" WHERE project_id = ? AND {key} IN ({})", marks(names.len()));
            let parameters = std::iter::once(&project).chain(names).map(Value::text).collect();
            changed.extend(rows_where(session, table, &condition, parameters).await?);
        }
    }
    Ok((gone, changed))
}

async fn rows_where(
    session: &mut dyn Session,
    table: &ObjectTable,
    condition: &str,
    parameters: Vec<Value>,
) -> Result<Vec<RawRow>> {
    let ObjectTable { name, key, message, .. } = table;
    let sql = format!("SELECT project_id, {key}, last_updated_timestamp, {message} FROM {name}{condition}");
    let raw = |mut row: Row| -> Result<RawRow> {
        Ok(RawRow { key: (row.text()?, row.text()?), time: row.integer()?, message: row.bytes()? })
    };
    session.query(&sql, parameters).await?.into_iter().map(raw).collect()
}

/// Reads messages while the next ones are fetched.
fn read_messages(table: &'static ObjectTable, rows: Vec<RawRow>) -> JoinHandle<Result<Vec<(Key, StoredRow)>>> {
    spawn_blocking(move || {
        map_in_parallel(rows, |row| match StoredRow::read(table.kind, row.time, &row.message) {
            Ok(stored) => Ok((row.key, stored)),
            Err(error) => Err(error
                .with_context("table", table.name)
                .with_context("row", format!("`{}`, `{}`", row.key.0, row.key.1))),
        })
    })
}
