// SPDX-License-Identifier: Apache-2.0
//! Checkpoints: a frozen overlay becomes part of the tree file, at the cost of one sync.
//!
//! Owns      the protocol, the space map, the list of checkpoints that readers may still hold.
//! Holds     the invariants of the storage engine:
//!           I1 a slot's applied index is durable in the log before the slot is written;
//!           I2 applied index, term, stamp, owner meta and roots share one slot, and come by value with the
//!              overlay that is folded;
//!           I3 nothing that the three newest written checkpoints or any reader can reach is overwritten,
//!              punched or cut;
//!           I4 the log may go up to the applied index of the checkpoint *before* the newest confirmed one;
//!           I5 no page that anything still needs is written again;
//!           I6 any failed write or sync is final for this process.
//! Never     makes readers or the writer wait for the disk.
//!
//! The order is the point. Checkpoint `n` writes its pages into free space, syncs once, and writes slot `n`
//! without a sync: the slot rides on the sync of `n + 1`. So every slot on disk points at pages that were
//! durable before it, and each sync makes the pages of `n` durable and confirms slot `n - 1`.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::IoSlice;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::db::Inner;
use crate::error::Result;
use crate::failpoints::reach;
use crate::fold::{Building, FoldAt, Tools, join};
use crate::format::slot::{self, Slot};
use crate::io::{Budget, Progress};
use crate::mutants::planted;
use crate::options::{Options, PageSourceKind};
use crate::page::{PAGE_BYTES, TreeRoot};
use crate::recover::UnreadMap;
use crate::schema::{TreeKind, Trees};
use crate::shrink::{Shrink, ShrinkWatch};
use crate::space::Space;
use crate::tree::{self, Ctx, Shape, ValueRef, Weight};
use crate::treefile::{Source, TreeFile, count};
use crate::view::{CommitMeta, Published};
use crate::writequeue::WriteQueue;

/// The trees of one checkpoint. Whoever holds it keeps its pages from being written again.
pub(crate) struct Checkpoint {
    pub(crate) seq: u64,
    /// What the newest commit in it said about itself.
    pub(crate) meta: CommitMeta,
    pub(crate) stamp: u64,
    pub(crate) roots: Vec<TreeRoot>,
    ctxs: Vec<Ctx>,
    source: Source,
}

impl Checkpoint {
    /// The checkpoint that `slot` records.
    pub(crate) fn new(slot: Slot, roots: Vec<TreeRoot>, ctxs: Vec<Ctx>, source: Source) -> Self {
        Self { seq: slot.seq, meta: slot.meta, stamp: slot.stamp, roots, ctxs, source }
    }

    pub(crate) fn get(&self, place: usize, key: &[u8]) -> Result<Option<ValueRef>> {
        tree::get(&self.source.tallied(), &self.ctxs[place], &self.roots[place], key)
    }

    pub(crate) fn weight(&self, place: usize, lo: Bound<&[u8]>, hi: Bound<&[u8]>) -> Result<u64> {
        tree::weight(&self.source.tallied(), &self.ctxs[place], &self.roots[place], lo, hi)
    }

    pub(crate) fn cursor(&self, place: usize) -> tree::Cursor<Source> {
        tree::Cursor::new(self.source.clone(), &self.ctxs[place], &self.roots[place])
    }

    pub(crate) fn source(&self) -> &Source {
        &self.source
    }

    pub(crate) fn ctx(&self, place: usize) -> &Ctx {
        &self.ctxs[place]
    }
}

/// What trees are built and read with at checkpoint `seq`, by place.
pub(crate) fn contexts(trees: &Trees, options: &Options, file: &TreeFile, uuid: u64, seq: u64) -> Vec<Ctx> {
    let ctx = |tree: &crate::TreeDef| {
        let mut shape = match tree.kind {
            TreeKind::Append => Shape::append(tree.leaf_pages),
            TreeKind::Ordered => Shape::ordered(tree.leaf_pages),
        };
        shape.leaf_bytes = shape.leaf_bytes.min(options.node_bytes_max);
        shape.branch_bytes = shape.branch_bytes.min(options.node_bytes_max);
        let weight = Weight::Of(tree.weight);
        Ctx { file: Arc::clone(file.path()), uuid, seq, tree: tree.id, shape, weight }
    };
    trees.schema().iter().map(ctx).collect()
}

/// A map of the file with room for `pages`, if it is to be read through one.
pub(crate) fn mapped(options: &Options, file: &Arc<TreeFile>, pages: u64) -> Result<Source> {
    let reserve = options.map_reserve.max(pages * PAGE_BYTES as u64 * 4);
    let map = match options.page_source {
        PageSourceKind::Map => file.map(reserve)?,
        PageSourceKind::Pread => None,
    };
    Ok(Source::new(Arc::clone(file), map))
}

/// A slot that was written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Written {
    pub(crate) seq: u64,
    pub(crate) applied: u64,
    pub(crate) crc: u32,
}

/// A checkpoint that was replaced while somebody may have held it.
pub(crate) struct Retained {
    pub(crate) checkpoint: Arc<Checkpoint>,
    /// When its owner first looked and it was held, in the owner's time.
    pub(crate) since_ms: Option<u64>,
}

/// What the thread that makes checkpoints holds; readers and the writer never do.
pub(crate) struct Checkpointer {
    pub(crate) uuid: u64,
    pub(crate) file: Arc<TreeFile>,
    pub(crate) space: Space,
    /// Where `space` is to be had from, while it is not there.
    pub(crate) unread: Option<UnreadMap>,
    pub(crate) building: Option<Building>,
    /// Checkpoints that were published and replaced: this list is the table of readers.
    pub(crate) retained: Vec<Retained>,
    /// The newest slots written, oldest first; the last is the current checkpoint's.
    pub(crate) written: VecDeque<Written>,
    /// The newest checkpoint whose slot is durable.
    pub(crate) confirmed: u64,
    /// Checkpoints without entries made in a row.
    pub(crate) empty_in_a_row: u32,
    /// No hole is punched before this, in the owner's time: the file system could not.
    pub(crate) punch_from_ms: u64,
    /// The tail that is being given up.
    pub(crate) shrink: Option<Shrink>,
    pub(crate) shrink_watch: ShrinkWatch,
}

impl Checkpointer {
    /// Goes on with the checkpoint of the frozen overlay, if there is one, until about `budget` is written.
    pub(crate) fn step(&mut self, inner: &Inner, budget: Budget) -> Result<Progress> {
        self.file.healthy()?;
        if self.building.is_none() && !self.start(inner)? {
            return Ok(Progress::Done);
        }
        let done = self.advance(inner, budget);
        if done.is_err() {
            self.abandon();
        }
        inner.set_figures(self);
        done
    }

    /// Begins to fold the frozen overlay. `false` if there is none.
    fn start(&mut self, inner: &Inner) -> Result<bool> {
        let state = inner.published();
        let Some(frozen) = state.frozen.clone() else { return Ok(false) };
        self.read_space_map(inner)?;
        let seq = self.newest().seq + 1;
        self.forget_unheld();
        let readers: Vec<u64> = self.retained.iter().map(|retained| retained.checkpoint.seq).collect();
        self.space.begin(seq, &readers);
        let waiting = inner.purges();
        let purges_taken = waiting.len();
        let purges = join(waiting, frozen.seq);
        let meta = if planted("meta-from-newest-commit") { state.meta.clone() } else { frozen.meta };
        self.building = Some(Building {
            seq: frozen.seq,
            stamp: frozen.stamp,
            meta,
            roots: state.checkpoint.roots.clone(),
            purges,
            purges_taken,
            ctxs: contexts(&state.trees, inner.options(), &self.file, self.uuid, seq),
            source: state.checkpoint.source.clone(),
            queue: RefCell::new(WriteQueue::default()),
            at: FoldAt::tree(&state.trees, 0),
            purge_bytes_left: inner.options().purge_bytes,
            relocation: self.relocation(inner.options()),
            frozen: frozen.captured,
        });
        Ok(true)
    }

    /// Whoever is alone with a checkpoint can let go of it: no reader can come back to it.
    fn forget_unheld(&mut self) {
        self.retained.retain_mut(|retained| Arc::get_mut(&mut retained.checkpoint).is_none());
    }

    /// How long the oldest reader of a checkpoint that was replaced has been seen to hold it.
    pub(crate) fn oldest_reader_ms(&mut self, now_ms: u64) -> u64 {
        self.forget_unheld();
        let ages = self
            .retained
            .iter_mut()
            .map(|retained| now_ms.saturating_sub(*retained.since_ms.get_or_insert(now_ms)));
        ages.max().unwrap_or(0)
    }

    /// Step 1 of the protocol: nodes are built slice by slice, and written into free extents.
    fn advance(&mut self, inner: &Inner, budget: Budget) -> Result<Progress> {
        let trees = inner.trees();
        let mut left = budget.bytes;
        loop {
            let building = self.building.as_mut().expect("a checkpoint was begun");
            if !building.queue.get_mut().is_empty() {
                let written = building.queue.get_mut().drain(&self.file, left)?;
                left = left.saturating_sub(written);
                if left == 0 || !building.queue.get_mut().is_empty() {
                    return Ok(Progress::More);
                }
            }
            if building.is_folded() {
                self.finish(inner)?;
                return Ok(Progress::Done);
            }
            let growth = inner.options().growth;
            building.slice(Tools { trees: &trees, space: &mut self.space, growth })?;
        }
    }

    /// Steps 2 to 4: one sync, the slot, and the new roots for readers.
    fn finish(&mut self, inner: &Inner) -> Result<()> {
        let building = self.building.take().expect("a checkpoint was built");
        let before = self.newest();
        let seq = before.seq + 1;
        let durable = inner.log_durable();
        assert!(
            building.meta.applied_index <= durable,
            "I1: applied {} is not durable in the log yet, {durable} is",
            building.meta.applied_index
        );
        if building.relocation.is_none() {
            self.shrink_watch.checkpoint_took(self.space.taken_pages());
        }
        for page in self.space.seal(seq) {
            self.file.write(page.page, &[IoSlice::new(&page.bytes)])?;
        }
        let ids = inner.trees().schema().iter().map(|tree| tree.id).collect::<Vec<_>>();
        let slot = Slot {
            seq,
            meta: building.meta.clone(),
            stamp: building.stamp,
            roots: ids.into_iter().zip(building.roots.iter().copied()).collect(),
            high_water: self.space.high_water(),
            map_digest: self.space.digest(),
            previous_crc: before.crc,
            size_mark: inner.size.raise(inner.needed_after(self.space.stats())),
        };
        let bytes = slot.encode(self.uuid);
        if planted("slot-before-data") {
            self.file.write(slot::position(seq), &[IoSlice::new(&bytes)])?;
        }
        reach("beforeCommit");
        if !planted("checkpoint-without-sync") {
            self.file.sync()?;
        }
        self.confirmed = before.seq;
        self.file.write(slot::position(seq), &[IoSlice::new(&bytes)])?;
        reach("afterCommit");
        self.written.push_back(Written { seq, applied: slot.meta.applied_index, crc: slot::crc(&bytes) });
        while self.written.len() > slot::SLOTS as usize {
            self.written.pop_front();
        }
        self.set_log_floor(inner);
        inner.size.saved(slot.size_mark);
        self.publish(inner, building, slot);
        Ok(())
    }

    fn publish(&mut self, inner: &Inner, building: Building, slot: Slot) {
        let mut source = building.source;
        let bytes = self.space.file_pages() * PAGE_BYTES as u64;
        if source.mapped().is_some_and(|reserved| reserved < bytes) {
            // Where there are no addresses for a larger map, what is beyond this one is read.
            source = mapped(inner.options(), &self.file, self.space.file_pages()).unwrap_or(source);
        }
        let empty = building.frozen.overlay.entries() == 0 && building.relocation.is_none();
        self.empty_in_a_row = if empty { self.empty_in_a_row + 1 } else { 0 };
        if let Some(walk) = building.relocation {
            self.relocated(walk);
        }
        inner.replace_purges(building.purges_taken, building.purges);
        let next = Arc::new(Checkpoint::new(slot, building.roots, building.ctxs, source));
        let before = inner.publish_checkpoint(next);
        self.retained.push(Retained { checkpoint: before, since_ms: None });
        count(&self.file.counters.checkpoints, 1);
    }

    /// Ends a build that failed. After a read error or a full disk the overlay stays frozen, and the next
    /// step begins anew; after a failed write there is no next step.
    fn abandon(&mut self) {
        if self.building.take().is_some() {
            self.space.abort();
        }
    }

    /// Makes the newest slot durable now, instead of with the next checkpoint.
    pub(crate) fn confirm(&mut self, inner: &Inner) -> Result<()> {
        if self.confirmed == self.newest().seq {
            return self.file.healthy();
        }
        self.file.sync()?;
        self.confirmed = self.newest().seq;
        self.set_log_floor(inner);
        Ok(())
    }

    fn newest(&self) -> Written {
        *self.written.back().expect("a store has a checkpoint from the start")
    }

    /// I4: up to the applied index of the checkpoint before the newest confirmed one. While that one is not
    /// known, nothing may go.
    pub(crate) fn set_log_floor(&self, inner: &Inner) {
        let mut upto = self.confirmed - 1;
        if planted("log-released-one-checkpoint-early") {
            upto = self.confirmed;
        }
        if planted("log-released-to-the-unconfirmed") {
            upto = self.newest().seq;
        }
        let mut floor =
            self.written.iter().find(|written| written.seq == upto).map_or(0, |written| written.applied);
        if planted("log-released-beyond-the-fold") {
            floor = inner.published().meta.applied_index;
        }
        inner.log_floor.fetch_max(floor, Ordering::AcqRel);
    }

    /// Whether what waits for later checkpoints is worth making empty ones.
    pub(crate) fn is_untidy(&self, options: &Options) -> bool {
        let stats = self.space.stats();
        let bytes = (stats.pending - stats.pinned) * PAGE_BYTES as u64;
        let file = stats.file * PAGE_BYTES as u64;
        self.empty_in_a_row < EMPTY_CHECKPOINTS_MAX && bytes > options.tidy_bytes.max(file / 10)
    }
}

/// Empty checkpoints that give back all pending space: as many as an extent waits for.
const EMPTY_CHECKPOINTS_MAX: u32 = 3;

/// The state that follows from a new checkpoint: it holds what the frozen overlay did.
pub(crate) fn with_checkpoint(state: &mut Published, next: Arc<Checkpoint>) -> Arc<Checkpoint> {
    state.frozen = None;
    std::mem::replace(&mut state.checkpoint, next)
}
