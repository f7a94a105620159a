//! Batches that wait for their turn to be added to the same files: whoever gets the turn adds those of all.
//!
//! To add a batch is to write and to sync a file, however few its rows are. While that goes on, others arrive; one by one
//! they would take as long each.

use std::collections::HashMap;
use std::fmt;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow::array::RecordBatch;
use feast_core::{DataSource, Error, Result};

/// Bytes of rows that are added together; what is beyond waits for the next turn.
const MOST_BYTES: usize = 64 << 20;

/// The turns of a process. Copies are the same.
#[derive(Clone, Default)]
pub(crate) struct Turns(Arc<Mutex<HashMap<String, Arc<Place>>>>);

/// Files, as a source names them.
struct Place {
    source: DataSource,
    waiting: Mutex<Vec<Waiting>>,
    turn: Mutex<()>,
}

struct Waiting {
    rows: RecordBatch,
    answer: Arc<Answer>,
}

/// What became of a batch, once somebody has added it.
#[derive(Default)]
struct Answer(Mutex<Option<Result<u64>>>);

impl fmt::Debug for Turns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Turns")
    }
}

impl Turns {
    /// Adds a batch and says how many rows that were. `add` is called with all batches that wait, by one of those who
    /// brought them; it answers for each, or for none of them.
    pub(crate) fn append(
        &self,
        source: &DataSource,
        rows: RecordBatch,
        add: impl Fn(&[RecordBatch]) -> Result<Vec<Result<u64>>>,
    ) -> Result<u64> {
        let place = self.place(source);
        let answer = Arc::new(Answer::default());
        lock(&place.waiting).push(Waiting { rows, answer: Arc::clone(&answer) });
        let _turn = lock(&place.turn);
        loop {
            if let Some(done) = lock(&answer.0).take() {
                return done;
            }
            let (batches, answers) = place.take();
            if batches.is_empty() {
                return Err(Error::internal("whoever was to add the rows has not"));
            }
            match add(&batches) {
                Ok(added) => answers.iter().zip(added).for_each(|(answer, added)| answer.set(added)),
                Err(error) => answers.iter().for_each(|answer| answer.set(Err(copy(&error)))),
            }
        }
    }

    /// The place of a source; one that was declared anew has another.
    fn place(&self, source: &DataSource) -> Arc<Place> {
        let mut places = lock(&self.0);
        if let Some(place) = places.get(&source.name).filter(|place| place.source == *source) {
            return Arc::clone(place);
        }
        let place = Arc::new(Place { source: source.clone(), waiting: Mutex::default(), turn: Mutex::default() });
        places.insert(source.name.clone(), Arc::clone(&place));
        place
    }
}

impl Place {
    /// Those who came first, as many as go together.
    fn take(&self) -> (Vec<RecordBatch>, Vec<Arc<Answer>>) {
        let mut waiting = lock(&self.waiting);
        let mut bytes = 0;
        let fits = waiting.iter().take_while(|one| {
            bytes += one.rows.get_array_memory_size();
            bytes <= MOST_BYTES
        });
        let n_taken = fits.count().max(1);
        let rest = waiting.split_off(n_taken);
        let taken = mem::replace(&mut *waiting, rest);
        taken.into_iter().map(|one| (one.rows, one.answer)).unzip()
    }
}

impl Answer {
    fn set(&self, answer: Result<u64>) {
        *lock(&self.0) = Some(answer);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn copy(error: &Error) -> Error {
    Error::new(error.code(), error.to_string()).with_hint_opt(error.hint().map(str::to_owned))
}
