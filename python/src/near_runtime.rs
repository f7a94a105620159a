//! Reads of the online store on the thread that asks.
//!
//! On the runtime of the process a read wakes another thread, which reads from the store and wakes the caller again. So
//! there are a few runtimes of one thread, each with connections of its own, which run as long as somebody waits on them
//! and stand still in between. What has to go on in the meantime, such as refreshing the registry or keeping a pool of
//! connections, must not be left to one: it belongs on the runtime of the process.

use std::future::{Future, poll_fn};
use std::num::NonZero;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use feast::{FeatureStore, OnlineRequest};
use feast_core::{Error, Result, RetrievalPlan};
use feast_online::StoredFeatures;
use pyo3::prelude::*;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::task::yield_now;
use tokio::time::timeout;

use crate::errors::IntoPyResult;
use crate::runtime::SIGNAL_POLL;

/// Global for the reason that [`runtime`](crate::runtime::runtime) is; the lock is held with the interpreter, so that
/// no fork happens meanwhile.
static NEAR: Mutex<Near> = Mutex::new(Near { process: 0, idle: Vec::new(), made: 0 });

/// The runtimes of a process.
struct Near {
    process: u32,
    /// Those on which nobody waits.
    idle: Vec<Runtime>,
    made: usize,
}

/// A runtime for one call; `None` where as many calls are under way as there are processors, and on threads of a runtime,
/// which may not wait on another one.
fn take() -> Result<Option<Runtime>> {
    if Handle::try_current().is_ok() {
        return Ok(None);
    }
    let mut near = NEAR.lock().unwrap_or_else(PoisonError::into_inner);
    if near.process != std::process::id() {
        // Those of the parent share its connections: nothing of them may be closed here.
        std::mem::forget(std::mem::take(&mut near.idle));
        (near.process, near.made) = (std::process::id(), 0);
    }
    if let Some(runtime) = near.idle.pop() {
        return Ok(Some(runtime));
    }
    if near.made >= thread::available_parallelism().map_or(1, NonZero::get) {
        return Ok(None);
    }
    let made = Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::internal("the runtime cannot be started").with_source(error))?;
    near.made += 1;
    Ok(Some(made))
}

fn give_back(runtime: Runtime) {
    NEAR.lock().unwrap_or_else(PoisonError::into_inner).idle.push(runtime);
}

/// Runs a short call to its end on this thread, with the interpreter released; Ctrl-C cancels it. `None`, before it is
/// begun, where it has to be waited for in another way.
pub(crate) fn wait_near<T: Send>(py: Python<'_>, call: impl Future<Output = Result<T>> + Send) -> PyResult<Option<T>> {
    let Some(runtime) = take().py()? else { return Ok(None) };
    let done = py.detach(|| {
        runtime.block_on(async {
            let mut call = pin!(call);
            loop {
                match timeout(SIGNAL_POLL, call.as_mut()).await {
                    Ok(done) => return Ok(done),
                    Err(_) => Python::attach(|py| py.check_signals())?,
                }
            }
        })
    });
    give_back(runtime);
    done.and_then(IntoPyResult::py).map(Some)
}

/// Runs a future as part of a runtime: what it starts and opens belongs there.
async fn on<T>(runtime: &Handle, future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    poll_fn(|context| {
        let _context = runtime.enter();
        future.as_mut().poll(context)
    })
    .await
}

/// The plan of an online request, and its answer if the store keeps that: `None` before anything is read where it does
/// not. Only the read is the caller's own; whatever else may have to be opened or to go on belongs to the runtime of the
/// process.
pub(crate) async fn read_stored(
    shared: &Handle,
    store: &FeatureStore,
    request: &OnlineRequest,
) -> Result<(Arc<RetrievalPlan>, Option<StoredFeatures>)> {
    let OnlineRequest { selection, entity_rows, full_feature_names } = request;
    let plan = store.online_plan(|snapshot, project| snapshot.resolve(project, selection, *full_feature_names));
    let plan = on(shared, plan).await?;
    let features = store.retrieve_stored(&plan, entity_rows, None).await?;
    Ok((plan, features))
}

/// Lets connections end that nobody holds any more. Called with the interpreter held.
pub(crate) fn tidy_up() {
    let mut near = NEAR.lock().unwrap_or_else(PoisonError::into_inner);
    if near.process != std::process::id() || Handle::try_current().is_ok() {
        return;
    }
    for runtime in &mut near.idle {
        // Whoever is told that something ended runs in between.
        runtime.block_on(async {
            yield_now().await;
            yield_now().await;
        });
    }
}

/// Tidies up when it is dropped.
pub(crate) struct TidyUp;

impl Drop for TidyUp {
    fn drop(&mut self) {
        tidy_up();
    }
}
