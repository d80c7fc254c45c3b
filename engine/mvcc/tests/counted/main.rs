// SPDX-License-Identifier: Apache-2.0
//! What puts, reads and upkeep cost, counted: bytes, syncs, pages, checksums and allocations, each with a bound.

mod alloc;
mod huge;
mod member;
mod puts;
mod reads;

#[global_allocator]
static ALLOCATOR: alloc::Counting = alloc::Counting;
