//! How much a registry server does at a time, and for how long.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::Response;
use axum::middleware::{Next, from_fn};
use feast_core::{Error, ErrorCode};
use tokio::sync::Semaphore;

/// Requests that are answered at a time; reading takes microseconds, and writers queue up at the store.
const MOST_REQUESTS: usize = 1024;
/// How long a request may take: longer than the longest wait for the lock of a registry.
const LONGEST: Duration = Duration::from_secs(120);

/// Lets a router answer only so many requests at a time, and each only for so long; `refuse` tells the others, in the
/// words of the protocol.
pub(super) fn limited(router: Router, refuse: fn(Error) -> Response<Body>) -> Router {
    let free = Arc::new(Semaphore::new(MOST_REQUESTS));
    router.layer(from_fn(move |request: Request, next: Next| {
        let free = Arc::clone(&free);
        async move { within(&free, LONGEST, next.run(request)).await.unwrap_or_else(refuse) }
    }))
}

async fn within<T>(free: &Semaphore, longest: Duration, answer: impl Future<Output = T>) -> Result<T, Error> {
    let _place = free.try_acquire().map_err(|_| {
        Error::unavailable("the registry server answers as many requests as it can").with_hint("try again in a moment")
    })?;
    tokio::time::timeout(longest, answer).await.map_err(|_| {
        let message = format!("the registry server found no answer in {} seconds", longest.as_secs());
        Error::new(ErrorCode::Timeout, message).with_hint("see in its log whether its registry can be reached")
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::future::{pending, ready};

    use feast_core::ErrorKind;

    use super::*;

    #[tokio::test]
    async fn a_request_too_many_and_one_too_long_are_told_so_and_others_are_answered() {
        let free = Semaphore::new(1);
        let kind = |answer: Result<(), Error>| answer.unwrap_err().kind();
        let stuck = within(&free, Duration::from_millis(1), pending::<()>());
        let (stuck, turned_away) = tokio::join!(stuck, within(&free, LONGEST, ready(())));
        assert_eq!((kind(stuck), kind(turned_away)), (ErrorKind::Timeout, ErrorKind::Unavailable));
        assert_eq!(within(&free, LONGEST, ready(7)).await.unwrap(), 7);
    }
}
