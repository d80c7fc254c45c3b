// SPDX-License-Identifier: Apache-2.0
//! The trees of the store.
//!
//! Owns      their ids, names, leaf sizes and weights.
//! Holds     ids are part of the file format and are never given to another tree.
//! Never     says what the small trees hold: their owner does.

use cairn_engine::{Schema, TreeDef, TreeKind};

use crate::cell;

fn one(_: &[u8], _: &[u8]) -> u64 {
    1
}

/// Revision → the pair written there, or the tombstone.
pub(crate) const REV: TreeDef =
    TreeDef { id: 1, name: "rev", kind: TreeKind::Append, leaf_pages: 8, weight: one };
/// Revision → which key changed and how, without the value.
pub(crate) const HIST: TreeDef =
    TreeDef { id: 2, name: "hist", kind: TreeKind::Append, leaf_pages: 8, weight: one };
/// Key → its newest revisions. Weighs one if the key lives.
pub(crate) const IDX: TreeDef =
    TreeDef { id: 3, name: "idx", kind: TreeKind::Ordered, leaf_pages: 2, weight: cell::weight };
/// Lease and key → nothing.
pub(crate) const ATTACH: TreeDef =
    TreeDef { id: 4, name: "attach", kind: TreeKind::Ordered, leaf_pages: 1, weight: one };
const LEASE: TreeDef = TreeDef { id: 5, name: "lease", kind: TreeKind::Ordered, leaf_pages: 1, weight: one };
const ALARM: TreeDef = TreeDef { id: 6, name: "alarm", kind: TreeKind::Ordered, leaf_pages: 1, weight: one };
const MEMBER: TreeDef =
    TreeDef { id: 7, name: "member", kind: TreeKind::Ordered, leaf_pages: 1, weight: one };
const AUTH: TreeDef = TreeDef { id: 8, name: "auth", kind: TreeKind::Ordered, leaf_pages: 1, weight: one };
const META: TreeDef = TreeDef { id: 9, name: "meta", kind: TreeKind::Ordered, leaf_pages: 1, weight: one };

/// The schema a store's [`Db`](cairn_engine::Db) is made and opened with.
pub const SCHEMA: Schema = &[REV, HIST, IDX, ATTACH, LEASE, ALARM, MEMBER, AUTH, META];

/// Small ordered trees whose content is the caller's, written in the same transactions.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum SmallTree {
    Lease,
    Alarm,
    Member,
    Auth,
    Meta,
}

impl SmallTree {
    pub(crate) fn def(self) -> &'static TreeDef {
        match self {
            SmallTree::Lease => &LEASE,
            SmallTree::Alarm => &ALARM,
            SmallTree::Member => &MEMBER,
            SmallTree::Auth => &AUTH,
            SmallTree::Meta => &META,
        }
    }
}
