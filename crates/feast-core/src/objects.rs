//! The objects of one kind, by name, shared between the snapshots that have the same.

use std::cmp::Ordering;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use indexmap::IndexMap;

/// Objects by name, in an order. A clone shares them until one of the two is changed, so that a change of one object among
/// thousands leaves the other kinds, and every snapshot that somebody still holds, as they are.
#[derive(Debug)]
pub struct Objects<T>(Arc<IndexMap<String, Arc<T>>>);

impl<T> Objects<T> {
    /// Sorts. What is sorted already stays shared.
    pub fn sort_by(&mut self, compare: impl Fn(&str, &T, &str, &T) -> Ordering) {
        let mut pairs = self.0.iter().zip(self.0.iter().skip(1));
        if pairs.all(|((name, object), (next, after))| compare(name, object, next, after) != Ordering::Greater) {
            return;
        }
        Arc::make_mut(&mut self.0).sort_unstable_by(|name, object, other, after| compare(name, object, other, after));
    }

    /// Sorts by name.
    pub fn sort_by_name(&mut self) {
        self.sort_by(|name, _, other, _| name.cmp(other));
    }
}

impl<T> Default for Objects<T> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<T> Clone for Objects<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Deref for Objects<T> {
    type Target = IndexMap<String, Arc<T>>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl<T> DerefMut for Objects<T> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        Arc::make_mut(&mut self.0)
    }
}

impl<T> IntoIterator for Objects<T> {
    type Item = (String, Arc<T>);
    type IntoIter = indexmap::map::IntoIter<String, Arc<T>>;

    fn into_iter(self) -> Self::IntoIter {
        Arc::unwrap_or_clone(self.0).into_iter()
    }
}

impl<'a, T> IntoIterator for &'a Objects<T> {
    type Item = (&'a String, &'a Arc<T>);
    type IntoIter = indexmap::map::Iter<'a, String, Arc<T>>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

impl<T> FromIterator<(String, Arc<T>)> for Objects<T> {
    fn from_iter<I: IntoIterator<Item = (String, Arc<T>)>>(objects: I) -> Self {
        Self(Arc::new(objects.into_iter().collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn objects(names: &[&str]) -> Objects<usize> {
        names.iter().enumerate().map(|(position, name)| ((*name).to_owned(), Arc::new(position))).collect()
    }

    #[test]
    fn a_clone_is_shared_until_it_is_changed() {
        let before = objects(&["a", "b"]);
        let mut after = before.clone();
        assert!(std::ptr::eq(&*before, &*after));
        after.insert("c".to_owned(), Arc::new(2));
        assert_eq!((before.len(), after.len()), (2, 3));
    }

    #[test]
    fn sorting_what_is_sorted_changes_nothing() {
        let before = objects(&["a", "b"]);
        let mut after = before.clone();
        after.sort_by_name();
        assert!(std::ptr::eq(&*before, &*after));
        let mut mixed = objects(&["b", "a"]);
        mixed.sort_by_name();
        assert_eq!(mixed.keys().collect::<Vec<_>>(), ["a", "b"]);
    }
}
