//! What somebody works out from a value that does not change, kept beside the value.

use std::any::Any;
use std::fmt;
use std::sync::{Arc, OnceLock};

/// A place for one thing that follows from the value it belongs to, so that it is worked out once and goes with it.
///
/// It is no part of the value: values are equal whatever is remembered, and a copy starts without it.
#[derive(Default)]
pub struct Memo(OnceLock<Arc<dyn Any + Send + Sync>>);

impl Memo {
    /// What is remembered, or else what `work_out` gives. Whoever comes second with something of another type works it
    /// out each time.
    ///
    /// # Errors
    /// Those of `work_out`, after which nothing is remembered.
    pub fn get<T: Send + Sync + 'static, E>(&self, work_out: impl FnOnce() -> Result<T, E>) -> Result<Arc<T>, E> {
        if let Some(known) = self.0.get().and_then(|known| Arc::clone(known).downcast().ok()) {
            return Ok(known);
        }
        let found = Arc::new(work_out()?);
        // Of two that work at the same time one is remembered.
        let _kept = self.0.set(Arc::clone(&found) as Arc<dyn Any + Send + Sync>);
        Ok(found)
    }
}

impl Clone for Memo {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl PartialEq for Memo {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Memo {}

impl fmt::Debug for Memo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Memo")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_thing_is_remembered() {
        let memo = Memo::default();
        assert_eq!(memo.get(|| Err::<u8, _>("no")), Err("no"));
        assert_eq!(memo.get(|| Ok::<_, ()>(1u8)), Ok(Arc::new(1)));
        assert_eq!(memo.get(|| Ok::<_, ()>(2u8)), Ok(Arc::new(1)));
        assert_eq!(memo.get(|| Ok::<_, ()>("other")), Ok(Arc::new("other")));
        assert_eq!(memo.clone().get(|| Ok::<_, ()>(3u8)), Ok(Arc::new(3)));
    }
}
