// SPDX-License-Identifier: Apache-2.0
//! The commands, one file each.
//!
//! Owns      what several of them share: the files of the machine, and the trees that a store has.
//! Never     reads a flag that `cli` does not have.

pub mod backup;
pub mod bench;
pub mod check;
mod damage;
pub mod defrag;
pub mod dump;
pub mod export;
mod follow;
pub mod get;
pub mod import;
pub mod info;
mod log;
pub mod map;
pub mod page;
pub mod pages;
mod pair;
mod picture;
pub mod scrub;
pub mod stats;
pub mod surgery;
pub mod wal;

use std::sync::Arc;

use cairn_core::state::members::REMOVED;
use cairn_engine::inspect::Store;
use cairn_engine::io::{StdVfs, Vfs};
use cairn_engine::page::PAGE_BYTES;
use cairn_engine::tree::ExtentKind;
use cairn_engine::{TreeDef, TreeKind};
use cairn_mvcc::{SCHEMA, SmallTree, Stored};
use serde::Serialize;

use crate::outcome::{Failure, Outcome};

/// A checkpoint, and the revisions of what it holds.
#[derive(Serialize, Clone, Copy, Debug)]
struct CheckpointReport {
    seq: u64,
    applied_index: u64,
    applied_term: u64,
    revision: i64,
    compact_revision: i64,
}

impl CheckpointReport {
    fn of(store: &Store) -> Outcome<CheckpointReport> {
        let stored = Stored::new(store.view()).map_err(|error| store.judge(error))?;
        let slot = store.slot();
        Ok(CheckpointReport {
            seq: slot.seq,
            applied_index: slot.meta.applied_index,
            applied_term: slot.meta.applied_term,
            revision: stored.revision(),
            compact_revision: stored.compact_revision(),
        })
    }
}

/// The ids of the members that a store knows of.
fn members_of(store: &Store) -> Outcome<Vec<u64>> {
    let stored = Stored::new(store.view()).map_err(|error| store.judge(error))?;
    let members = stored.small_scan(SmallTree::Member).map_err(|error| store.judge(error))?;
    // One that was removed is remembered under its id.
    let members = members.into_iter().filter(|(_, value)| &value[..] != REMOVED);
    Ok(members.filter_map(|(key, _)| Some(u64::from_be_bytes(*key.first_chunk()?))).collect())
}

/// A member of a cluster that comes back under its id without all that it had promised breaks the cluster's own
/// promises.
fn refuse_one_of_several(members: usize, what: &str) -> Outcome<()> {
    if members <= 1 {
        return Ok(());
    }
    Err(Failure::Unable(format!(
        "it is one of {members} members of a cluster, and may have voted and acknowledged what it would not know any \
         more: do not {what}, but remove it and add a new member"
    )))
}

/// Bytes of a page.
const PAGE: u64 = PAGE_BYTES as u64;

pub(crate) fn vfs() -> Arc<dyn Vfs> {
    Arc::new(StdVfs)
}

/// What an extent is, in one word.
fn extent_kind(kind: ExtentKind) -> &'static str {
    match kind {
        ExtentKind::Leaf => "leaf",
        ExtentKind::Branch => "branch",
        ExtentKind::Blob => "blob",
    }
}

/// The tree of that name.
fn tree_named(name: &str) -> Outcome<&'static TreeDef> {
    SCHEMA.iter().find(|tree| tree.name == name).ok_or_else(|| {
        let names: Vec<&str> = SCHEMA.iter().map(|tree| tree.name).collect();
        Failure::Usage(format!("there is no tree {name:?}; there are {}", names.join(", ")))
    })
}

/// A tree's kind in one word.
fn kind(kind: TreeKind) -> &'static str {
    match kind {
        TreeKind::Append => "append",
        TreeKind::Ordered => "ordered",
    }
}
