// SPDX-License-Identifier: Apache-2.0
//! The store: the one handle that writes, and what it shares with its readers.
//!
//! Owns      the database handle, the holds, the remembered hashes, and the purge under way.
//! Holds     the revisions are those of the newest commit; nothing here repeats them.
//! Never     starts a thread: its owner calls `batch` and `purge_step` from the thread that applies.

use std::path::Path;
use std::sync::Arc;

use cairn_engine::{Corruption, Db, Result};

use crate::batch::Batch;
use crate::counts::Counters;
use crate::hash::Hashes;
use crate::holds::Holds;
use crate::meta::Meta;
use crate::purge::{PurgeBudget, PurgeProgress, Purger};
use crate::read::Reader;

/// What writer and readers share.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) db: Db,
    pub(crate) holds: Arc<Holds>,
    pub(crate) hashes: Arc<Hashes>,
    pub(crate) counters: Arc<Counters>,
}

/// etcd's data model over a [`Db`] whose schema is [`SCHEMA`](crate::SCHEMA). The one writer.
pub struct Store {
    shared: Shared,
    purger: Purger,
}

impl Store {
    /// Takes over an opened or a new database.
    ///
    /// # Errors
    /// An engine error if what the newest commit says of the store cannot be read.
    pub fn open(db: Db) -> Result<Store> {
        let view = db.view();
        let meta = Meta::of(&view)?;
        // What an earlier process threw away below the compact revision is gone for everyone.
        let holds = Holds::new(meta.compact);
        let purger = Purger::resume(&view, &meta)?;
        #[cfg(feature = "mutants")]
        if crate::mutants::planted("revision-from-the-newest-record") {
            go_back_to_the_newest_record(&db, &view, meta)?;
        }
        Ok(Store { shared: Shared { db, holds, hashes: Arc::default(), counters: Arc::default() }, purger })
    }

    /// A handle that reads from any thread.
    pub fn reader(&self) -> Reader {
        Reader::new(self.shared.clone())
    }

    fn meta(&self) -> Result<Meta> {
        Meta::of(&self.shared.db.view())
    }

    /// The current revision.
    pub fn revision(&self) -> Result<i64> {
        Ok(self.meta()?.revision)
    }

    /// The compact revision; -1 before the first compaction.
    pub fn compact_revision(&self) -> Result<i64> {
        Ok(self.meta()?.compact)
    }

    /// Stored bytes, keys included, of the newest revision of each live key. Depends on applied
    /// requests alone.
    pub fn live_bytes(&self) -> Result<i64> {
        Ok(self.meta()?.live_bytes)
    }

    /// Begins to apply a batch of requests in one transaction of the engine.
    ///
    /// # Errors
    /// [`Error::Poisoned`](cairn_engine::Error::Poisoned) after any failed write or sync.
    pub fn batch(&mut self) -> Result<Batch<'_>> {
        Batch::begin(&self.shared, &mut self.purger)
    }

    /// The newest compact revision whose purge is done; -1 if none is known to be.
    pub fn purged_revision(&self) -> i64 {
        self.purger.finished()
    }

    /// Purges a bounded part of what compactions have made unreadable.
    ///
    /// # Errors
    /// Any engine error; the step can be called again if it was no failed write.
    pub fn purge_step(&mut self, budget: PurgeBudget) -> Result<PurgeProgress> {
        self.purger.step(&self.shared, budget)
    }
}

#[cfg(feature = "mutants")]
fn go_back_to_the_newest_record(db: &Db, view: &cairn_engine::View, meta: Meta) -> Result<()> {
    let mut cursor = view.cursor(&crate::trees::REV);
    cursor.seek_end();
    let Some((key, _)) = cursor.prev()? else { return Ok(()) };
    let revision = crate::index::revision_of("rev", key)?.main;
    if revision < meta.revision {
        let txn = db.begin()?;
        let compact = meta.compact.min(revision);
        let owner = Meta { revision, compact, ..meta }.encode();
        let commit = cairn_engine::CommitMeta { owner, ..txn.meta().clone() };
        txn.commit(commit, view.stamp())?;
    }
    Ok(())
}

/// Damage in a tree's content that the checksums of its pages did not see.
pub(crate) fn damaged(tree: &str, what: impl Into<String>) -> Corruption {
    Corruption::new(Path::new("engine.db"), what).tree(tree)
}
