// SPDX-License-Identifier: Apache-2.0
//! The allocator of this test: the system's, with a count of what each thread asked it for, and the largest of it.
//!
//! Owns      the counts.
//! Holds     a thread's count is of its own calls alone, so that tests that run at once do not disturb each other.
//! Never     changes what the system's allocator does.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

pub struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
    static LARGEST: Cell<usize> = const { Cell::new(0) };
}

/// Allocations of this thread so far; one that grows in place counts too.
pub fn allocations() -> u64 {
    ALLOCATIONS.with(Cell::get)
}

/// The most bytes that this thread asked for in one call since the last time it was asked this.
pub fn take_largest() -> usize {
    LARGEST.with(|largest| largest.replace(0))
}

fn count(bytes: usize) {
    // A thread that is ending has no count any more.
    ALLOCATIONS.try_with(|n| n.set(n.get() + 1)).ok();
    LARGEST.try_with(|largest| largest.set(largest.get().max(bytes))).ok();
}

// SAFETY: all calls are passed to the system's allocator unchanged, and the count needs no memory of its own.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller keeps `alloc`'s contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller keeps `alloc_zeroed`'s contract.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size);
        // SAFETY: the caller keeps `realloc`'s contract, and `block` came from the system's allocator.
        unsafe { System.realloc(block, layout, size) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps `dealloc`'s contract, and `block` came from the system's allocator.
        unsafe { System.dealloc(block, layout) }
    }
}
