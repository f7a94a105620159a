//! Work that must not stop in the middle, done by whoever waits for it.

use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::runtime::Handle;

/// Work of one task that another takes over when nobody waits for it any more.
pub(crate) struct ToItsEnd<F: Future<Output = ()> + Send + 'static>(Option<Pin<Box<F>>>);

impl<F: Future<Output = ()> + Send + 'static> ToItsEnd<F> {
    pub(crate) fn of(work: F) -> Self {
        Self(Some(Box::pin(work)))
    }
}

impl<F: Future<Output = ()> + Send + 'static> Future for ToItsEnd<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let Some(work) = &mut self.0 else { return Poll::Ready(()) };
        let done = work.as_mut().poll(context);
        if done.is_ready() {
            self.0 = None;
        }
        done
    }
}

impl<F: Future<Output = ()> + Send + 'static> Drop for ToItsEnd<F> {
    fn drop(&mut self) {
        if let (Some(rest), Ok(runtime)) = (self.0.take(), Handle::try_current()) {
            runtime.spawn(rest);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn work_is_finished_by_somebody() {
        let (finish, finished) = oneshot::channel();
        let (done, told) = oneshot::channel();
        let mut work = ToItsEnd::of(async move {
            finished.await.unwrap();
            done.send(()).unwrap();
        });
        assert!(futures::poll!(&mut work).is_pending());
        drop(work);
        finish.send(()).unwrap();
        told.await.unwrap();
        ToItsEnd::of(async {}).await;
    }
}
