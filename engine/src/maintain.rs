// SPDX-License-Identifier: Apache-2.0
//! Upkeep: purges, tidying while idle, holes for what is free, and the check of the whole file.
//!
//! Owns      what an owner asks for beside reads, writes and checkpoints.
//! Holds     1. a purge is worked off by the checkpoints after the commit it names, so many bytes at a time;
//!           2. the file is punched only where neither a checkpoint that a crash could bring back nor a reader
//!              has a page.
//! Never     runs by itself.

use std::sync::Arc;

use crate::checkpoint::Checkpointer;
use crate::db::Db;
use crate::error::{Corruption, Result};
use crate::fold::{Purge, PurgeRequest};
use crate::io::{Budget, Progress};
use crate::options::Options;
use crate::page::PAGE_BYTES;
use crate::schema::{TreeDef, TreeKind};
use crate::space::HoleRule;
use crate::tree::{self, TreeStats};
use crate::view::Seq;

/// What a check of the whole file found.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Verified {
    /// The checkpoint that was checked.
    pub seq: u64,
    /// By place in the schema.
    pub trees: Vec<TreeStats>,
    /// Pages that the trees reach, which are the pages that the space map has as used.
    pub pages: u64,
}

impl Checkpointer {
    fn punch(&mut self, options: &Options, now_ms: u64, budget: Budget) -> Result<Progress> {
        self.file.healthy()?;
        if now_ms < self.punch_from_ms {
            return Ok(Progress::Done);
        }
        let pages = options.punch_bytes.div_ceil(PAGE_BYTES as u64).max(1);
        let rule = HoleRule { pages, after_ms: options.punch_after_ms };
        let mut left = budget.bytes;
        while let Some((start, n)) = self.space.next_hole(now_ms, rule) {
            if left == 0 {
                return Ok(Progress::More);
            }
            if !self.file.punch(start, n)? {
                self.punch_from_ms = now_ms + options.punch_after_ms;
                break;
            }
            self.space.punched(start, n);
            left = left.saturating_sub(n * PAGE_BYTES as u64);
        }
        Ok(Progress::Done)
    }
}

impl Db {
    /// Deletes keys of an append tree past the overlay, once commit `after` is in a checkpoint: nobody may
    /// read them any more. Lost in a crash until a checkpoint has done it, so its owner must be able to
    /// ask again.
    pub fn purge(&self, tree: &TreeDef, request: PurgeRequest, after: Seq) {
        let inner = self.inner();
        let place = inner.trees().place_of_kind(tree, TreeKind::Append);
        inner.add_purge(Purge { place, request: Arc::new(request), after });
    }

    /// Purges that wait for a checkpoint.
    pub fn purges_waiting(&self) -> usize {
        self.inner().purges_waiting()
    }

    /// Whether an idle store should make a checkpoint: a purge waits, the file is being made smaller, or more
    /// space than [`Options::tidy_bytes`](crate::Options::tidy_bytes) is given back only by later checkpoints,
    /// of which there are at most three in a row.
    pub fn tidy_due(&self) -> bool {
        let inner = self.inner();
        !inner.has_work() && (inner.purge_ready(inner.frozen_seq()) || inner.is_untidy())
    }

    /// Gives free extents that stayed so for [`Options::punch_after_ms`](crate::Options::punch_after_ms) back to
    /// the file system, until about `budget` is given back. A file system that cannot do so is asked again
    /// after that time.
    ///
    /// # Errors
    /// A failed call is final, as a failed write is.
    pub fn punch(&self, now_ms: u64, budget: Budget) -> Result<Progress> {
        let inner = self.inner();
        let mut checkpointer = inner.checkpointer();
        checkpointer.read_space_map(inner)?;
        let progress = checkpointer.punch(inner.options(), now_ms, budget);
        inner.set_figures(&checkpointer);
        progress
    }

    /// Walks every tree of the newest checkpoint, checks every page, and compares what the trees reach with
    /// the space map. Makes checkpoints wait.
    ///
    /// # Errors
    /// [`Error::Corrupt`](crate::Error::Corrupt) with the first damage found, or a page that is used by two
    /// nodes, or used by none and not free.
    pub fn verify(&self) -> Result<Verified> {
        let inner = self.inner();
        let mut checkpointer = inner.checkpointer();
        checkpointer.read_space_map(inner)?;
        let state = inner.published();
        let checkpoint = &state.checkpoint;
        let mut extents = Vec::new();
        let mut verified = Verified { seq: checkpoint.seq, ..Verified::default() };
        for place in 0..state.trees.len() {
            let mut see = |extent: &tree::Extent| extents.push((extent.page.get(), u64::from(extent.npages)));
            let root = &checkpoint.roots[place];
            verified.trees.push(tree::verify(checkpoint.source(), checkpoint.ctx(place), root, &mut see)?);
        }
        extents.sort_unstable();
        let mut reached: Vec<(u64, u64)> = Vec::new();
        for (start, n) in extents {
            verified.pages += n;
            match reached.last_mut() {
                Some((last, len)) if *last + *len > start => {
                    let damage = Corruption::new(checkpointer.file.path(), "a page of two nodes");
                    return Err(damage.page(start).into());
                }
                Some((last, len)) if *last + *len == start => *len += n,
                _ => reached.push((start, n)),
            }
        }
        let used = checkpointer.space.used_runs();
        // A run ends with its region; what the trees reach may look like one across the next one's bitmaps
        // only if those were allocated, which is as wrong.
        if let Some((map, walk)) = used.iter().zip(&reached).find(|(map, walk)| map != walk) {
            let damage = Corruption::new(checkpointer.file.path(), "space map against the walk");
            return Err(damage
                .page(map.0.min(walk.0))
                .mismatch(format_args!("{walk:?}"), format_args!("{map:?}"))
                .into());
        }
        if used.len() != reached.len() {
            let damage =
                Corruption::new(checkpointer.file.path(), "extents of the space map against the walk");
            return Err(damage.mismatch(reached.len(), used.len()).into());
        }
        Ok(verified)
    }
}
