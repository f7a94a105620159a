//! Work that is done by one at a time, and by whoever's turn it is for all who wait.
//!
//! To write a few rows often costs as much as to write many: a transaction, a file that is synced. While somebody does
//! that, others arrive; one by one they would take as long each.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What waits to be done together: items of `T`, each of which gets an `R`.
pub struct Turns<T, R> {
    waiting: Mutex<Vec<Waiting<T, R>>>,
    turn: Mutex<()>,
    most: usize,
}

/// Where what came of an item is left.
type Answer<R> = Arc<Mutex<Option<R>>>;

struct Waiting<T, R> {
    item: T,
    size: usize,
    answer: Answer<R>,
}

impl<T, R> fmt::Debug for Turns<T, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Turns").field("most", &self.most).finish_non_exhaustive()
    }
}

impl<T, R> Turns<T, R> {
    /// Turns in which items of together at most this size are taken. One that is larger is taken alone.
    pub fn new(most: usize) -> Self {
        Self { waiting: Mutex::default(), turn: Mutex::default(), most }
    }

    /// Waits for the turn, unless somebody else does the work before, and returns what came of the item. `work` is given
    /// the items that came first, and answers for each of them, in order.
    ///
    /// Blocks the thread. Nothing is returned when whoever was to do the work has panicked.
    pub fn run(&self, item: T, size: usize, work: impl Fn(Vec<T>) -> Vec<R>) -> Option<R> {
        let answer = Arc::new(Mutex::new(None));
        lock(&self.waiting).push(Waiting { item, size, answer: Arc::clone(&answer) });
        let _turn = lock(&self.turn);
        loop {
            if let Some(done) = lock(&answer).take() {
                return Some(done);
            }
            let (items, answers) = self.take();
            if items.is_empty() {
                return None;
            }
            for (answer, result) in answers.iter().zip(work(items)) {
                *lock(answer) = Some(result);
            }
        }
    }

    fn take(&self) -> (Vec<T>, Vec<Answer<R>>) {
        let mut waiting = lock(&self.waiting);
        let mut size = 0;
        let fitting = waiting.iter().take_while(|one| {
            size += one.size;
            size <= self.most
        });
        let n_taken = fitting.count().max(1).min(waiting.len());
        waiting.drain(..n_taken).map(|one| (one.item, one.answer)).unzip()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn who_waits_is_done_along_and_gets_his_own() {
        let turns = Turns::new(10);
        let (begun, begins) = mpsc::channel();
        let (go, goes) = mpsc::channel();
        let goes = Mutex::new(goes);
        let most = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                turns.run(0, 1, |items| {
                    begun.send(()).unwrap();
                    goes.lock().unwrap().recv().unwrap();
                    items
                })
            });
            begins.recv().unwrap();
            let others: Vec<_> = (1..=25)
                .map(|number| {
                    let (turns, most) = (&turns, &most);
                    scope.spawn(move || {
                        turns.run(number, 1, |items| {
                            most.fetch_max(items.len(), Ordering::Relaxed);
                            items.iter().map(|item| item * 2).collect()
                        })
                    })
                })
                .collect();
            while lock(&turns.waiting).len() < 25 {
                std::thread::yield_now();
            }
            go.send(()).unwrap();
            let doubled: Vec<i32> = others.into_iter().map(|one| one.join().unwrap().unwrap()).collect();
            assert_eq!(doubled, (1..=25).map(|number| number * 2).collect::<Vec<_>>());
        });
        assert_eq!(most.into_inner(), 10);
    }

    #[test]
    fn what_is_large_goes_alone() {
        let turns = Turns::new(10);
        assert_eq!(turns.run("large", 1000, |items| items), Some("large"));
    }
}
