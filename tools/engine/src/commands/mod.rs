// SPDX-License-Identifier: Apache-2.0
//! The commands, one file each.
//!
//! Owns      what several of them share: the files of the machine, and the trees that a store has.
//! Never     reads a flag that `cli` does not have.

pub mod check;
mod damage;
pub mod dump;
mod follow;
pub mod get;
pub mod info;
mod log;
mod pair;
pub mod stats;
pub mod wal;

use std::sync::Arc;

use cairn_engine::io::{StdVfs, Vfs};
use cairn_engine::{TreeKind, page};

/// Bytes of a page.
const PAGE: u64 = page::PAGE_BYTES as u64;

fn vfs() -> Arc<dyn Vfs> {
    Arc::new(StdVfs)
}

/// A tree's kind in one word.
fn kind(kind: TreeKind) -> &'static str {
    match kind {
        TreeKind::Append => "append",
        TreeKind::Ordered => "ordered",
    }
}
