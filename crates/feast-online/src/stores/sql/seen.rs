//! What was seen of tables, until something tells that they have changed.

use std::sync::{Mutex, MutexGuard, PoisonError};

use hashbrown::HashMap;

/// Facts about tables, by their names.
#[derive(Debug)]
pub(in super::super) struct Seen<T>(Mutex<HashMap<String, T>>);

impl<T> Default for Seen<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Clone> Seen<T> {
    pub(in super::super) fn get(&self, table: &str) -> Option<T> {
        self.facts().get(table).cloned()
    }

    pub(in super::super) fn keep(&self, table: String, fact: T) {
        self.facts().insert(table, fact);
    }

    pub(in super::super) fn forget(&self, table: &str) {
        self.facts().remove(table);
    }

    pub(in super::super) fn forget_all(&self) {
        self.facts().clear();
    }

    fn facts(&self) -> MutexGuard<'_, HashMap<String, T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
