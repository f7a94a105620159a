//! Threads that answer connections, each with a runtime of its own.
//!
//! A small request is read, asked of the store and answered without a change of threads, and the store is asked together
//! for all requests that a thread has at the same time. What takes long runs elsewhere, on the runtime of the server: a
//! thread answers nobody else meanwhile.

use std::future::Future;
use std::io;
use std::panic::resume_unwind;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::thread;

use tokio::runtime::{Builder, Handle, RuntimeFlavor};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// As many threads as the runtime of the server has.
#[derive(Debug)]
pub(crate) struct Threads {
    threads: Vec<Thread>,
    stop: watch::Sender<()>,
}

#[derive(Debug)]
struct Thread {
    runtime: Handle,
    running: Option<thread::JoinHandle<()>>,
    /// One more is held by each connection.
    connections: Arc<()>,
}

/// A connection of a thread.
#[derive(Debug)]
pub(crate) struct Place(#[expect(dead_code, reason = "it counts as long as it is there")] Arc<()>);

impl Threads {
    /// Starts them; `None` on a runtime of one thread, which answers by itself.
    ///
    /// # Errors
    /// Those of the system.
    pub(crate) fn start() -> io::Result<Option<Self>> {
        let server = Handle::current();
        if server.runtime_flavor() == RuntimeFlavor::CurrentThread {
            return Ok(None);
        }
        let (stop, stopped) = watch::channel(());
        let start = |_| {
            let runtime = Builder::new_current_thread().enable_all().build()?;
            let mut stopped = stopped.clone();
            Ok(Thread {
                runtime: runtime.handle().clone(),
                running: Some(thread::Builder::new().name("feast-answer".to_owned()).spawn(move || {
                    // It changes when nobody can change it any more.
                    runtime.block_on(async { while stopped.changed().await.is_ok() {} });
                    runtime.shutdown_background();
                })?),
                connections: Arc::default(),
            })
        };
        let threads = (0..server.metrics().num_workers()).map(start).collect::<io::Result<_>>()?;
        Ok(Some(Self { threads, stop }))
    }

    /// Answers a connection where there are the fewest.
    pub(crate) fn spawn<F>(&self, answering: impl FnOnce(Place) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let thread = self.threads.iter().min_by_key(|thread| Arc::strong_count(&thread.connections));
        if let Some(thread) = thread {
            drop(thread.runtime.spawn(answering(Place(Arc::clone(&thread.connections)))));
        }
    }

    /// Ends them, with the connections that are left.
    pub(crate) async fn end(self) {
        let Self { threads, stop } = self;
        drop(stop);
        let join =
            move || threads.into_iter().filter_map(|thread| thread.running).try_for_each(thread::JoinHandle::join);
        if let Ok(Err(panic)) = tokio::task::spawn_blocking(join).await {
            resume_unwind(panic);
        }
    }
}

/// Runs work on another runtime. It ends with whoever waits for it, and its panic is theirs.
#[derive(Debug)]
pub(crate) struct Elsewhere<T>(JoinHandle<T>);

impl<T: Send + 'static> Elsewhere<T> {
    pub(crate) fn run(runtime: &Handle, work: impl Future<Output = T> + Send + 'static) -> Self {
        Self(runtime.spawn(work))
    }
}

impl<T> Future for Elsewhere<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        match ready!(Pin::new(&mut self.0).poll(context)) {
            Ok(done) => Poll::Ready(done),
            Err(error) => match error.try_into_panic() {
                Ok(panic) => resume_unwind(panic),
                // The runtime ends, and with it the process.
                Err(_) => Poll::Pending,
            },
        }
    }
}

impl<T> Drop for Elsewhere<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use futures::FutureExt as _;
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn one_thread_answers_by_itself() {
        assert!(Threads::start().unwrap().is_none());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn connections_are_spread_over_the_threads() {
        let threads = Threads::start().unwrap().unwrap();
        let mut names = Vec::new();
        for _ in 0..2 {
            let (tell, told) = oneshot::channel();
            threads.spawn(|place| async move {
                let _place = place;
                tell.send((Handle::current().id(), thread::current().name().map(str::to_owned))).unwrap();
                std::future::pending::<()>().await;
            });
            names.push(told.await.unwrap());
        }
        assert_ne!(names[0].0, names[1].0);
        assert!(names.iter().all(|(_, name)| name.as_deref() == Some("feast-answer")));
        threads.end().await;
    }

    #[tokio::test]
    async fn work_elsewhere_ends_with_who_waits_for_it() {
        let (alive, dropped) = oneshot::channel::<()>();
        let waiting = Elsewhere::run(&Handle::current(), async move {
            let _alive = alive;
            std::future::pending::<()>().await;
        });
        drop(waiting);
        assert!(dropped.await.is_err());
        let panics = Elsewhere::run(&Handle::current(), async { panic!("a defect") });
        assert!(std::panic::AssertUnwindSafe(panics).catch_unwind().await.is_err());
        assert_eq!(Elsewhere::run(&Handle::current(), async { 7 }).await, 7);
    }
}
