//! Rows that pushes leave for the offline store, written together: when there are so many, when the first has waited so
//! long, and when the server stops.
//!
//! Rows that wait are in memory alone: a server that is killed loses them, which is why somebody has to ask for this. What
//! the history refuses is refused with the push. So a write fails where the store is away or was declared anew, and is
//! repeated until it succeeds. Meanwhile rows wait up to a limit of memory, and then pushes wait for room as long as they may.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::datatypes::SchemaRef;
use feast::{OfflinePushBatching, PushTarget};
use feast_core::{Error, Result};
use tokio::sync::{Mutex, Notify, OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{Instant, sleep_until};

use crate::state::Server;

/// KiB of rows that may wait.
const ROOM: usize = 256 << 10;

/// After a write that failed, doubled with each.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// What waits to be written.
#[derive(Debug)]
pub(crate) struct OfflineBatches {
    bounds: OfflinePushBatching,
    room: Arc<Semaphore>,
    pushes: mpsc::UnboundedSender<Pushed>,
    /// The task that writes has it as long as it runs; it survives a panic of it.
    waiting: Mutex<Waiting>,
    stop: Notify,
}

#[derive(Debug)]
struct Waiting {
    pushes: mpsc::UnboundedReceiver<Pushed>,
    batches: Vec<Batch>,
}

/// The rows of one push.
#[derive(Debug)]
struct Pushed {
    push_source: String,
    rows: RecordBatch,
    room: OwnedSemaphorePermit,
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
        Self {
            bounds,
            room: Arc::new(Semaphore::new(ROOM)),
            pushes,
            waiting: Mutex::new(Waiting { pushes: received, batches: Vec::new() }),
            stop: Notify::new(),
        }
    }

    /// Leaves rows to be written; waits while there is no room for them.
    ///
    /// # Errors
    /// `Unavailable` when the server stops.
    pub(crate) async fn add(&self, push_source: &str, rows: RecordBatch) -> Result<()> {
        let kib = rows.get_array_memory_size().div_ceil(1024).clamp(1, ROOM);
        let stopping = || Error::unavailable("the server stops and takes no more rows for the offline store");
        let room = Arc::clone(&self.room).acquire_many_owned(kib as u32).await.map_err(|_| stopping())?;
        self.pushes.send(Pushed { push_source: push_source.to_owned(), rows, room }).map_err(|_| stopping())
    }

    /// Lets [`write_offline_batches`] write what waits, and end.
    pub(crate) fn stop(&self) {
        self.stop.notify_one();
    }

    fn put(&self, batches: &mut Vec<Batch>, Pushed { push_source, rows, room }: Pushed) {
        let schema = rows.schema();
        let n_rows = rows.num_rows();
        let same = |batch: &&mut Batch| batch.push_source == push_source && batch.schema == schema;
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
        let is_full = batch.n_rows >= self.bounds.rows || self.room.available_permits() < ROOM / 2;
        batch.due <= Instant::now() || (is_full && batch.failures == 0)
    }
}

/// Writes batches until the server stops, and then all that are left.
pub(crate) async fn write_offline_batches(server: Arc<Server>) {
    let Some(own) = &server.offline_batches else { return };
    let mut waiting = own.waiting.lock().await;
    let Waiting { pushes, batches } = &mut *waiting;
    loop {
        let due = batches.iter().map(|batch| batch.due).min();
        tokio::select! {
            pushed = pushes.recv() => match pushed {
                Some(pushed) => own.put(batches, pushed),
                None => break,
            },
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
            () = own.stop.notified() => break,
        }
        let mut at = 0;
        while at < batches.len() {
            if own.is_due(&batches[at]) && write(&server, &mut batches[at]).await {
                batches.swap_remove(at);
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
    for mut batch in batches.drain(..) {
        if !write(&server, &mut batch).await {
            let (push_source, rows) = (batch.push_source, batch.n_rows);
            tracing::error!(push_source, rows, "stopped: rows of accepted pushes are not in the offline store");
        }
    }
}

/// Gives whether the rows are written; if not, they are due again after a while.
async fn write(server: &Server, batch: &mut Batch) -> bool {
    let (push_source, rows) = (batch.push_source.as_str(), batch.n_rows);
    let written = async {
        let rows = concat_batches(&batch.schema, &batch.rows)?;
        server.store.push_rows(push_source, &rows, PushTarget::Offline, false).await
    };
    let written = written.await;
    server.metrics.offline_written(push_source, written.is_ok());
    let Err(error) = written else {
        tracing::debug!(push_source, rows, "pushed rows are in the offline store");
        return true;
    };
    tracing::error!(%error, push_source, rows, "pushed rows cannot be written to the offline store; they wait");
    let pause = FIRST_PAUSE.saturating_mul(1 << batch.failures.min(10)).min(LONGEST_PAUSE);
    batch.failures += 1;
    batch.due = Instant::now() + pause.mul_f64(0.5 + fastrand::f64() / 2.0);
    false
}
