//! Connections belong to the process that opened them.
//!
//! A forked child has copies of its parent's sockets, and of the tasks that serve them nothing: it must neither use
//! nor close them. So what holds connections is made anew in each process, and what was inherited is left alone.

use std::sync::Arc;

use arc_swap::ArcSwapOption;

/// A value made once in each process.
pub(super) struct PerProcess<T> {
    current: ArcSwapOption<(u32, T)>,
}

impl<T> Default for PerProcess<T> {
    fn default() -> Self {
        Self { current: ArcSwapOption::empty() }
    }
}

impl<T> PerProcess<T> {
    /// The value of this process. Two threads that ask first at the same time may both make one; one of them is kept.
    pub(super) fn get_or_make<E>(&self, make: impl FnOnce() -> Result<T, E>) -> Result<Arc<(u32, T)>, E> {
        let process = std::process::id();
        if let Some(current) = self.current.load_full().filter(|current| current.0 == process) {
            return Ok(current);
        }
        let made = Arc::new((process, make()?));
        if let Some(inherited) = self.current.swap(Some(Arc::clone(&made))).filter(|old| old.0 != process) {
            std::mem::forget(inherited);
        }
        Ok(made)
    }
}

impl<T> Drop for PerProcess<T> {
    fn drop(&mut self) {
        if let Some(inherited) = self.current.swap(None).filter(|old| old.0 != std::process::id()) {
            std::mem::forget(inherited);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_value_per_process() {
        let value = PerProcess::default();
        let first = value.get_or_make(|| Ok::<_, ()>(Arc::new(1)));
        assert_eq!(first.map(|made| *made.1), Ok(1));
        assert_eq!(value.get_or_make(|| Err(())).map(|made| *made.1), Ok(1));
        // As if another process had made it.
        let inherited = Arc::new(2);
        value.current.store(Some(Arc::new((0, Arc::clone(&inherited)))));
        assert_eq!(value.get_or_make(|| Ok::<_, ()>(Arc::new(3))).map(|made| *made.1), Ok(3));
        assert_eq!(Arc::strong_count(&inherited), 2, "what was inherited is not dropped");
    }
}
