//! Rows that pushes leave for the offline store, written together: when there are so many, when the first has waited so
//! long, and when the server stops. Meanwhile another batch of the same push source gathers.
//!
//! Rows that wait are in memory alone: a server that is killed loses them, which is why somebody has to ask for this. What
//! is known to be refused is refused with the push. A write that fails all the same is repeated until it succeeds; only
//! rows that the source refuses by themselves are given up, and told. Rows wait up to a limit of memory, and then pushes
//! are refused.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::datatypes::SchemaRef;
use feast::{OfflinePushBatching, PushTarget};
use feast_core::{Error, ErrorCode, Result};
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use crate::state::Server;

/// KiB of rows that may wait.
const ROOM: usize = 256 << 10;

/// How long a push waits for room.
const PATIENCE: Duration = Duration::from_secs(1);

/// After a write that failed, doubled with each.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// What waits to be written.
#[derive(Debug)]
pub(crate) struct OfflineBatches {
    bounds: OfflinePushBatching,
    room: Arc<Semaphore>,
    pushes: mpsc::UnboundedSender<Pushed>,
    phase: watch::Sender<Phase>,
    /// The task that writes has it as long as it runs; it survives a panic of it.
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Gathering,
    /// Open requests are answered, but nothing is gathered any more.
    Hurrying,
    /// Nobody pushes any more.
    Ending,
}

#[derive(Debug)]
struct Waiting {
    pushes: mpsc::UnboundedReceiver<Pushed>,
    batches: Vec<Batch>,
    writing: JoinSet<Batch>,
    /// Push sources whose rows are being written.
    busy: HashSet<String>,
}

/// Room for the rows of a push.
#[derive(Debug)]
pub(crate) struct Room(OwnedSemaphorePermit);

/// The rows of one push.
#[derive(Debug)]
struct Pushed {
    push_source: String,
    rows: RecordBatch,
    room: Room,
}

/// Rows that are written together.
#[derive(Debug)]
struct Batch {
    push_source: String,
    schema: SchemaRef,
    rows: Vec<RecordBatch>,
    n_rows: usize,
    room: OwnedSemaphorePermit,
    due: Instant,
    failures: u32,
}

impl OfflineBatches {
    pub(crate) fn new(bounds: OfflinePushBatching) -> Self {
        let (pushes, received) = mpsc::unbounded_channel();
        let waiting =
            Waiting { pushes: received, batches: Vec::new(), writing: JoinSet::new(), busy: HashSet::default() };
        Self {
            bounds,
            room: Arc::new(Semaphore::new(ROOM)),
            pushes,
            phase: watch::Sender::new(Phase::Gathering),
            waiting: Mutex::new(waiting),
        }
    }

    /// Room for rows, before they are written anywhere.
    ///
    /// # Errors
    /// `Unavailable` when there is none for a while, and when the server stops.
    pub(crate) async fn room_for(&self, rows: &RecordBatch) -> Result<Room> {
        let kib = rows.get_array_memory_size().div_ceil(1024).clamp(1, ROOM);
        match timeout(PATIENCE, Arc::clone(&self.room).acquire_many_owned(kib as u32)).await {
            Ok(Ok(room)) => Ok(Room(room)),
            Ok(Err(_)) => Err(stopping()),
            Err(_) => Err(Error::unavailable("too many rows wait for the offline store")
                .with_hint("push again later; the log of the server tells why they wait")),
        }
    }

    /// Leaves rows to be written.
    ///
    /// # Errors
    /// `Unavailable` when the server stops.
    pub(crate) fn add(&self, push_source: &str, rows: RecordBatch, room: Room) -> Result<()> {
        self.pushes.send(Pushed { push_source: push_source.to_owned(), rows, room }).map_err(|_| stopping())
    }

    /// Lets all that waits be written at once.
    pub(crate) fn hurry(&self) {
        self.phase.send_replace(Phase::Hurrying);
    }

    /// Lets [`write_offline_batches`] end when all is written.
    pub(crate) fn end(&self) {
        self.phase.send_replace(Phase::Ending);
    }

    fn put(&self, batches: &mut Vec<Batch>, Pushed { push_source, rows, room: Room(room) }: Pushed) {
        let schema = rows.schema();
        let n_rows = rows.num_rows();
        // What failed may do so because of its rows.
        let same =
            |batch: &&mut Batch| batch.failures == 0 && batch.push_source == push_source && batch.schema == schema;
        match batches.iter_mut().find(same) {
            Some(batch) => {
                batch.rows.push(rows);
                batch.n_rows += n_rows;
                batch.room.merge(room);
            }
            None => {
                let due = Instant::now() + self.bounds.interval;
                batches.push(Batch { push_source, schema, rows: vec![rows], n_rows, room, due, failures: 0 });
            }
        }
    }

    /// Whether a batch is not to wait any longer.
    fn is_due(&self, batch: &Batch) -> bool {
        let is_full = batch.n_rows >= self.bounds.rows
            || self.room.available_permits() < ROOM / 2
            || *self.phase.borrow() != Phase::Gathering;
        batch.due <= Instant::now() || (is_full && batch.failures == 0)
    }
}

fn stopping() -> Error {
    Error::unavailable("the server stops and takes no more rows for the offline store")
}

/// Writes batches until the server stops, and then all that are left.
pub(crate) async fn write_offline_batches(server: Arc<Server>) {
    let Some(own) = &server.offline_batches else { return };
    let mut phase = own.phase.subscribe();
    let mut waiting = own.waiting.lock().await;
    let Waiting { pushes, batches, writing, busy } = &mut *waiting;
    while *phase.borrow_and_update() != Phase::Ending {
        let due = batches.iter().filter(|batch| !busy.contains(&batch.push_source)).map(|batch| batch.due).min();
        tokio::select! {
            Some(pushed) = pushes.recv() => own.put(batches, pushed),
            Some(written) = writing.join_next() => take_back(written, batches, busy),
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
            _ = phase.changed() => {}
        }
        while let Ok(pushed) = pushes.try_recv() {
            own.put(batches, pushed);
        }
        let mut at = 0;
        while at < batches.len() {
            if own.is_due(&batches[at]) && busy.insert(batches[at].push_source.clone()) {
                writing.spawn(write(Arc::clone(&server), batches.swap_remove(at)));
            } else {
                at += 1;
            }
        }
    }
    own.room.close();
    pushes.close();
    while let Some(pushed) = pushes.recv().await {
        own.put(batches, pushed);
    }
    for batch in batches.drain(..) {
        writing.spawn(write(Arc::clone(&server), batch));
    }
    while let Some(written) = writing.join_next().await {
        take_back(written, batches, busy);
    }
    for Batch { push_source, n_rows, .. } in batches.drain(..) {
        tracing::error!(push_source, rows = n_rows, "stopped: rows of accepted pushes are not in the offline store");
    }
}

/// What is left of a batch waits again.
fn take_back(
    written: std::result::Result<Batch, tokio::task::JoinError>,
    batches: &mut Vec<Batch>,
    busy: &mut HashSet<String>,
) {
    match written {
        Ok(batch) => {
            busy.remove(&batch.push_source);
            if !batch.rows.is_empty() {
                batches.push(batch);
            }
        }
        Err(error) => {
            tracing::error!(%error, "rows of accepted pushes are lost: writing them to the offline store panicked");
            // Whose rows they were is not known any more.
            busy.clear();
        }
    }
}

/// Writes a batch, and gives back what is left of it.
async fn write(server: Arc<Server>, mut batch: Batch) -> Batch {
    let first = match concat_batches(&batch.schema, &batch.rows) {
        Ok(rows) => write_rows(&server, &batch, &rows).await,
        Err(error) => Err(error.into()),
    };
    let failed = match first {
        Ok(()) => {
            batch.rows.clear();
            return batch;
        }
        // Those that are not refused are written one by one.
        Err(error) if is_refusal(&error) => {
            let mut failed = None;
            let mut left = Vec::new();
            for rows in std::mem::take(&mut batch.rows) {
                if failed.is_some() {
                    left.push(rows);
                    continue;
                }
                match write_rows(&server, &batch, &rows).await {
                    Ok(()) => {}
                    Err(error) if is_refusal(&error) => {
                        let (push_source, rows) = (batch.push_source.as_str(), rows.num_rows());
                        tracing::error!(%error, push_source, rows, "the offline store refuses rows of an accepted push");
                    }
                    Err(error) => {
                        failed = Some(error);
                        left.push(rows);
                    }
                }
            }
            batch.rows = left;
            batch.n_rows = batch.rows.iter().map(RecordBatch::num_rows).sum();
            match failed {
                Some(error) => error,
                None => return batch,
            }
        }
        Err(error) => error,
    };
    let (push_source, rows) = (batch.push_source.as_str(), batch.n_rows);
    tracing::error!(error = %failed, push_source, rows, "pushed rows cannot be written to the offline store; they wait");
    let pause = FIRST_PAUSE.saturating_mul(1 << batch.failures.min(10)).min(LONGEST_PAUSE);
    batch.failures += 1;
    batch.due = Instant::now() + pause.mul_f64(0.5 + fastrand::f64() / 2.0);
    batch
}

async fn write_rows(server: &Server, batch: &Batch, rows: &RecordBatch) -> Result<()> {
    let written = server.store.push_rows(&batch.push_source, rows, PushTarget::Offline, false).await;
    server.metrics.offline_written(&batch.push_source, written.is_ok());
    written
}

/// Whether the same rows will never be taken.
fn is_refusal(error: &Error) -> bool {
    use ErrorCode as C;
    matches!(error.code(), C::InvalidRequest | C::MissingColumns | C::MissingJoinKey | C::InvalidEventTimestamp)
}
