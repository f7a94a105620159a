//! Batches that wait for their turn to be added to the same files: whoever gets the turn adds those of all.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use feast_core::{DataSource, Error, Result, Turns};

use crate::append::Taken;

/// How long nobody looks again what files ask of rows. Whoever adds the rows looks again anyhow.
const KNOWN_FOR: Duration = Duration::from_secs(1);
/// Bytes of rows that are added together.
const MOST_BYTES: usize = 64 << 20;

/// The turns of a process, for the files of each source. Copies are the same.
#[derive(Clone, Default)]
pub(crate) struct AppendTurns(Arc<Mutex<HashMap<String, Arc<Place>>>>);

/// Files, as a source names them.
struct Place {
    source: DataSource,
    turns: Turns<RecordBatch, Result<u64>>,
    /// What the files ask of rows, and when somebody looked.
    known: Mutex<Option<(Instant, Taken)>>,
}

impl fmt::Debug for AppendTurns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AppendTurns")
    }
}

impl AppendTurns {
    /// Adds a batch and says how many rows that were. `add` is called with all batches that wait, by one of those who
    /// brought them; it answers for each, or with one error for all.
    pub(crate) fn append(
        &self,
        source: &DataSource,
        rows: RecordBatch,
        add: impl Fn(&[RecordBatch]) -> Result<Vec<Result<u64>>>,
    ) -> Result<u64> {
        let size = rows.get_array_memory_size();
        let added = self.place(source).turns.run(rows, size, |batches| match add(&batches) {
            Ok(added) => added,
            Err(error) => batches.iter().map(|_| Err(copy(&error))).collect(),
        });
        added.unwrap_or_else(|| Err(Error::internal("whoever was to add the rows has not")))
    }

    /// What the files of a source ask of rows, if somebody has just looked.
    pub(crate) fn known(&self, source: &DataSource) -> Option<Taken> {
        let known = self.place(source);
        let known = known.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.as_ref().filter(|(since, _)| since.elapsed() < KNOWN_FOR).map(|(_, taken)| taken.clone())
    }

    pub(crate) fn know(&self, source: &DataSource, taken: Taken) {
        let place = self.place(source);
        *place.known.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), taken));
    }

    /// The place of a source; one that was declared anew has another.
    fn place(&self, source: &DataSource) -> Arc<Place> {
        let mut places = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = places.get(&source.name).filter(|place| place.source == *source) {
            return Arc::clone(place);
        }
        let place = Arc::new(Place { source: source.clone(), turns: Turns::new(MOST_BYTES), known: Mutex::default() });
        places.insert(source.name.clone(), Arc::clone(&place));
        place
    }
}

fn copy(error: &Error) -> Error {
    Error::new(error.code(), error.to_string()).with_hint_opt(error.hint().map(str::to_owned))
}
