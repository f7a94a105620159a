//! The one runtime of the process, and the one door through which Python enters it.
//!
//! Python forks: Gunicorn and data loaders do. Threads do not survive a fork, so the child gets a runtime of its own
//! at its first call.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use feast_core::{Error, Result};
use pyo3::IntoPyObjectExt;
use pyo3::prelude::*;
use tokio::runtime::Runtime;

use crate::errors::IntoPyResult;

/// Global because a process has one Python and Python has no place to keep a runtime; guarded by the process that made
/// it because a fork copies it without its threads.
static RUNTIME: Mutex<Option<(u32, Arc<Runtime>)>> = Mutex::new(None);

/// How often Python is asked whether the user pressed Ctrl-C: signals are only visible to those who ask.
const SIGNAL_POLL: Duration = Duration::from_millis(100);

/// The runtime of this process.
pub(crate) fn runtime() -> Result<Arc<Runtime>> {
    let mut current = RUNTIME.lock().unwrap_or_else(PoisonError::into_inner);
    let process = std::process::id();
    match current.as_ref() {
        Some((owner, runtime)) if *owner == process => Ok(Arc::clone(runtime)),
        inherited => {
            // The threads of an inherited runtime do not exist here; dropping it would wait for them.
            if let Some((_, runtime)) = inherited {
                std::mem::forget(Arc::clone(runtime));
            }
            let made = tokio::runtime::Builder::new_multi_thread()
                .enable_all()
                .thread_name("feast")
                .build()
                .map_err(|error| Error::internal("the runtime cannot be started").with_source(error))?;
            let made = Arc::new(made);
            *current = Some((process, Arc::clone(&made)));
            Ok(made)
        }
    }
}

/// Runs one call to its end with the interpreter released; Ctrl-C cancels it.
pub(crate) fn wait<T: Send>(py: Python<'_>, call: impl Future<Output = Result<T>> + Send) -> PyResult<T> {
    let runtime = runtime().py()?;
    py.detach(|| {
        runtime.block_on(async {
            let mut call = std::pin::pin!(call);
            loop {
                match tokio::time::timeout(SIGNAL_POLL, &mut call).await {
                    Ok(done) => return done.py(),
                    Err(_) => Python::attach(|py| py.check_signals())?,
                }
            }
        })
    })
}

/// Starts a call and returns an awaitable of the running event loop.
pub(crate) fn awaitable<'py, T>(
    py: Python<'py>,
    call: impl Future<Output = Result<T>> + Send + 'static,
) -> PyResult<Bound<'py, PyAny>>
where
    T: for<'p> IntoPyObject<'p> + Send + 'static,
{
    let event_loop = py.import("asyncio")?.call_method0("get_running_loop")?;
    let future = event_loop.call_method0("create_future")?;
    let (event_loop, waiting) = (event_loop.unbind(), future.clone().unbind());
    runtime().py()?.spawn(async move {
        let done = call.await.py();
        Python::attach(|py| {
            let delivered = match done.and_then(|value| value.into_py_any(py)) {
                Ok(value) => deliver(py, &event_loop, &waiting, "set_result", value),
                Err(error) => deliver(py, &event_loop, &waiting, "set_exception", error.into_value(py).into_any()),
            };
            if let Err(error) = delivered {
                // The loop was closed while the call ran: nobody is waiting any more.
                tracing::debug!(%error, "the result of an awaited call was not delivered");
            }
        });
    });
    Ok(future)
}

/// Hands a result to the loop's own thread, unless the waiting side was cancelled meanwhile.
fn deliver(py: Python<'_>, event_loop: &Py<PyAny>, future: &Py<PyAny>, method: &str, value: Py<PyAny>) -> PyResult<()> {
    let settle = py.import("feast._settle")?.getattr("settle")?;
    event_loop.call_method1(py, "call_soon_threadsafe", (settle, future, method, value))?;
    Ok(())
}
