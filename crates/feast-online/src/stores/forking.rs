//! Files that must not be open when the process forks.
//!
//! SQLite keeps in memory which file locks the process holds. The system does not give those locks to a child, while
//! the memory is copied: a child that finds its parent's connections believes in locks that it does not have. So
//! whoever forks calls [`before_fork`], which lets work that is under way finish, holds back new work and closes idle
//! connections; then [`after_fork`] in parent and child, which lets work go on. Connections open again when they are
//! needed.

use std::cell::RefCell;
use std::sync::{Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, Weak};

/// What closes its idle connections before a fork.
pub(crate) trait CloseIdle: Send + Sync {
    fn close_idle(&self);
}

// Global because a fork concerns the whole process, whoever made the stores in it.
static GATE: RwLock<()> = RwLock::new(());
static STORES: Mutex<Vec<Weak<dyn CloseIdle>>> = Mutex::new(Vec::new());

thread_local! {
    static HELD: RefCell<Option<RwLockWriteGuard<'static, ()>>> = const { RefCell::new(None) };
}

/// Has a store close its idle connections before each fork.
pub(crate) fn register(store: Weak<dyn CloseIdle>) {
    let mut stores = STORES.lock().unwrap_or_else(PoisonError::into_inner);
    stores.retain(|store| store.strong_count() > 0);
    stores.push(store);
}

/// Holds back forks while it lives: taken for each piece of work with a connection.
pub(crate) fn working() -> RwLockReadGuard<'static, ()> {
    GATE.read().unwrap_or_else(PoisonError::into_inner)
}

/// Waits for work with embedded stores, holds back new work, and closes idle connections. Call it right before a fork,
/// on the thread that forks, and [`after_fork`] on the same thread in both processes.
pub fn before_fork() {
    let gate = GATE.write().unwrap_or_else(PoisonError::into_inner);
    for store in STORES.lock().unwrap_or_else(PoisonError::into_inner).iter().filter_map(Weak::upgrade) {
        store.close_idle();
    }
    HELD.with_borrow_mut(|held| *held = Some(gate));
}

/// Lets work go on after a fork, or after a fork that failed.
pub fn after_fork() {
    HELD.with_borrow_mut(Option::take);
}
