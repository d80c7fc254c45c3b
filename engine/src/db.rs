// SPDX-License-Identifier: Apache-2.0
//! The store: one writer, any number of views, and the published state between them.
//!
//! Owns      the published state, the writer lock, and what makes a checkpoint due.
//! Holds     1. the published state is replaced as a whole, under a lock that is held for one clone;
//!           2. at most two overlays exist: one is written, one is being folded;
//!           3. after a failed write or sync nothing more is written (invariant I6).
//! Never     starts a thread or reads a clock: its owner drives it, and brings the time.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};

use crate::error::{Error, Result};
use crate::options::Options;
use crate::overlay::{Batch, Overlay};
use crate::schema::{AppendKey, InstallId, Schema, Trees};
use crate::stats::Stats;
use crate::txn::WriteTxn;
use crate::view::{Captured, CommitMeta, Published, Seq, View};

/// A store. Clones share it.
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
    file: PathBuf,
    options: Options,
    install: InstallId,
    published: RwLock<Arc<Published>>,
    writer: Mutex<Writer>,
    poisoned: AtomicBool,
    /// When something was first seen to wait for a checkpoint, in the owner's time; `NEVER` if nothing was.
    waiting_since_ms: AtomicU64,
}

/// The tree file's name in the store's directory.
const FILE_NAME: &str = "engine.db";

const NEVER: u64 = u64::MAX;

/// What only the writer touches.
#[derive(Debug)]
pub(crate) struct Writer {
    /// The newest key of each append tree, by place in the schema.
    pub(crate) last_keys: Vec<Option<AppendKey>>,
}

impl Db {
    /// A new, empty store.
    pub fn create(dir: &Path, schema: Schema, install: InstallId, options: Options) -> Result<Db> {
        let trees = Arc::new(Trees::new(schema));
        let active = Captured::new(Arc::new(Overlay::new(&trees, 0)));
        let writer = Writer { last_keys: vec![None; trees.len()] };
        let published =
            Published { trees, seq: Seq(0), stamp: 0, meta: CommitMeta::default(), active, frozen: None };
        Ok(Db(Arc::new(Inner {
            file: dir.join(FILE_NAME),
            options,
            install,
            published: RwLock::new(Arc::new(published)),
            writer: Mutex::new(writer),
            poisoned: AtomicBool::new(false),
            waiting_since_ms: AtomicU64::new(NEVER),
        })))
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
    /// [`Error::Poisoned`] after any failed write or sync.
    pub fn begin(&self) -> Result<WriteTxn<'_>> {
        let writer = self.0.writer();
        self.0.healthy()?;
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
        if active.entries() == 0 {
            self.0.waiting_since_ms.store(NEVER, Ordering::Relaxed);
            return None;
        }
        let since = self.0.waiting_since_ms.fetch_min(now_ms, Ordering::Relaxed).min(now_ms);
        (now_ms - since >= self.0.options.checkpoint_every_ms).then_some(Why::Age)
    }

    /// Freezes the active overlay for a checkpoint to fold and begins another. Waits for an open
    /// transaction. `false` if one is frozen already or there is nothing to fold.
    pub fn freeze(&self) -> Result<bool> {
        let _writer = self.0.writer();
        self.0.healthy()?;
        let state = self.0.published();
        if state.frozen.is_some() || state.active.overlay.entries() == 0 {
            return Ok(false);
        }
        let fresh = Captured::new(Arc::new(Overlay::new(&state.trees, state.stamp)));
        self.0.publish(|next| next.frozen = Some(std::mem::replace(&mut next.active, fresh)));
        self.0.waiting_since_ms.store(NEVER, Ordering::Relaxed);
        // Outside the publish lock: readers walk until the sums are there.
        state.active.overlay.index_deltas();
        Ok(true)
    }

    /// Memory of the active and the frozen overlay. Its owner slows down as it nears twice
    /// [`Options::overlay_bytes`].
    pub fn overlay_bytes(&self) -> u64 {
        self.0.published().overlays().map(|layer| layer.overlay.bytes()).sum()
    }

    /// The store's figures now.
    pub fn stats(&self) -> Stats {
        let state = self.0.published();
        Stats {
            overlay_bytes: state.overlays().map(|layer| layer.overlay.bytes()).sum(),
            overlay_entries: state.overlays().map(|layer| layer.overlay.entries()).sum(),
            commits: state.seq.0,
        }
    }
}

impl Inner {
    pub(crate) fn published(&self) -> Arc<Published> {
        Arc::clone(&self.published.read().expect("no one panics while publishing"))
    }

    fn writer(&self) -> std::sync::MutexGuard<'_, Writer> {
        self.writer.lock().expect("no writer panics in a transaction")
    }

    fn healthy(&self) -> Result<()> {
        if self.poisoned.load(Ordering::Acquire) {
            Err(Error::Poisoned { file: self.file.clone() })
        } else {
            Ok(())
        }
    }

    /// Replaces the published state by what `change` makes of it.
    fn publish(&self, change: impl FnOnce(&mut Published)) -> Arc<Published> {
        let mut slot = self.published.write().expect("no one panics while publishing");
        let mut next = Published::clone(&slot);
        change(&mut next);
        *slot = Arc::new(next);
        Arc::clone(&slot)
    }

    /// Merges a batch into the active overlay and publishes it. The caller holds the writer lock.
    pub(crate) fn publish_commit(&self, batch: Batch, meta: CommitMeta, stamp: u64) -> Seq {
        // Only a freeze replaces the active overlay, and it needs the writer lock too.
        let overlay = Arc::clone(&self.published().active.overlay);
        overlay.apply(batch, stamp);
        let append_lens = overlay.append_lens();
        let state = self.publish(|next| {
            next.seq = Seq(next.seq.0 + 1);
            next.stamp = stamp;
            next.meta = meta;
            next.active.append_lens = append_lens;
        });
        state.seq
    }
}
