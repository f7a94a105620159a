//! Where Rust's memory comes from, in the program and in the Python module; Python and its libraries keep their own.
//!
//! A join allocates buffers of some hundred megabytes and lets go of them again. The system's allocator hands each back to
//! the kernel, which clears every page before it gives it out anew; mimalloc keeps them for the next buffer.

#![expect(unsafe_code, reason = "an allocator cannot be named without")]

use std::alloc::{GlobalAlloc, Layout};
use std::sync::atomic::{AtomicBool, Ordering};

use libmimalloc_sys::{mi_option_set_default, mi_option_t};
use mimalloc::MiMalloc;

#[global_allocator]
static ALLOCATOR: Allocator = Allocator { is_prepared: AtomicBool::new(false) };

/// mimalloc with settings of ours, which `MIMALLOC_…` variables go before.
struct Allocator {
    is_prepared: AtomicBool,
}

/// `mi_option_arena_eager_commit` of `mimalloc.h`; the crate names the stable options only.
const ARENA_EAGER_COMMIT: mi_option_t = 4;

impl Allocator {
    /// Has to happen before the first allocation, and nothing else in a module runs that early.
    fn prepare(&self) {
        if self.is_prepared.load(Ordering::Relaxed) {
            return;
        }
        // SAFETY: sets a number; several threads may do it at once.
        unsafe {
            // Whole arenas would be asked for as huge pages, and clearing those costs a third of a join; they would also
            // count towards the memory that workers may have.
            mi_option_set_default(ARENA_EAGER_COMMIT, 0);
        }
        self.is_prepared.store(true, Ordering::Relaxed);
    }
}

// SAFETY: all is done by `MiMalloc`, to which the same rules apply.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.prepare();
        unsafe { MiMalloc.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        self.prepare();
        unsafe { MiMalloc.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        unsafe { MiMalloc.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        unsafe { MiMalloc.realloc(memory, layout, size) }
    }
}
