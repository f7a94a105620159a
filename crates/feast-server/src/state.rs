//! What all requests share.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use axum::http::StatusCode;
use feast::FeatureStore;
use tokio::sync::{Notify, Semaphore, SemaphorePermit};
use tokio::time::timeout_at;

use crate::error::{Answer, Rejection};
use crate::metrics::Metrics;
use crate::offline_batches::OfflineBatches;
use crate::options::ServeOptions;
use crate::traces::Traces;

/// What all requests share.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) store: FeatureStore,
    pub(crate) options: ServeOptions,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) materializing: Materializing,
    /// Requests that are worked on or wait.
    pub(crate) admitted: Semaphore,
    /// Requests that are worked on.
    pub(crate) working: Semaphore,
    /// KiB of bodies that may be held at the same time.
    pub(crate) body_memory: Arc<Semaphore>,
    /// The last answer of `/ready`.
    pub(crate) readiness: tokio::sync::Mutex<Option<Readiness>>,
    pub(crate) started: Instant,
    pub(crate) traces: Option<Traces>,
    /// Where pushes leave rows for the offline store; `None`: they are written at once.
    pub(crate) offline_batches: Option<OfflineBatches>,
}

impl Server {
    pub(crate) fn new(store: &FeatureStore, options: &ServeOptions, traces: Option<Traces>) -> Arc<Self> {
        let metrics = Arc::new(Metrics::new());
        let working = options.max_concurrent_requests.min(Semaphore::MAX_PERMITS);
        let admitted = working.saturating_add(options.max_queued_requests).min(Semaphore::MAX_PERMITS);
        Arc::new(Self {
            store: store.observed_by(Arc::<Metrics>::clone(&metrics)),
            options: options.clone(),
            metrics,
            materializing: Materializing::default(),
            admitted: Semaphore::new(admitted),
            working: Semaphore::new(working),
            body_memory: Arc::new(Semaphore::new((options.body_memory_bytes / 1024).min(Semaphore::MAX_PERMITS))),
            readiness: tokio::sync::Mutex::default(),
            started: Instant::now(),
            traces,
            offline_batches: options.offline_push_batching.map(OfflineBatches::new),
        })
    }
}

impl Server {
    /// Lets as many requests work as are allowed, as many wait, and ends those that take too long.
    pub(crate) async fn admit<T>(&self, deadline: Instant, work: impl Future<Output = Answer<T>>) -> Answer<T> {
        let _entered = self.enter(deadline).await?;
        timeout_at(deadline.into(), work).await.unwrap_or_else(|_| Err(too_late()))
    }

    /// The part of [`admit`](Self::admit) before the work.
    pub(crate) async fn enter(&self, deadline: Instant) -> Answer<Entered<'_>> {
        let admitted = self.admitted.try_acquire().map_err(|_| Rejection::Busy)?;
        let working = match self.working.try_acquire() {
            Ok(working) => working,
            Err(_) => {
                let turn = timeout_at(deadline.into(), self.working.acquire()).await;
                turn.map_err(|_| too_late())?.map_err(|_| Rejection::Busy)?
            }
        };
        Ok(Entered { _admitted: admitted, _working: working })
    }
}

/// A request that is worked on.
#[derive(Debug)]
pub(crate) struct Entered<'s> {
    _working: SemaphorePermit<'s>,
    _admitted: SemaphorePermit<'s>,
}

pub(crate) fn too_late() -> Rejection {
    Rejection::Refused(StatusCode::GATEWAY_TIMEOUT, "the request was not answered in the time it had".to_owned())
}

/// Whether features can be answered.
#[derive(Debug, Clone)]
pub(crate) struct Readiness {
    pub(crate) asked: Instant,
    pub(crate) online_store: Result<(), String>,
}

/// The views that are being materialized by this server.
#[derive(Debug, Clone, Default)]
pub(crate) struct Materializing(Arc<Running>);

#[derive(Debug, Default)]
struct Running {
    /// One entry per run, with the names of its views.
    runs: Mutex<Runs>,
    finished: Notify,
}

#[derive(Debug, Default)]
struct Runs {
    next: u64,
    views: Vec<(u64, BTreeSet<String>)>,
}

/// A run; it ends when this is dropped, whatever happens to it.
#[derive(Debug)]
pub(crate) struct Run {
    number: u64,
    running: Arc<Running>,
}

impl Materializing {
    /// Starts a run.
    ///
    /// # Errors
    /// The names that are being materialized already, when `exclusive` is asked for.
    pub(crate) fn start(&self, views: &[String], exclusive: bool) -> Result<Run, Vec<String>> {
        let mut runs = self.0.lock();
        if exclusive {
            let busy = |name: &&String| runs.views.iter().any(|(_, views)| views.contains(*name));
            let busy: Vec<String> = views.iter().filter(busy).cloned().collect();
            if !busy.is_empty() {
                return Err(busy);
            }
        }
        let number = runs.next;
        runs.next += 1;
        runs.views.push((number, views.iter().cloned().collect()));
        Ok(Run { number, running: Arc::clone(&self.0) })
    }

    /// Waits until nothing runs.
    pub(crate) async fn idle(&self) {
        loop {
            let finished = self.0.finished.notified();
            if self.0.lock().views.is_empty() {
                return;
            }
            finished.await;
        }
    }
}

impl Running {
    fn lock(&self) -> MutexGuard<'_, Runs> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        self.running.lock().views.retain(|(number, _)| *number != self.number);
        self.running.finished.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[tokio::test]
    async fn a_view_has_one_exclusive_run() {
        let materializing = Materializing::default();
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let run = materializing.start(&names(&["a", "b"]), true).unwrap();
        assert_eq!(materializing.start(&names(&["b", "c"]), true).unwrap_err(), ["b"]);
        assert!(materializing.start(&names(&["b"]), false).is_ok());
        drop(run);
        assert!(materializing.start(&names(&["b"]), true).is_ok());
        materializing.idle().await;
    }
}
