//! The registry in a SQL database, in Feast's own tables: Feast clients read and write the same rows.
//!
//! **Versions.** A state is named by the number of our commits and by a summary of Feast's tables (rows, the sum of their
//! times and of the lengths of their messages), which is asked of the database without reading the messages. So
//! changes of Feast clients make a new version too, although they know nothing of versions.
//!
//! **Refresh.** Only tables whose summary changed are looked at, and of them only young rows are fetched as long as the
//! summary shows that no other changed. A row that was as young as its time when it was read is fetched again, because
//! Feast's times are whole seconds. All reads of a refresh see one state of the database.
//!
//! **Commit.** One transaction. The row of `feast_rs_registry` is locked first, so that commits of this product come one
//! after the other; then the version is compared with the base. The rows that the commit touches are read under lock
//! and compared, byte for byte, with those of the base: Feast clients do not know the lock. Rows that already are as they
//! should be are not written, and others never. A commit whose answer is lost is looked up by its name.
//!
//! **Rights.** Reading needs `SELECT` only, and no table of ours.

mod commit;
mod database;
#[cfg(feature = "mysql")]
mod mysql;
mod options;
mod pool;
mod postgres;
mod refresh;
mod sqlite;
mod state;
mod tables;
mod versions;

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use chrono::DateTime;
use feast_core::{
    CommitRecord, Error, ErrorCode, RegistryChanges, RegistryHistory, RegistrySnapshot, RegistryStore, RegistryVersion,
    Result, list_names,
};
use tokio::sync::{Mutex, MutexGuard};
use uuid::Uuid;

use self::database::{Database, Session, Value};
use self::options::{DatabaseUrl, Engine, SchemaMode, SqlOptions};
use self::pool::Pool;
use self::refresh::Standing;
use self::state::State;
use self::tables::{COMMITS, HISTORY, OBJECT_TABLES, create_statements, table_names};
use super::RegistrySettings;
use super::history::revision;

/// Rows named in one statement, at most.
const MOST_NAMES: usize = 500;

/// A registry in a SQL database.
#[derive(Debug)]
pub struct SqlRegistry {
    name: String,
    writes: Pool,
    /// `None`: reads go where writes go.
    reads: Option<Pool>,
    schema_mode: SchemaMode,
    purge_metadata: bool,
    author: String,
    /// Whether all tables were seen.
    complete: AtomicBool,
    state: Mutex<State>,
}

/// Connects the database that the configuration names.
pub(super) fn connect(settings: &RegistrySettings<'_>) -> Result<Arc<dyn RegistryStore>> {
    Ok(Arc::new(SqlRegistry::new(settings)?))
}

impl SqlRegistry {
    fn new(settings: &RegistrySettings<'_>) -> Result<Self> {
        let options = SqlOptions::parse(settings.path, settings.options)?;
        let database = |url: &DatabaseUrl| -> Result<Arc<dyn Database>> {
            Ok(match url.engine {
                Engine::Sqlite => Arc::new(sqlite::SqliteFile::new(url, settings.repo_path)?),
                Engine::Postgres => Arc::new(postgres::PostgresServer::new(url)?),
                #[cfg(feature = "mysql")]
                Engine::MySql => Arc::new(mysql::MySqlServer::new(url)?),
                #[cfg(not(feature = "mysql"))]
                Engine::MySql => {
                    return Err(Error::unsupported("this build has no SQL registries in MySQL")
                        .with_hint("use a build with the feature `mysql` of `feast-registry`"));
                }
            })
        };
        let writes = database(&options.url)?;
        Ok(Self {
            name: writes.to_string(),
            writes: Pool::new(writes, &options.pool),
            reads: match &options.read_url {
                Some(url) => Some(Pool::new(database(url)?, &options.pool)),
                None => None,
            },
            schema_mode: options.schema_mode,
            purge_metadata: options.purge_metadata,
            author: settings.author.to_owned(),
            complete: AtomicBool::new(false),
            state: Mutex::new(State::empty()),
        })
    }

    fn reads(&self) -> &Pool {
        self.reads.as_ref().unwrap_or(&self.writes)
    }

    /// The state of now.
    async fn current(&self) -> Result<MutexGuard<'_, State>> {
        let mut state = self.state.lock().await;
        let mut lease = self.reads().lease().await?;
        let session = &mut *lease.session;
        session.execute(self.reads().database.dialect().begin_read, Vec::new()).await?;
        self.read(session, &mut state).await?;
        session.execute("COMMIT", Vec::new()).await?;
        lease.give_back();
        Ok(state)
    }

    /// The tables that are there, of those that we know.
    async fn tables(&self, pool: &Pool, session: &mut dyn Session) -> Result<HashSet<&'static str>> {
        // Files come and go, servers keep their tables.
        if self.complete.load(Ordering::Acquire) && session.tables_stay() {
            return Ok(table_names().collect());
        }
        let mut found = HashSet::new();
        for mut row in session.query(pool.database.dialect().list_tables, Vec::new()).await? {
            let name = row.text()?;
            found.extend(table_names().find(|table| *table == name));
        }
        let missing: Vec<&str> =
            OBJECT_TABLES.iter().map(|table| table.name).filter(|name| !found.contains(name)).collect();
        if self.schema_mode == SchemaMode::Verify && !missing.is_empty() {
            return Err(Error::invalid_configuration(format!("{self} lacks the tables {}", list_names(missing)))
                .with_hint("create them with `feast registry create-schema`, or set `schema_mode: auto`"));
        }
        if found.len() == table_names().count() {
            self.complete.store(true, Ordering::Release);
        }
        Ok(found)
    }

    /// Creates the tables that are missing.
    async fn create_tables(&self, session: &mut dyn Session) -> Result<()> {
        let mut attempt = 1;
        for statement in create_statements(self.writes.database.dialect()) {
            // Two creations at the same time may meet in the system's tables; the second time all is there.
            while let Err(error) = session.execute(&statement, Vec::new()).await {
                if error.code() != ErrorCode::Conflict || attempt > crate::COMMIT_ATTEMPTS {
                    return Err(error);
                }
                crate::pause(attempt).await;
                attempt += 1;
            }
        }
        Ok(())
    }
}

impl fmt::Display for SqlRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

#[async_trait]
impl RegistryStore for SqlRegistry {
    async fn load(&self) -> Result<RegistrySnapshot> {
        Ok(self.current().await?.snapshot())
    }

    async fn load_newer(&self, known: &RegistrySnapshot) -> Result<Option<RegistrySnapshot>> {
        let state = self.current().await?;
        Ok((state.version != known.version).then(|| state.snapshot()))
    }

    async fn commit(&self, base: Option<&RegistryVersion>, changes: &RegistryChanges) -> Result<RegistryVersion> {
        let mut state = self.state.lock().await;
        self.writes.database.prepare_write().await?;
        let mut lease = self.writes.lease().await?;
        let session = &mut *lease.session;
        if self.schema_mode == SchemaMode::Auto
            && self.tables(&self.writes, session).await?.len() < table_names().count()
        {
            self.create_tables(session).await?;
        }
        let commit_id = Uuid::new_v4().to_string();
        session.execute(self.writes.database.dialect().begin_write, Vec::new()).await?;
        let written = commit::write(self, session, &state, base, changes, &commit_id).await;
        match written {
            Ok(commit::Written { standing, difference, read_at }) => {
                match session.execute("COMMIT", Vec::new()).await {
                    Ok(_) => lease.give_back(),
                    // The answer was lost, not necessarily the commit.
                    Err(error) if error.code() != ErrorCode::Conflict => {
                        drop(lease);
                        if !self.has_commit(&commit_id).await? {
                            return Err(error);
                        }
                    }
                    Err(error) => return Err(error),
                }
                let version = standing.version();
                if state.version.as_ref() == base {
                    state.apply(difference, standing, read_at);
                } else {
                    // A session does not see its own commits as changes.
                    state.seen = None;
                }
                Ok(version)
            }
            Err(refused) => {
                if session.execute("ROLLBACK", Vec::new()).await.is_ok() {
                    lease.give_back();
                }
                if refused.moved {
                    // The version did not tell: the next one must, for everybody.
                    *state = State::empty();
                    self.mark_moved().await?;
                }
                Err(refused.error)
            }
        }
    }

    async fn version(&self) -> Result<Option<RegistryVersion>> {
        let state = self.state.lock().await;
        let pool = self.reads();
        let mut lease = pool.lease().await?;
        let tables = self.tables(pool, &mut *lease.session).await?;
        let standing = self.standing(pool, &mut *lease.session, &tables, &state).await?;
        lease.give_back();
        Ok(standing.as_ref().map(Standing::version))
    }

    async fn check_writable(&self) -> Result<()> {
        let mut lease = self.writes.lease().await?;
        let session = &mut *lease.session;
        if !self.tables(&self.writes, session).await?.contains(COMMITS) {
            return Ok(());
        }
        let mut tried = session.execute(self.writes.database.dialect().begin_write, Vec::new()).await;
        if tried.is_ok() {
            let sql = format!("UPDATE {COMMITS} SET commits = commits WHERE id = ?");
            tried = session.execute(&sql, vec![Value::Integer(1)]).await;
            session.execute("ROLLBACK", Vec::new()).await?;
        }
        lease.give_back();
        match tried {
            Err(error) if error.code() == ErrorCode::ReadOnlyRegistry => Err(error),
            _ => Ok(()),
        }
    }

    async fn create_schema(&self) -> Result<()> {
        self.writes.database.prepare_write().await?;
        let mut lease = self.writes.lease().await?;
        self.create_tables(&mut *lease.session).await?;
        lease.give_back();
        Ok(())
    }

    fn history(&self) -> Option<&dyn RegistryHistory> {
        Some(self)
    }

    async fn teardown(&self) -> Result<()> {
        let mut state = self.state.lock().await;
        let mut lease = self.writes.lease().await?;
        let session = &mut *lease.session;
        let tables = self.tables(&self.writes, session).await?;
        session.execute(self.writes.database.dialect().begin_write, Vec::new()).await?;
        for table in table_names().filter(|table| tables.contains(table)) {
            session.execute(&format!("DELETE FROM {table}"), Vec::new()).await?;
        }
        session.execute("COMMIT", Vec::new()).await?;
        lease.give_back();
        *state = State::empty();
        Ok(())
    }
}

#[async_trait]
impl RegistryHistory for SqlRegistry {
    async fn commits(&self, project: &str, after: u64, most: usize) -> Result<Vec<CommitRecord>> {
        let pool = self.reads();
        let mut lease = pool.lease().await?;
        let session = &mut *lease.session;
        if !self.tables(pool, session).await?.contains(HISTORY) {
            return Ok(Vec::new());
        }
        let sql =
            format!("SELECT DISTINCT version FROM {HISTORY} WHERE project_id = ? AND version > ? ORDER BY version");
        let parameters = vec![Value::text(project), Value::Integer(i64::try_from(after).unwrap_or(i64::MAX))];
        let mut numbers = Vec::new();
        for mut row in session.query(&sql, parameters).await? {
            numbers.push(row.integer()?);
        }
        let Some(first) = numbers.get(numbers.len().saturating_sub(most)) else { return Ok(Vec::new()) };
        let sql = format!(
            "SELECT version, author, committed, kind, name, before_proto, after_proto FROM {HISTORY} \
             WHERE project_id = ? AND version >= ? ORDER BY version, item"
        );
        let mut commits: Vec<CommitRecord> = Vec::new();
        for mut row in session.query(&sql, vec![Value::text(project), Value::Integer(*first)]).await? {
            let number = u64::try_from(row.integer()?).unwrap_or_default();
            let author = row.text()?;
            let time = DateTime::from_timestamp_micros(row.integer()?).unwrap_or_default();
            let (kind, name) = (row.text()?, row.text()?);
            let revision = revision(&kind, &name, row.optional_bytes()?, row.optional_bytes()?)?;
            if commits.last().is_none_or(|commit| commit.number != number) {
                let project = project.to_owned();
                commits.push(CommitRecord { number, project, author, time, revisions: Vec::new() });
            }
            if let Some(commit) = commits.last_mut() {
                commit.revisions.push(revision);
            }
        }
        lease.give_back();
        Ok(commits)
    }
}

impl SqlRegistry {
    /// Whether a commit arrived.
    async fn has_commit(&self, commit_id: &str) -> Result<bool> {
        let mut lease = self.writes.lease().await?;
        let id = || vec![Value::text(commit_id)];
        let mut found = Vec::new();
        for table in [COMMITS, HISTORY] {
            let sql = format!("SELECT commit_id FROM {table} WHERE commit_id = ?");
            found.extend(lease.session.query(&sql, id()).await?);
        }
        lease.give_back();
        Ok(!found.is_empty())
    }

    /// Makes a new version of the same contents.
    async fn mark_moved(&self) -> Result<()> {
        let mut lease = self.writes.lease().await?;
        lease
            .session
            .execute(&format!("UPDATE {COMMITS} SET commits = commits + 1 WHERE id = ?"), vec![Value::Integer(1)])
            .await?;
        lease.give_back();
        Ok(())
    }
}

/// `?, ?, ?`
fn marks(number: usize) -> String {
    vec!["?"; number].join(", ")
}
