// SPDX-License-Identifier: Apache-2.0
//! The store: one writer, any number of views, and the published state between them.
//!
//! Owns      the published state, the writer lock, and what makes a checkpoint due.
//! Holds     1. the published state is replaced as a whole, under a lock that is held for one clone;
//!           2. at most two overlays exist: one is written, one is being folded;
//!           3. an overlay is frozen only once the log has all of it durably (invariant I1).
//! Never     starts a thread or reads a clock: its owner drives it, and brings the time.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, RwLock};

use crate::checkpoint::{Checkpoint, Checkpointer, with_checkpoint};
use crate::error::Result;
use crate::failpoints::reach;
use crate::fold::Purge;
use crate::holds::{Holds, Lock};
use crate::io::{Budget, FileLock, Progress};
use crate::options::Options;
use crate::overlay::{Batch, Overlay};
use crate::page::PAGE_BYTES;
use crate::recover::{self, Opened, Recovered};
use crate::schema::{AppendKey, InstallId, Schema, Trees};
use crate::size::SizeMark;
use crate::snapshot::Pins;
use crate::space::SpaceStats;
use crate::stats::Stats;
use crate::treefile::TreeFile;
use crate::txn::WriteTxn;
use crate::view::{Captured, CommitMeta, Frozen, Published, Seq, View};

/// A store. Clones share it; the last one to go releases the directory.
#[derive(Clone)]
pub struct Db(Arc<Inner>);

/// Why a checkpoint is due.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Why {
    /// A frozen overlay waits to be folded.
    Frozen,
    /// The active overlay is as large as it may become.
    OverlayBytes,
    /// It has as many entries as it may hold.
    OverlayEntries,
    /// Something waits to be folded for as long as it may.
    Age,
}

pub(crate) struct Inner {
    options: Options,
    install: InstallId,
    file: Arc<TreeFile>,
    published: RwLock<Arc<Published>>,
    writer: Mutex<Writer>,
    checkpointer: Mutex<Checkpointer>,
    purges: Mutex<Vec<Purge>>,
    figures: Mutex<Figures>,
    /// When something was first seen to wait for a checkpoint, in the owner's time; `NEVER` if nothing was.
    waiting_since_ms: AtomicU64,
    /// The newest commit that was frozen, or that the checkpoint at open contains.
    frozen_seq: AtomicU64,
    /// What the log has durably, as its owner said last; `NEVER` if the owner has no log.
    log_durable: AtomicU64,
    pub(crate) log_floor: AtomicU64,
    /// Age of the oldest reader when its owner looked last.
    oldest_reader_ms: AtomicU64,
    pub(crate) size: SizeMark,
    holds: Arc<Holds>,
    pub(crate) pins: Pins,
    _lock: Box<dyn FileLock>,
}

const NEVER: u64 = u64::MAX;

/// What only the writer touches.
#[derive(Debug)]
pub(crate) struct Writer {
    /// The newest key of each append tree, by place in the schema.
    pub(crate) last_keys: Vec<Option<AppendKey>>,
}

/// Figures that the checkpointer leaves for others to read without waiting for it.
#[derive(Clone, Copy, Debug, Default)]
struct Figures {
    space: SpaceStats,
    seq: u64,
    confirmed: u64,
    oldest_reader: u64,
    untidy: bool,
}

impl Db {
    /// Makes a new, empty store in `dir`, which is made too if it is missing.
    ///
    /// # Errors
    /// [`Error::Locked`](crate::Error::Locked) if another process has the directory; an I/O error of kind
    /// `AlreadyExists` if there is a store.
    pub fn create(dir: &Path, schema: Schema, install: InstallId, options: Options) -> Result<Db> {
        let trees = Arc::new(Trees::new(schema));
        let opened = recover::create(dir, &trees, install, &options)?;
        Ok(Self::start(trees, options, opened).0)
    }

    /// Opens the store in `dir` at its newest checkpoint; the log after
    /// [`Recovered::meta`]'s applied index is its owner's to replay.
    ///
    /// # Errors
    /// [`Error::Locked`](crate::Error::Locked); [`Error::Format`](crate::Error::Format) for a file of a
    /// newer build; [`Error::Corrupt`](crate::Error::Corrupt) if no checkpoint can be used.
    pub fn open(dir: &Path, schema: Schema, options: Options) -> Result<(Db, Recovered)> {
        let trees = Arc::new(Trees::new(schema));
        let opened = recover::open(dir, &trees, &options)?;
        Ok(Self::start(trees, options, opened))
    }

    fn start(trees: Arc<Trees>, options: Options, opened: Opened) -> (Db, Recovered) {
        let Opened { lock, checkpointer, checkpoint, last_keys, recovered, size_mark } = opened;
        let holds = Arc::new(Holds::new(options.stopwatch.clone()));
        let published = Published {
            active: Captured::new(Arc::new(Overlay::new(&trees, recovered.stamp, Arc::clone(&holds)))),
            trees,
            seq: Seq(0),
            stamp: recovered.stamp,
            meta: recovered.meta.clone(),
            frozen: None,
            checkpoint,
        };
        let inner = Inner {
            options,
            install: recovered.install_id,
            file: Arc::clone(&checkpointer.file),
            published: RwLock::new(Arc::new(published)),
            writer: Mutex::new(Writer { last_keys }),
            checkpointer: Mutex::new(checkpointer),
            purges: Mutex::new(Vec::new()),
            figures: Mutex::new(Figures::default()),
            waiting_since_ms: AtomicU64::new(NEVER),
            frozen_seq: AtomicU64::new(0),
            log_durable: AtomicU64::new(NEVER),
            log_floor: AtomicU64::new(0),
            oldest_reader_ms: AtomicU64::new(0),
            size: SizeMark::new(size_mark),
            pins: Pins::default(),
            holds,
            _lock: lock,
        };
        let checkpointer = inner.checkpointer();
        checkpointer.set_log_floor(&inner);
        inner.set_figures(&checkpointer);
        drop(checkpointer);
        inner.size.raise(inner.needed_bytes());
        (Db(Arc::new(inner)), recovered)
    }

    /// What is committed now. Takes one lock for one clone.
    pub fn view(&self) -> View {
        View(self.0.published())
    }

    /// Which filling of the data directory this store is.
    pub fn install_id(&self) -> InstallId {
        self.0.install
    }

    /// Begins the one write transaction, waiting for the one before it.
    ///
    /// # Errors
    /// [`Error::Poisoned`](crate::Error::Poisoned) after any failed write or sync.
    pub fn begin(&self) -> Result<WriteTxn<'_>> {
        reach("beforeStartDBTxn");
        let writer = self.0.writer();
        self.0.file.healthy()?;
        reach("afterStartDBTxn");
        Ok(WriteTxn::new(&self.0, writer, self.0.published()))
    }

    /// Whether a checkpoint should be made, given the owner's time.
    pub fn checkpoint_due(&self, now_ms: u64) -> Option<Why> {
        let state = self.0.published();
        let active = &state.active.overlay;
        if state.frozen.is_some() {
            return Some(Why::Frozen);
        }
        if active.bytes() >= self.0.options.overlay_bytes {
            return Some(Why::OverlayBytes);
        }
        if active.entries() >= self.0.options.overlay_entries {
            return Some(Why::OverlayEntries);
        }
        if state.seq == self.0.frozen_seq() {
            self.0.waiting_since_ms.store(NEVER, Ordering::Relaxed);
            return None;
        }
        let since = self.0.waiting_since_ms.fetch_min(now_ms, Ordering::Relaxed).min(now_ms);
        (now_ms - since >= self.0.options.checkpoint_every_ms).then_some(Why::Age)
    }

    /// Tells the store how far its owner's log is durable. An owner with a log says so before each
    /// [`freeze`](Db::freeze) and after each sync; one without never does.
    pub fn log_durable(&self, index: u64) {
        self.0.log_durable.store(index, Ordering::Release);
    }

    /// Freezes the active overlay for a checkpoint to fold and begins another. Waits for an open
    /// transaction. `false` if one is frozen already, there is nothing to do, or the log does not have all
    /// of it durably yet.
    pub fn freeze(&self) -> Result<bool> {
        let tidy = self.tidy_due();
        let writer = self.0.writer();
        let hold = self.0.holds.begin(Lock::Freeze);
        self.0.file.healthy()?;
        let state = self.0.published();
        let wanted = tidy || self.0.size.is_lowered() || state.seq > self.0.frozen_seq();
        if state.frozen.is_some() || !wanted || state.meta.applied_index > self.0.log_durable() {
            return Ok(false);
        }
        let fresh =
            Captured::new(Arc::new(Overlay::new(&state.trees, state.stamp, Arc::clone(&self.0.holds))));
        self.0.publish(|next| {
            let captured = std::mem::replace(&mut next.active, fresh);
            let (seq, stamp, meta) = (next.seq, next.stamp, next.meta.clone());
            next.frozen = Some(Frozen { captured, seq, stamp, meta });
        });
        self.0.frozen_seq.store(state.seq.0, Ordering::Release);
        self.0.waiting_since_ms.store(NEVER, Ordering::Relaxed);
        drop((hold, writer));
        // Outside all locks: readers walk until the sums are there.
        state.active.overlay.index_deltas();
        Ok(true)
    }

    /// Goes on with the checkpoint of the frozen overlay until about `budget` is written. `Done` if there is
    /// nothing frozen, or no longer.
    ///
    /// # Errors
    /// After a read error, damage or a full disk the overlay stays frozen, and the next call begins the
    /// checkpoint anew. A failed write or sync is final.
    pub fn checkpoint_step(&self, budget: Budget) -> Result<Progress> {
        self.0.checkpointer().step(&self.0, budget)
    }

    /// Freezes what there is and makes a whole checkpoint of it.
    pub fn checkpoint(&self) -> Result<bool> {
        let frozen = self.freeze()?;
        while let Progress::More = self.checkpoint_step(Budget::UNBOUNDED)? {}
        Ok(frozen)
    }

    /// Makes the newest checkpoint's slot durable now; without this, the next checkpoint does.
    pub fn confirm(&self) -> Result<()> {
        let mut checkpointer = self.0.checkpointer();
        checkpointer.confirm(&self.0)?;
        self.0.set_figures(&checkpointer);
        Ok(())
    }

    /// The log may let go of entries up to this index, and of none above (invariant I4).
    pub fn log_floor(&self) -> u64 {
        self.0.log_floor.load(Ordering::Acquire)
    }

    /// Looks who still holds a checkpoint that was replaced, given the owner's time, and since when that has been so:
    /// for the age of the oldest reader in [`Stats`], which is as old as the last call. Waits for a step of a checkpoint
    /// to end.
    pub fn note_readers(&self, now_ms: u64) {
        let mut checkpointer = self.0.checkpointer();
        let age_ms = checkpointer.oldest_reader_ms(now_ms);
        self.0.oldest_reader_ms.store(age_ms, Ordering::Relaxed);
        self.0.set_figures(&checkpointer);
    }

    /// Memory of the active and the frozen overlay. Its owner slows down as it nears twice
    /// [`Options::overlay_bytes`].
    pub fn overlay_bytes(&self) -> u64 {
        self.0.published().overlays().map(|layer| layer.overlay.bytes()).sum()
    }

    /// The store's figures now. Waits for nothing.
    pub fn stats(&self) -> Stats {
        let state = self.0.published();
        let figures = *self.0.figures.lock().expect("no one panics while storing figures");
        let counters = &self.0.file.counters;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let bytes = |pages: u64| pages * PAGE_BYTES as u64;
        Stats {
            overlay_bytes: state.overlays().map(|layer| layer.overlay.bytes()).sum(),
            overlay_entries: state.overlays().map(|layer| layer.overlay.entries()).sum(),
            commits: state.seq.0,
            checkpoints: read(&counters.checkpoints),
            checkpoint_seq: figures.seq,
            confirmed_seq: figures.confirmed,
            oldest_reader_seq: figures.oldest_reader,
            oldest_reader_ms: read(&self.0.oldest_reader_ms),
            snapshots: self.0.pins.count(),
            file_bytes: bytes(figures.space.file),
            used_bytes: bytes(figures.space.used),
            free_bytes: bytes(figures.space.free),
            pending_bytes: bytes(figures.space.pending),
            pinned_bytes: bytes(figures.space.pinned),
            hole_bytes: bytes(figures.space.holes),
            syncs: read(&counters.syncs),
            bytes_written: read(&counters.bytes_written),
            extents_read: read(&counters.extents_read),
            pages_verified: read(&counters.pages_verified),
            extents_allocated: read(&counters.extents_allocated),
            bytes_punched: read(&counters.bytes_punched),
            locks: self.0.holds.stats(),
        }
    }

    pub(crate) fn inner(&self) -> &Inner {
        &self.0
    }
}

impl Inner {
    pub(crate) fn options(&self) -> &Options {
        &self.options
    }

    pub(crate) fn trees(&self) -> Arc<Trees> {
        Arc::clone(&self.published().trees)
    }

    pub(crate) fn published(&self) -> Arc<Published> {
        Arc::clone(&self.published.read().expect("no one panics while publishing"))
    }

    pub(crate) fn checkpointer(&self) -> MutexGuard<'_, Checkpointer> {
        self.checkpointer.lock().expect("no one panics in a checkpoint")
    }

    fn writer(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().expect("no writer panics in a transaction")
    }

    pub(crate) fn frozen_seq(&self) -> Seq {
        Seq(self.frozen_seq.load(Ordering::Acquire))
    }

    /// Whether something waits for a checkpoint to fold it.
    pub(crate) fn has_work(&self) -> bool {
        let state = self.published();
        state.frozen.is_some() || state.seq != self.frozen_seq()
    }

    pub(crate) fn log_durable(&self) -> u64 {
        self.log_durable.load(Ordering::Acquire)
    }

    /// Replaces the published state by what `change` makes of it.
    fn publish<R>(&self, change: impl FnOnce(&mut Published) -> R) -> R {
        let mut slot = self.published.write().expect("no one panics while publishing");
        let hold = self.holds.begin(Lock::Publish);
        let mut next = Published::clone(&slot);
        let out = change(&mut next);
        let before = std::mem::replace(&mut *slot, Arc::new(next));
        drop((hold, slot));
        // Outside the lock: it may be the last to have an overlay.
        drop(before);
        out
    }

    /// Merges a batch into the active overlay and publishes it. The caller holds the writer lock.
    pub(crate) fn publish_commit(&self, batch: Batch, meta: CommitMeta, stamp: u64) -> Seq {
        // Only a freeze replaces the active overlay, and it needs the writer lock too.
        let overlay = Arc::clone(&self.published().active.overlay);
        overlay.apply(batch, stamp);
        let append_lens = overlay.append_lens();
        self.publish(|next| {
            next.seq = Seq(next.seq.0 + 1);
            next.stamp = stamp;
            next.meta = meta;
            next.active.append_lens = append_lens;
            next.seq
        })
    }

    /// Publishes a checkpoint that holds what the frozen overlay did. Answers the one before it.
    pub(crate) fn publish_checkpoint(&self, next: Arc<Checkpoint>) -> Arc<Checkpoint> {
        self.publish(|state| with_checkpoint(state, next))
    }

    fn purge_list(&self) -> MutexGuard<'_, Vec<Purge>> {
        self.purges.lock().expect("no one panics while changing the list of purges")
    }

    pub(crate) fn add_purge(&self, purge: Purge) {
        let mut list = self.purge_list();
        let _hold = self.holds.begin(Lock::Purges);
        list.push(purge);
    }

    pub(crate) fn purges(&self) -> Vec<Purge> {
        let list = self.purge_list();
        let _hold = self.holds.begin(Lock::Purges);
        list.clone()
    }

    pub(crate) fn purges_waiting(&self) -> usize {
        self.purge_list().len()
    }

    /// Whether a purge waits that a checkpoint of commit `seq` can do.
    pub(crate) fn purge_ready(&self, seq: Seq) -> bool {
        self.purge_list().iter().any(|purge| purge.after <= seq)
    }

    /// Puts what is left of the first `taken` purges in their place.
    pub(crate) fn replace_purges(&self, taken: usize, left: Vec<Purge>) {
        let mut list = self.purge_list();
        let _hold = self.holds.begin(Lock::Purges);
        list.splice(..taken, left);
    }

    /// What the store needs: pages in use, pages that later checkpoints give back, and the overlays.
    pub(crate) fn needed_bytes(&self) -> u64 {
        let space = self.figures.lock().expect("no one panics while storing figures").space;
        let overlays: u64 = self.published().overlays().map(|layer| layer.overlay.bytes()).sum();
        (space.used + space.pending) * PAGE_BYTES as u64 + overlays
    }

    /// The same once the frozen overlay is in the file, of which `space` are the figures then.
    pub(crate) fn needed_after(&self, space: SpaceStats) -> u64 {
        (space.used + space.pending) * PAGE_BYTES as u64 + self.published().active.overlay.bytes()
    }

    pub(crate) fn is_untidy(&self) -> bool {
        self.figures.lock().expect("no one panics while storing figures").untidy
    }

    pub(crate) fn set_figures(&self, checkpointer: &Checkpointer) {
        let seq = checkpointer.written.back().map_or(0, |written| written.seq);
        let figures = Figures {
            space: checkpointer.space.stats(),
            seq,
            confirmed: checkpointer.confirmed,
            oldest_reader: checkpointer.retained.iter().map(|r| r.checkpoint.seq).min().unwrap_or(seq),
            untidy: checkpointer.is_untidy(&self.options) || checkpointer.shrink_wants_checkpoint(),
        };
        *self.figures.lock().expect("no one panics while storing figures") = figures;
    }
}
