//! The one runtime of the process, and the one door through which Python enters it.
//!
//! Python forks: Gunicorn and data loaders do. Threads do not survive a fork, so the child gets a runtime of its own
//! at its first call.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use feast_core::{Error, Result};
use pyo3::IntoPyObjectExt;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use tokio::runtime::Runtime;
use tokio::task::{AbortHandle, JoinHandle};

use crate::errors::IntoPyResult;

/// Global because a process has one Python and Python has no place to keep a runtime; guarded by the process that made
/// it because a fork copies it without its threads.
static RUNTIME: Mutex<Option<(u32, Arc<Runtime>)>> = Mutex::new(None);

/// How often Python is asked whether the user pressed Ctrl-C: signals are only visible to those who ask.
pub(crate) const SIGNAL_POLL: Duration = Duration::from_millis(100);

/// The runtime of this process. Called with the interpreter held, so that no fork happens while the lock is.
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

/// Runs one short call to its end with the interpreter released; Ctrl-C cancels it.
pub(crate) fn wait<T: Send>(py: Python<'_>, call: impl Future<Output = Result<T>> + Send) -> PyResult<T> {
    let runtime = runtime().py()?;
    watched(py, &runtime, call)?.py()
}

/// Runs one call to its end with the interpreter released; Ctrl-C cancels it.
///
/// The call runs on another thread, so that this one hears of Ctrl-C however long the call computes between two waits.
pub(crate) fn wait_long<T: Send + 'static>(
    py: Python<'_>,
    call: impl Future<Output = Result<T>> + Send + 'static,
) -> PyResult<T> {
    let runtime = runtime().py()?;
    let task = Task(runtime.spawn(call));
    watched(py, &runtime, task)?.py()
}

/// Waits for a future with the interpreter released; fails when a signal handler raises.
///
/// It waits by itself and not with `block_on`, whose timers stand still while all threads of the runtime compute.
pub(crate) fn watched<T: Send>(
    py: Python<'_>,
    runtime: &Runtime,
    future: impl Future<Output = T> + Send,
) -> PyResult<T> {
    py.detach(|| {
        let _context = runtime.enter();
        let alarm = Arc::new(Alarm { thread: thread::current(), rung: AtomicBool::new(false) });
        let waker = Waker::from(Arc::clone(&alarm));
        let mut future = std::pin::pin!(future);
        let mut asked = Instant::now();
        loop {
            if let Poll::Ready(done) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
                return Ok(done);
            }
            if !alarm.rung.swap(false, Ordering::AcqRel) {
                thread::park_timeout(SIGNAL_POLL);
            }
            if asked.elapsed() >= SIGNAL_POLL {
                Python::attach(|py| py.check_signals())?;
                asked = Instant::now();
            }
        }
    })
}

/// Wakes the thread that waits for a future.
struct Alarm {
    thread: Thread,
    rung: AtomicBool,
}

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        self.rung.store(true, Ordering::Release);
        self.thread.unpark();
    }
}

/// A call on another thread; it ends with whoever waits for it.
struct Task<T>(JoinHandle<Result<T>>);

impl<T> Future for Task<T> {
    type Output = Result<T>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let stopped = |error| Err(Error::internal("a call stopped unexpectedly").with_source(error));
        Pin::new(&mut self.0).poll(context).map(|done| done.unwrap_or_else(stopped))
    }
}

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
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
    let task = runtime().py()?.spawn(async move {
        let done = call.await;
        // Nobody waits any more when the interpreter is about to end.
        let Some(_delivering) = Delivering::begin() else { return };
        Python::try_attach(|py| {
            let delivered = match done.py().and_then(|value| value.into_py_any(py)) {
                Ok(value) => deliver(py, &event_loop, &waiting, "set_result", value),
                Err(error) => deliver(py, &event_loop, &waiting, "set_exception", error.into_value(py).into_any()),
            };
            if let Err(error) = delivered {
                // The loop was closed while the call ran: nobody is waiting any more.
                tracing::debug!(%error, "the result of an awaited call was not delivered");
            }
        });
    });
    future.call_method1("add_done_callback", (AbandonedCall(task.abort_handle()),))?;
    Ok(future)
}

/// Ends a call when the future that awaits it is cancelled.
#[pyclass(frozen)]
struct AbandonedCall(AbortHandle);

#[pymethods]
impl AbandonedCall {
    fn __call__(&self, future: &Bound<'_, PyAny>) -> PyResult<()> {
        if future.call_method0("cancelled")?.is_truthy()? {
            self.0.abort();
        }
        Ok(())
    }
}

/// Hands a result to the loop's own thread, unless the waiting side was cancelled meanwhile.
fn deliver(py: Python<'_>, event_loop: &Py<PyAny>, future: &Py<PyAny>, method: &str, value: Py<PyAny>) -> PyResult<()> {
    let settle = py.import("feast._settle")?.getattr("settle")?;
    event_loop.call_method1(py, "call_soon_threadsafe", (settle, future, method, value))?;
    Ok(())
}

/// Threads that are handing a result to Python.
static DELIVERING: AtomicUsize = AtomicUsize::new(0);

/// Whether Python is about to end.
static ENDING: AtomicBool = AtomicBool::new(false);

/// How long the end of Python waits for results that are being handed over.
const LONGEST_DELIVERY: Duration = Duration::from_secs(5);

/// A result is being handed over. A thread that asks for the interpreter while Python ends is stopped by force, which
/// the process does not survive; so Python waits for those that have begun, and no more begin.
struct Delivering;

impl Delivering {
    fn begin() -> Option<Self> {
        DELIVERING.fetch_add(1, Ordering::SeqCst);
        let begun = Self;
        (!ENDING.load(Ordering::SeqCst)).then_some(begun)
    }
}

impl Drop for Delivering {
    fn drop(&mut self) {
        DELIVERING.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Python calls this before it ends.
#[pyfunction]
fn before_end(py: Python<'_>) {
    ENDING.store(true, Ordering::SeqCst);
    let asked = Instant::now();
    py.detach(|| {
        while DELIVERING.load(Ordering::SeqCst) > 0 && asked.elapsed() < LONGEST_DELIVERY {
            thread::sleep(Duration::from_micros(100));
        }
    });
}

/// Makes forks of Python safe for what is open here, and its end for results that are on their way.
pub(crate) fn watch_process(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    py.import("atexit")?.call_method1("register", (wrap_pyfunction!(before_end, module)?,))?;
    let os = py.import("os")?;
    // Not every system forks.
    if !os.hasattr("register_at_fork")? {
        return Ok(());
    }
    let hooks = PyDict::new(py);
    hooks.set_item("before", wrap_pyfunction!(before_fork, module)?)?;
    hooks.set_item("after_in_parent", wrap_pyfunction!(after_fork, module)?)?;
    hooks.set_item("after_in_child", wrap_pyfunction!(after_fork_in_child, module)?)?;
    os.call_method("register_at_fork", (), Some(&hooks)).map(drop)
}

#[pyfunction]
fn before_fork(py: Python<'_>) {
    py.detach(feast_online::before_fork);
}

#[pyfunction]
fn after_fork() {
    feast_online::after_fork();
}

#[pyfunction]
fn after_fork_in_child() {
    // The threads that were handing something over do not exist here.
    DELIVERING.store(0, Ordering::SeqCst);
    feast_online::after_fork();
}
