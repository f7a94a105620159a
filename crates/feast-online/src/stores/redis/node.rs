//! One server, and our connections to it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use hashbrown::HashMap;
use tokio::runtime::{self, Handle, RuntimeFlavor};
use tokio::sync::Mutex as AsyncMutex;
use tokio::time::Instant;

use super::config::Address;
use super::connection::{Connection, Entrance, Expected, Failure};
use super::reply::Answer;

/// Connections to one server that answer reads; one more is for everything else.
const READING_LANES: usize = 2;

/// After a failed attempt to connect, calls fail at once for this long.
const PAUSE: Duration = Duration::from_millis(20);

/// What a call is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Somebody waits for it; it shares no connection with large writes.
    Read,
    /// It had better arrive than be quick.
    Write,
    /// A write of a few rows: somebody waits for it, and it had better arrive.
    SmallWrite,
}

/// A server and our connections to it.
pub(super) struct Node {
    pub(super) address: Address,
    lanes: [Lane; READING_LANES + 1],
    next_lane: AtomicUsize,
    /// Those of runtimes with one thread, which read and write a little without a change of threads.
    own_lanes: Mutex<HashMap<runtime::Id, Arc<Lane>>>,
}

#[derive(Default)]
struct Lane {
    connection: Mutex<Option<Arc<Connection>>>,
    /// The last failure to connect; held while connecting, so that one attempt is made for all who wait.
    failed: AsyncMutex<Option<(Instant, Failure)>>,
}

impl Lane {
    fn current(&self) -> Option<Arc<Connection>> {
        lock(&self.connection).as_ref().filter(|connection| connection.is_open()).map(Arc::clone)
    }

    async fn connection(&self, address: &Address, entrance: &Entrance) -> Result<Arc<Connection>, Failure> {
        if let Some(connection) = self.current() {
            return Ok(connection);
        }
        let mut failed = self.failed.lock().await;
        if let Some(connection) = self.current() {
            return Ok(connection);
        }
        if let Some((_, failure)) = failed.as_ref().filter(|(at, _)| at.elapsed() < PAUSE) {
            return Err(failure.clone());
        }
        match Connection::open(address, entrance).await {
            Ok(connection) => {
                let connection = Arc::new(connection);
                *lock(&self.connection) = Some(Arc::clone(&connection));
                *failed = None;
                Ok(connection)
            }
            Err(failure) => {
                *failed = Some((Instant::now(), failure.clone()));
                Err(failure)
            }
        }
    }
}

impl Node {
    pub(super) fn new(address: Address) -> Self {
        Self { address, lanes: Default::default(), next_lane: AtomicUsize::new(0), own_lanes: Mutex::default() }
    }

    pub(super) async fn call(
        &self,
        entrance: &Entrance,
        purpose: Purpose,
        commands: Bytes,
        expected: Expected,
    ) -> Result<Answer, Failure> {
        let connection = match self.own_lane(purpose) {
            Some(lane) => lane.connection(&self.address, entrance).await?,
            None => self.lane(purpose).connection(&self.address, entrance).await?,
        };
        connection.call(commands, expected).await
    }

    /// An open connection.
    pub(super) fn current(&self, purpose: Purpose) -> Option<Arc<Connection>> {
        match self.own_lane(purpose) {
            Some(lane) => lane.current(),
            None => self.lane(purpose).current(),
        }
    }

    fn lane(&self, purpose: Purpose) -> &Lane {
        match purpose {
            Purpose::Read => &self.lanes[self.next_lane.fetch_add(1, Ordering::Relaxed) % READING_LANES],
            Purpose::Write | Purpose::SmallWrite => &self.lanes[READING_LANES],
        }
    }

    /// The lane of the runtime that asks, if it has one thread.
    fn own_lane(&self, purpose: Purpose) -> Option<Arc<Lane>> {
        let runtime = Handle::try_current().ok()?;
        if purpose == Purpose::Write || runtime.runtime_flavor() != RuntimeFlavor::CurrentThread {
            return None;
        }
        let mut lanes = lock(&self.own_lanes);
        if let Some(lane) = lanes.get(&runtime.id()) {
            return Some(Arc::clone(lane));
        }
        // Of those that ended, connections are closed.
        lanes.retain(|_, lane| Arc::strong_count(lane) > 1 || lane.current().is_some());
        Some(Arc::clone(lanes.entry(runtime.id()).or_default()))
    }
}

/// A lock is only ever held across calls that leave the value whole.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
