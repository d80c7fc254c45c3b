// SPDX-License-Identifier: Apache-2.0
//! Copy-on-write B+trees over pages: pure functions from a source, a root and input to answers, or to a new root.
//!
//! Owns      how trees are read, built, changed and checked.
//! Holds     1. a written node never changes: a change writes new nodes and releases those they replace;
//!           2. a step from parent to child lowers the level by one and never raises the birth, so no damage makes
//!              a walk endless;
//!           3. memory follows the height of the tree and the size of a node, not the number of entries.
//! Never     knows files, checkpoints, or what keys and values mean.

mod append;
mod build;
mod cursor;
mod items;
mod merge;
mod read;
mod relocate;
mod scrub;
mod verify;

use std::path::Path;
use std::sync::Arc;

pub use append::append;
pub use cursor::{Cursor, Entry};
pub use merge::{delete_sorted, merge};
pub(crate) use read::join_into;
pub use read::{ValueRef, get, weight};
pub use relocate::{Relocated, Tail, relocate};
pub use scrub::{Part, Scrubbed, scrub};
pub use verify::{Extent, ExtentKind, TreeStats, Visitor, survey, verify};

use crate::error::{Corruption, Error};
use crate::format::Fault;
use crate::page::{PAGE_BYTES, PageId};

/// What an entry weighs, for counting a range without walking it.
#[derive(Clone, Copy, Debug)]
pub enum Weight {
    /// Every entry weighs 1; values are never looked at.
    One,
    /// By key and value.
    Of(fn(&[u8], &[u8]) -> u64),
}

/// How large nodes get and when they are joined. Sizes are bytes of content, headers included.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shape {
    pub leaf_bytes: usize,
    pub branch_bytes: usize,
    /// What a bulk build fills a node to, in percent.
    pub fill: u8,
    /// A changed node below this share, in percent, is joined with a neighbour.
    pub join: u8,
}

impl Shape {
    /// Trees that grow at their right edge: full nodes, since nothing is ever put between.
    pub const fn append(leaf_pages: u16) -> Shape {
        Shape {
            leaf_bytes: leaf_pages as usize * PAGE_BYTES,
            branch_bytes: 4 * PAGE_BYTES,
            fill: 100,
            join: 60,
        }
    }

    /// Trees that are changed everywhere.
    pub const fn ordered(leaf_pages: u16) -> Shape {
        Shape {
            leaf_bytes: leaf_pages as usize * PAGE_BYTES,
            branch_bytes: 2 * PAGE_BYTES,
            fill: 85,
            join: 50,
        }
    }

    fn node_bytes(&self, level: u8) -> usize {
        if level == 0 { self.leaf_bytes } else { self.branch_bytes }
    }
}

/// What every function here needs to know besides the root.
#[derive(Clone, Debug)]
pub struct Ctx {
    /// Named in errors.
    pub file: Arc<Path>,
    /// Low bits of the file's uuid, in each header and each checksum.
    pub uuid: u64,
    /// Checkpoint that is being built, the birth of all nodes written; for a reader, the checkpoint it reads.
    pub seq: u64,
    pub tree: u8,
    pub shape: Shape,
    pub weight: Weight,
}

impl Ctx {
    fn weigh(&self, key: &[u8], value: &[u8]) -> u64 {
        match self.weight {
            Weight::One => 1,
            Weight::Of(weight) => weight(key, value),
        }
    }

    #[cold]
    fn corrupt(&self, extent: PageId, fault: Fault) -> Error {
        let offset = extent.byte_offset() + fault.at as u64;
        Corruption::new(&self.file, fault.what)
            .at(offset)
            .page(offset / PAGE_BYTES as u64)
            .tree(self.tree)
            .mismatch(fault.expected, fault.found)
            .into()
    }
}
