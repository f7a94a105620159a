//! Calls to servers: each has a deadline, and is made again a few times when that can help.

use std::future::Future;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

use feast_core::{Error, ErrorCode, Result};
use tokio::time::{Instant, sleep, timeout_at};

/// How often a call is made at most, unless its store says another number.
const MOST_ATTEMPTS: u32 = 4;

/// The longest pause before the second attempt; it doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// A call that failed, and whether the same call may succeed soon.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) error: Error,
    pub(super) transient: bool,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { error, transient: false }
    }
}

/// How a call is made: how often at most, and how long all attempts may take together.
pub(super) struct Attempts {
    most: u32,
    limit: Duration,
}

impl Attempts {
    /// All attempts together take no longer than `limit`.
    pub(super) fn within(limit: Duration) -> Self {
        Self::at_most(MOST_ATTEMPTS, limit)
    }

    /// The same with another number of attempts.
    pub(super) fn at_most(most: u32, limit: Duration) -> Self {
        Self { most, limit }
    }

    /// Makes a call until it succeeds, cannot succeed, or time or attempts are used up.
    ///
    /// # Errors
    /// Those of the last attempt; `Timeout` where it was cut off.
    pub(super) async fn call<T, F>(
        self,
        store: &(dyn std::fmt::Display + Sync),
        mut attempt: impl FnMut() -> F,
    ) -> Result<T>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        let deadline = Instant::now() + self.limit;
        let mut made = 0;
        loop {
            made += 1;
            let answer = timeout_at(deadline, Box::pin(attempt())).await;
            let failure = match answer.unwrap_or_else(|_| Err(self.too_slow(store))) {
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            let pause = pause_after(made);
            if !failure.transient || made >= self.most || Instant::now() + pause >= deadline {
                return Err(failure.error);
            }
            tracing::debug!(error = %failure.error, attempt = made, "trying again");
            sleep(pause).await;
        }
    }

    fn too_slow(&self, store: &(dyn std::fmt::Display + Sync)) -> Failure {
        let message = format!("the online store did not answer within {} s", self.limit.as_secs());
        Failure::from(
            Error::new(ErrorCode::Timeout, message)
                .with_context("online store", store)
                .with_hint("see whether the server is overloaded, or the network slow"),
        )
    }
}

/// A random time that grows with the attempts made, so that many clients do not come back at once.
fn pause_after(attempts: u32) -> Duration {
    let longest = FIRST_PAUSE * 2u32.pow(attempts.saturating_sub(1).min(16));
    longest.mul_f64(0.5 + 0.5 * random())
}

/// Any number from 0 to 1. Each `RandomState` has keys of its own.
fn random() -> f64 {
    RandomState::new().build_hasher().finish() as f64 / u64::MAX as f64
}
