// SPDX-License-Identifier: Apache-2.0
//! Shrinking: what lies in the tail of the file is moved down by ordinary checkpoints, and the tail is cut.
//!
//! Owns      how large the file should be, what is being moved to get there, and what that waits for.
//! Holds     1. nothing is moved outside a checkpoint, and no more of it at a time than a named size;
//!           2. the file is cut only behind everything that a checkpoint which a crash could bring back, or a
//!              reader, can reach;
//!           3. what cannot be moved or is held by readers ends the attempt: nobody waits for it.
//! Never     makes a checkpoint itself: its owner does, for as long as it is told that one helps.

use std::cell::Cell;

use crate::checkpoint::Checkpointer;
use crate::db::{Db, Inner};
use crate::error::Result;
use crate::fold::{Building, FoldAt, SLICE_BYTES, Tools, sink};
use crate::options::Options;
use crate::page::{PAGE_BYTES, PageId};
use crate::space::FIRST_DATA;
use crate::tree::{self, Tail};
use crate::writequeue::BuildSource;

/// The goal: a file of at most so many percent of what is in use.
const GOAL_PERCENT: u64 = 125;

/// In the background, no more than this part of the file is given up at a time.
const TAIL_PART: u64 = 4;

/// With [`Aim::Goal`], a checkpoint moves so many times [`Options::relocate_bytes`].
const GOAL_TIMES: u64 = 16;

/// Checkpoints for which room is left while there are writes: what one frees comes back after so many.
const ROOM_TIMES: u64 = 4;

/// After an attempt that led nowhere, the background waits so many times as long as before one.
const RETRY_TIMES: u64 = 20;

/// A tail is given up on when so many walks have left something there.
const TRIES_MAX: u32 = 8;

/// Pages that a slice of a walk reads before it ends.
const SLICE_PAGES_READ: u64 = 4096;

/// How badly a smaller file is wanted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Aim {
    /// Once the file has been too large for [`Options::shrink_after_ms`], a quarter at a time, and with room left
    /// for what the store needs as it is written to.
    Background,
    /// Now, down to 1.25 times what is in use.
    Goal,
}

/// What stands between the file and its goal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shrinking {
    /// Nothing: the file is as small as it should be, or it is not time yet.
    Done,
    /// A checkpoint, also of an empty overlay. Call again after it.
    Checkpoint,
    /// Readers, who can reach what the tail held.
    Readers,
    /// There is no room below for what is left in the tail, or no end to what is written there.
    Stuck,
}

/// A tail that is being given up.
#[derive(Debug)]
pub(crate) struct Shrink {
    walk: Relocation,
    aim: Aim,
    /// How often something was left in the tail after a walk.
    tries: u32,
}

/// A walk over all trees that moves what they have in the tail.
#[derive(Clone, Debug)]
pub(crate) struct Relocation {
    floor: u64,
    /// Whether blobs are looked for too. Most tails have none, and nodes are found without a look at each leaf.
    blobs: bool,
    /// The tree, by place, and the key to go on with; `None` once all trees were walked.
    at: Option<(usize, Vec<u8>)>,
    /// Something had to be written to the tail itself: there is no room below.
    spilled: bool,
    /// What the checkpoint at hand may still write for it.
    bytes_left: u64,
}

impl Relocation {
    fn new(floor: u64, blobs: bool) -> Self {
        Self { floor, blobs, at: Some((0, Vec::new())), spilled: false, bytes_left: 0 }
    }

    fn is_walked(&self) -> bool {
        self.at.is_none() || self.spilled
    }
}

/// Since when the file is too large, and what the store took lately.
#[derive(Debug, Default)]
pub(crate) struct ShrinkWatch {
    over_since_ms: Option<u64>,
    busy_ms: u64,
    /// Not before this is the background to try again.
    from_ms: u64,
    /// The most pages that one of the last checkpoints took.
    taken: u64,
}

impl ShrinkWatch {
    /// A checkpoint took so many pages for what was written.
    pub(crate) fn checkpoint_took(&mut self, pages: u64) {
        self.taken = pages.max(self.taken / 2);
    }
}

impl Db {
    /// Goes on making the file smaller: cuts the free tail, and decides what has to be moved for more. The
    /// checkpoints move it, so the owner makes one, beside all that goes on, whenever the answer asks for it.
    ///
    /// # Errors
    /// A failed cut is final, as a failed write is.
    pub fn shrink(&self, now_ms: u64, aim: Aim) -> Result<Shrinking> {
        let inner = self.inner();
        let mut checkpointer = inner.checkpointer();
        let answer = checkpointer.shrink(inner, now_ms, aim);
        inner.set_figures(&checkpointer);
        answer
    }

    /// Gives the free tail of the file back to the file system. Answers the bytes; none while a checkpoint
    /// is being built.
    pub fn cut(&self) -> Result<u64> {
        let inner = self.inner();
        let mut checkpointer = inner.checkpointer();
        checkpointer.file.healthy()?;
        checkpointer.read_space_map(inner)?;
        let pages = checkpointer.cut(inner.options(), 0)?;
        inner.set_figures(&checkpointer);
        Ok(pages * PAGE_BYTES as u64)
    }
}

impl Checkpointer {
    fn shrink(&mut self, inner: &Inner, now_ms: u64, aim: Aim) -> Result<Shrinking> {
        self.file.healthy()?;
        self.read_space_map(inner)?;
        if inner.has_work() {
            self.shrink_watch.busy_ms = now_ms;
        }
        // A goal that was asked for stays one until it is reached or given up.
        let aim = match &mut self.shrink {
            Some(shrink) if shrink.aim == Aim::Goal => Aim::Goal,
            Some(shrink) => {
                shrink.aim = aim;
                aim
            }
            None => aim,
        };
        let target = self.target(inner.options(), now_ms, aim);
        if self.shrink.is_none() && !self.is_due(inner.options(), target, now_ms, aim) {
            return Ok(Shrinking::Done);
        }
        if self.building.is_some() {
            return Ok(Shrinking::Checkpoint);
        }
        self.cut(inner.options(), target)?;
        let answer = self.go_on(target, aim);
        if matches!(answer, Shrinking::Done | Shrinking::Stuck) {
            self.end_shrink();
            let wait = if answer == Shrinking::Stuck { RETRY_TIMES } else { 1 };
            self.shrink_watch.over_since_ms = None;
            self.shrink_watch.from_ms = now_ms + wait * inner.options().shrink_after_ms;
        }
        Ok(answer)
    }

    /// Pages that the file should have.
    fn target(&self, options: &Options, now_ms: u64, aim: Aim) -> u64 {
        let idle = now_ms.saturating_sub(self.shrink_watch.busy_ms) >= options.shrink_after_ms;
        let room = match aim {
            Aim::Background if !idle => self.shrink_watch.taken * ROOM_TIMES,
            _ => 0,
        };
        let (used, cut) = (self.space.stats().used, cut_pages(options));
        let goal = used * GOAL_PERCENT / 100 + room;
        // Below the goal, but where that would not leave room for what is used.
        (goal - goal % cut).max(used.max(FIRST_DATA).next_multiple_of(cut))
    }

    fn is_due(&mut self, options: &Options, target: u64, now_ms: u64, aim: Aim) -> bool {
        if self.space.len_pages() <= target {
            self.shrink_watch.over_since_ms = None;
            return false;
        }
        let since = *self.shrink_watch.over_since_ms.get_or_insert(now_ms);
        let old = now_ms.saturating_sub(since) >= options.shrink_after_ms;
        aim == Aim::Goal || old && now_ms >= self.shrink_watch.from_ms
    }

    /// Cuts what is free behind everything else, down to `least` pages. Answers by how many.
    fn cut(&mut self, options: &Options, least: u64) -> Result<u64> {
        if self.building.is_some() {
            return Ok(0);
        }
        let before = self.space.len_pages();
        let after = self.space.end().max(least).next_multiple_of(cut_pages(options));
        if after >= before {
            return Ok(0);
        }
        self.file.cut(before, after)?;
        self.space.truncate(after);
        Ok(before - after)
    }

    /// The next step of the attempt at hand, or the first of a new one.
    fn go_on(&mut self, target: u64, aim: Aim) -> Shrinking {
        let len = self.space.len_pages();
        if len <= target {
            return Shrinking::Done;
        }
        let Some(Shrink { walk, tries, .. }) = &mut self.shrink else {
            let floor = match aim {
                Aim::Background => target.max(len - len / TAIL_PART),
                Aim::Goal => target,
            };
            self.space.set_floor(floor);
            self.shrink = Some(Shrink { walk: Relocation::new(floor, false), aim, tries: 0 });
            return Shrinking::Checkpoint;
        };
        if !walk.is_walked() {
            return Shrinking::Checkpoint;
        }
        let floor = walk.floor;
        if self.space.is_used_from(floor) {
            if *tries == TRIES_MAX {
                return Shrinking::Stuck;
            }
            *tries += 1;
            if walk.spilled && walk.at.is_some() {
                // Room may have come back meanwhile.
                walk.spilled = false;
            } else {
                *walk = Relocation::new(floor, true);
            }
            return Shrinking::Checkpoint;
        }
        if self.space.is_waiting_from(floor) {
            return Shrinking::Checkpoint;
        }
        if self.space.end() > floor {
            return Shrinking::Readers;
        }
        // This tail is cut; what is left is the next one's, or in the background another day's.
        self.end_shrink();
        if aim == Aim::Goal { self.go_on(target, aim) } else { Shrinking::Done }
    }

    fn end_shrink(&mut self) {
        self.shrink = None;
        self.space.set_floor(u64::MAX);
    }

    /// Whether a checkpoint, even an empty one, would bring the shrinking on.
    pub(crate) fn shrink_wants_checkpoint(&self) -> bool {
        let Some(Shrink { walk, .. }) = &self.shrink else { return false };
        !walk.is_walked() || self.space.is_waiting_from(walk.floor)
    }

    /// What the checkpoint that begins is to move.
    pub(crate) fn relocation(&self, options: &Options) -> Option<Relocation> {
        let Shrink { walk, aim, .. } = self.shrink.as_ref()?;
        let times = if *aim == Aim::Goal { GOAL_TIMES } else { 1 };
        let bytes_left = options.relocate_bytes.saturating_mul(times);
        (!walk.is_walked()).then(|| Relocation { bytes_left, ..walk.clone() })
    }

    /// The checkpoint that moved so much is published.
    pub(crate) fn relocated(&mut self, walk: Relocation) {
        if let Some(shrink) = &mut self.shrink {
            shrink.walk = walk;
        }
    }
}

/// The file is cut to a multiple of this, so that it is not cut and grown by turns.
fn cut_pages(options: &Options) -> u64 {
    options.growth.first_bytes.div_ceil(PAGE_BYTES as u64).max(1)
}

impl Building {
    /// Does the next slice of the walk.
    pub(crate) fn relocate(&mut self, tools: Tools<'_>) -> Result<()> {
        let Some(walk) = &mut self.relocation else {
            self.at = FoldAt::Done;
            return Ok(());
        };
        let (Some((place, from)), true) = (&walk.at, walk.bytes_left > 0 && !walk.spilled) else {
            self.at = FoldAt::Done;
            return Ok(());
        };
        let place = *place;
        let tail = Tail { floor: PageId::new(walk.floor), blobs: walk.blobs, from };
        let (output, spilled) = (Cell::new(0), Cell::new(false));
        let stop = walk.bytes_left.min(SLICE_BYTES);
        let mut read = 0;
        let mut more = |pages| {
            read += pages;
            output.get() < stop && read < SLICE_PAGES_READ && !spilled.get()
        };
        let source = BuildSource { source: &self.source, queue: &self.queue };
        let mut sink = sink(tools.space, &self.source, &self.queue, tools.growth, &output);
        sink.spilled = Some(&spilled);
        let moved =
            tree::relocate(&source, &mut sink, &self.ctxs[place], &self.roots[place], tail, &mut more)?;
        self.roots[place] = moved.root;
        walk.spilled = spilled.get();
        // Reading costs as well, if less.
        walk.bytes_left = walk.bytes_left.saturating_sub(output.get() + read * PAGE_BYTES as u64 / 8);
        walk.at = match moved.next {
            Some(key) => Some((place, key)),
            None => (place + 1 < self.roots.len()).then(|| (place + 1, Vec::new())),
        };
        Ok(())
    }
}
