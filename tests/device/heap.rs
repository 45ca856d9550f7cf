//! What a call takes from the heap. It is counted for each thread apart: other tests run beside.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};

/// The system's allocator, which counts what each thread asks for.
struct Counting;

#[derive(Clone, Copy)]
struct Counts {
    allocations: usize,
    /// Bytes taken and not yet given back. What another thread gives back is not counted here.
    used: isize,
    most: isize,
}

thread_local! {
    static COUNTS: Cell<Counts> = const { Cell::new(Counts { allocations: 0, used: 0, most: 0 }) };
}

fn change(allocations: usize, bytes: isize) {
    // A thread that ends has no counts any more.
    let _ = COUNTS.try_with(|counts| {
        let Counts { allocations: before, used, most } = counts.get();
        let used = used + bytes;
        counts.set(Counts { allocations: before + allocations, used, most: most.max(used) });
    });
}

// SAFETY: every request goes to the system's allocator as it is; only numbers are kept beside it, in a cell that needs no heap.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        change(1, layout.size() as isize);
        // SAFETY: the caller keeps the rules of `GlobalAlloc::alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        change(0, -(layout.size() as isize));
        // SAFETY: `memory` is from `alloc` above, so from the system's allocator, with this layout.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// How many times `call` asks the heap for memory, and what it gives.
pub(crate) fn allocations<T>(call: impl FnOnce() -> T) -> (usize, T) {
    let before = COUNTS.get().allocations;
    let value = call();
    (COUNTS.get().allocations - before, value)
}

/// The most bytes that are in use during `call` beyond those before, and what it gives.
pub(crate) fn most<T>(call: impl FnOnce() -> T) -> (usize, T) {
    let before = COUNTS.get();
    COUNTS.set(Counts { most: before.used, ..before });
    let value = call();
    ((COUNTS.get().most - before.used) as usize, value)
}
