// SPDX-License-Identifier: Apache-2.0
//! What puts, reads and upkeep cost, counted: bytes, syncs, pages, checksums and allocations, each with a bound; and
//! what a log with absurd numbers in it costs.

mod alloc;
mod huge;
mod log;
mod member;
mod puts;
mod reads;

#[global_allocator]
static ALLOCATOR: alloc::Counting = alloc::Counting;
