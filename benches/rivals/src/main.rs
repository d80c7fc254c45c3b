// SPDX-License-Identifier: Apache-2.0
//! The engine beside nothing but the floors, and bbolt where it is built: what tests run, and profiles.
//!
//! Owns      nothing.
//! Holds     memory comes from the allocator that the daemon uses.
//! Never     knows a rival.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    cairn_rivals::main(&[])
}
