//! Work on several threads, for readers that block.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{LazyLock, Mutex};
use std::thread;

use feast_core::{Error, Result};

/// How many threads work on one request.
pub(crate) fn threads() -> usize {
    // Asking reads the limits of the control group from files each time.
    static THREADS: LazyLock<usize> = LazyLock::new(|| thread::available_parallelism().map_or(1, usize::from));
    *THREADS
}

/// Calls `work` for each task, on several threads, in ascending order of start. Stops at the first error.
pub(crate) fn for_each(threads: usize, n_tasks: usize, work: &(dyn Fn(usize) -> Result<()> + Sync)) -> Result<()> {
    if threads.min(n_tasks) <= 1 {
        return (0..n_tasks).try_for_each(work);
    }
    let next = AtomicUsize::new(0);
    let failure: Mutex<Option<Error>> = Mutex::new(None);
    let one_thread = || {
        loop {
            let task = next.fetch_add(1, Ordering::Relaxed);
            if task >= n_tasks {
                return;
            }
            if let Err(error) = work(task) {
                next.store(n_tasks, Ordering::Relaxed);
                if let Ok(mut failure) = failure.lock() {
                    failure.get_or_insert(error);
                }
                return;
            }
        }
    };
    thread::scope(|scope| {
        for _ in 1..threads.min(n_tasks) {
            scope.spawn(one_thread);
        }
        one_thread();
    });
    failure.into_inner().ok().flatten().map_or(Ok(()), Err)
}

/// Runs blocking work off the threads that serve requests.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|_| Err(Error::internal("reading offline rows stopped unexpectedly")))
}
