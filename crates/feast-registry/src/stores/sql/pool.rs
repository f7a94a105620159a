//! Connections that are used again. They belong to the process that opened them: a forked child opens its own.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use feast_core::{Error, ErrorCode, Result};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::database::{Database, Row, Seen, Session, Value};
use super::options::PoolOptions;

/// How often a connection is tried when the server cannot be reached, and the longest first pause between.
const CONNECT_ATTEMPTS: u32 = 3;
const CONNECT_PAUSE: Duration = Duration::from_millis(100);

/// A connection whose statements are logged, without their values.
struct Echoed(Box<dyn Session>);

#[async_trait]
impl Session for Echoed {
    async fn query(&mut self, sql: &str, parameters: Vec<Value>) -> Result<Vec<Row>> {
        tracing::info!(sql, n_parameters = parameters.len(), "query of the registry");
        self.0.query(sql, parameters).await
    }

    async fn execute(&mut self, sql: &str, parameters: Vec<Value>) -> Result<u64> {
        tracing::info!(sql, n_parameters = parameters.len(), "statement of the registry");
        self.0.execute(sql, parameters).await
    }

    async fn is_alive(&mut self) -> bool {
        self.0.is_alive().await
    }

    fn may_be_kept(&self) -> bool {
        self.0.may_be_kept()
    }

    fn tables_stay(&self) -> bool {
        self.0.tables_stay()
    }

    async fn seen(&mut self) -> Result<Option<Seen>> {
        self.0.seen().await
    }
}

/// The connections to one database.
pub(super) struct Pool {
    pub(super) database: Arc<dyn Database>,
    options: PoolOptions,
    permits: Arc<Semaphore>,
    idle: Mutex<Vec<Idle>>,
}

struct Idle {
    session: Box<dyn Session>,
    process: u32,
    opened: Instant,
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("database", &self.database).finish_non_exhaustive()
    }
}

/// A connection in use. Unless it is given back it is closed, which ends its transaction.
pub(super) struct Lease<'a> {
    pub(super) session: Box<dyn Session>,
    opened: Instant,
    pool: &'a Pool,
    _permit: OwnedSemaphorePermit,
}

impl Pool {
    pub(super) fn new(database: Arc<dyn Database>, options: &PoolOptions) -> Self {
        Self {
            database,
            options: options.clone(),
            permits: Arc::new(Semaphore::new(options.size + options.overflow)),
            idle: Mutex::default(),
        }
    }

    /// An idle connection that is alive, or a new one.
    pub(super) async fn lease(&self) -> Result<Lease<'_>> {
        let acquire = Arc::clone(&self.permits).acquire_owned();
        let permit = match tokio::time::timeout(self.options.timeout, acquire).await {
            Ok(Ok(permit)) => permit,
            _ => {
                return Err(Error::new(ErrorCode::Timeout, format!("all connections of {} are in use", self.database))
                    .with_hint("raise `pool_size` below `registry.sqlalchemy_config_kwargs`"));
            }
        };
        while let Some(Idle { mut session, opened, .. }) = self.take() {
            if session.is_alive().await {
                return Ok(Lease { session, opened, pool: self, _permit: permit });
            }
        }
        let session = self.connect().await?;
        Ok(Lease { session, opened: Instant::now(), pool: self, _permit: permit })
    }

    async fn connect(&self) -> Result<Box<dyn Session>> {
        let mut attempt = 1;
        loop {
            match self.database.connect().await {
                Err(error) if error.code() == ErrorCode::Unavailable && attempt < CONNECT_ATTEMPTS => {
                    let longest = (CONNECT_PAUSE * 2_u32.pow(attempt)).as_micros() as u64;
                    let pause = longest / 2 + RandomState::new().hash_one(attempt) % (longest / 2);
                    tokio::time::sleep(Duration::from_micros(pause)).await;
                    attempt += 1;
                }
                Ok(session) if self.options.echo => return Ok(Box::new(Echoed(session))),
                connected => return connected,
            }
        }
    }

    /// The idle connection that was used last. Inherited ones are neither used nor closed: they are the parent's.
    fn take(&self) -> Option<Idle> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let process = std::process::id();
        idle.extract_if(.., |idle| idle.process != process).for_each(std::mem::forget);
        if let Some(recycle) = self.options.recycle {
            idle.retain(|idle| idle.opened.elapsed() < recycle);
        }
        idle.pop()
    }
}

impl Lease<'_> {
    /// Keeps the connection for the next one. There must be no open transaction.
    pub(super) fn give_back(self) {
        if !self.session.may_be_kept() {
            return;
        }
        let mut idle = self.pool.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < self.pool.options.size {
            idle.push(Idle { session: self.session, process: std::process::id(), opened: self.opened });
        }
    }
}
