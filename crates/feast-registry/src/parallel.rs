//! The same work on many things, on all processors.

use std::num::NonZero;
use std::thread;

use feast_core::{Error, Result};

/// Fewer things than this are not worth a thread.
const WORTH_A_THREAD: usize = 256;

/// What `work` makes of each item, in their order. Blocks until all is done.
///
/// # Errors
/// The first one of `work`.
pub(crate) fn map_in_parallel<T: Send, R: Send>(items: Vec<T>, work: impl Fn(T) -> Result<R> + Sync) -> Result<Vec<R>> {
    let processors = thread::available_parallelism().map_or(1, NonZero::get);
    let n_threads = processors.min(items.len() / WORTH_A_THREAD);
    if n_threads < 2 {
        return items.into_iter().map(work).collect();
    }
    let share = items.len().div_ceil(n_threads);
    let mut items = items.into_iter();
    thread::scope(|scope| {
        let shares: Vec<_> = (0..n_threads)
            .map(|_| {
                let items: Vec<T> = items.by_ref().take(share).collect();
                scope.spawn(|| items.into_iter().map(&work).collect::<Result<Vec<R>>>())
            })
            .collect();
        let mut made = Vec::with_capacity(share * n_threads);
        for share in shares {
            let share = share.join().map_err(|_| Error::internal("reading a registry panicked"))?;
            made.extend(share?);
        }
        Ok(made)
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn everything_is_done_once_and_in_order() {
        for n_items in [0, 1, 255, 512, 1_001, 5_000] {
            let items: Vec<usize> = (0..n_items).collect();
            assert_eq!(map_in_parallel(items.clone(), Ok).unwrap(), items);
        }
    }

    #[test]
    fn the_first_error_is_told() {
        let odd = |number: usize| {
            if number < 700 { Ok(number) } else { Err(Error::internal(number.to_string())) }
        };
        assert_eq!(map_in_parallel((0..5_000).collect(), odd).unwrap_err().message(), "700");
    }
}
