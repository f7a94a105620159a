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

/// The attempts of one call.
pub(super) struct Attempts {
    most: u32,
    limit: Duration,
    deadline: Instant,
    made: u32,
}

impl Attempts {
    /// All attempts together take no longer than `limit`.
    pub(super) fn within(limit: Duration) -> Self {
        Self::at_most(MOST_ATTEMPTS, limit)
    }

    /// The same with another number of attempts.
    pub(super) fn at_most(most: u32, limit: Duration) -> Self {
        Self { most, limit, deadline: Instant::now() + limit, made: 0 }
    }

    /// One attempt.
    pub(super) async fn run<T>(
        &mut self,
        store: &(dyn std::fmt::Display + Sync),
        call: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        self.made += 1;
        timeout_at(self.deadline, call).await.unwrap_or_else(|_| {
            let message = format!("the online store did not answer within {} s", self.limit.as_secs());
            Err(Failure::from(
                Error::new(ErrorCode::Timeout, message)
                    .with_context("online store", store)
                    .with_hint("see whether the server is overloaded, or the network slow"),
            ))
        })
    }

    /// Waits for a random time before the next attempt, so that many clients do not come back at once.
    ///
    /// # Errors
    /// The failure, where a further attempt would not help or there is no time for it.
    pub(super) async fn pause(&self, failure: Failure) -> Result<()> {
        let longest = FIRST_PAUSE * 2u32.pow(self.made.saturating_sub(1).min(16));
        let pause = longest.mul_f64(0.5 + 0.5 * random());
        if !failure.transient || self.made >= self.most || Instant::now() + pause >= self.deadline {
            return Err(failure.error);
        }
        tracing::debug!(error = %failure.error, attempt = self.made, "trying again");
        sleep(pause).await;
        Ok(())
    }
}

/// Any number from 0 to 1. Each `RandomState` has keys of its own.
fn random() -> f64 {
    RandomState::new().build_hasher().finish() as f64 / u64::MAX as f64
}
