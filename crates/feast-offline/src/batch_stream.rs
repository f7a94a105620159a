//! Batches that arrive one after the other.

use std::fmt;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use feast_core::{Error, Result};
use futures::stream::{self, BoxStream, Stream, StreamExt, TryStreamExt};
use tokio::sync::mpsc;

/// Batches of one schema that arrive one after the other. Dropping the stream stops the work behind it.
pub struct BatchStream {
    schema: SchemaRef,
    expected_rows: ExpectedRows,
    is_kept: Arc<AtomicBool>,
    batches: BoxStream<'static, Result<RecordBatch>>,
}

impl BatchStream {
    /// A stream of batches that all have `schema`.
    pub fn new(schema: SchemaRef, batches: impl Stream<Item = Result<RecordBatch>> + Send + 'static) -> Self {
        Self { schema, expected_rows: ExpectedRows::default(), is_kept: Arc::default(), batches: batches.boxed() }
    }

    /// A stream of batches that are in memory already.
    pub fn from_batches(schema: SchemaRef, batches: Vec<RecordBatch>) -> Self {
        Self::new(schema, stream::iter(batches.into_iter().map(Ok)))
    }

    /// How many rows will have arrived in the end, for those who show progress.
    pub fn expected_rows(&self) -> ExpectedRows {
        self.expected_rows.clone()
    }

    /// Tells who makes the batches that all of them will be in memory at the end, so that what they are made of should not
    /// be there beside them. Nothing else depends on it.
    pub fn will_be_kept(&self) {
        self.is_kept.store(true, Ordering::Relaxed);
    }

    /// The same stream; `kept` is dropped with it.
    pub(crate) fn holding(mut self, kept: impl Send + 'static) -> Self {
        let batches = std::mem::replace(&mut self.batches, stream::empty().boxed());
        self.batches = batches
            .map(move |batch| {
                let _kept = &kept;
                batch
            })
            .boxed();
        self
    }

    /// The schema of every batch.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// All batches at once.
    ///
    /// # Errors
    /// The first error of the stream.
    pub async fn collect(self) -> Result<Vec<RecordBatch>> {
        self.will_be_kept();
        self.batches.try_collect().await
    }

    /// A stream fed by a thread that may block: `work` runs on its own thread and waits while nobody reads.
    pub(crate) fn from_blocking(
        schema: SchemaRef,
        work: impl FnOnce(&BatchSender) -> Result<()> + Send + 'static,
    ) -> Self {
        // Two batches are ready ahead of the reader; more would only cost memory.
        let (sender, receiver) = mpsc::channel(2);
        let expected_rows = ExpectedRows::default();
        let is_kept = Arc::<AtomicBool>::default();
        let sender =
            BatchSender { batches: sender, expected_rows: expected_rows.clone(), is_kept: Arc::clone(&is_kept) };
        tokio::task::spawn_blocking(move || {
            // A panic is our defect; it must end the stream as an error, not as a short answer.
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| work(&sender)))
                .unwrap_or_else(|_| Err(Error::internal("reading offline rows stopped unexpectedly")));
            if let Err(error) = outcome {
                drop(sender.batches.blocking_send(Err(error)));
            }
        });
        let batches = stream::unfold(receiver, async |mut receiver: mpsc::Receiver<_>| {
            receiver.recv().await.map(|batch| (batch, receiver))
        });
        Self { expected_rows, is_kept, ..Self::new(schema, batches) }
    }
}

/// A number of rows that becomes known while a stream is read, or never.
#[derive(Debug, Clone, Default)]
pub struct ExpectedRows(Arc<OnceLock<u64>>);

impl ExpectedRows {
    /// The number, once known.
    pub fn get(&self) -> Option<u64> {
        self.0.get().copied()
    }
}

impl Stream for BatchStream {
    type Item = Result<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.batches.poll_next_unpin(context)
    }
}

impl fmt::Debug for BatchStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BatchStream").field("schema", &self.schema).finish_non_exhaustive()
    }
}

/// The writing end of a stream that a blocking thread feeds.
pub(crate) struct BatchSender {
    batches: mpsc::Sender<Result<RecordBatch>>,
    expected_rows: ExpectedRows,
    is_kept: Arc<AtomicBool>,
}

impl BatchSender {
    /// Tells how many rows there will be; the first word counts.
    pub(crate) fn expect(&self, rows: usize) {
        self.expected_rows.0.get_or_init(|| rows as u64);
    }

    /// Hands a batch over, waiting for room; fails when nobody reads any more.
    pub(crate) fn send(&self, batch: RecordBatch) -> Result<()> {
        self.batches.blocking_send(Ok(batch)).map_err(|_| abandoned())
    }

    /// Whether the reader keeps all batches, as far as it has told.
    pub(crate) fn is_kept(&self) -> bool {
        self.is_kept.load(Ordering::Relaxed)
    }

    /// Fails when nobody reads any more, so that long scans end early.
    pub(crate) fn check(&self) -> Result<()> {
        if self.batches.is_closed() { Err(abandoned()) } else { Ok(()) }
    }
}

/// Nobody sees this error: its reader is gone.
fn abandoned() -> Error {
    Error::unavailable("the reader of the rows went away")
}
