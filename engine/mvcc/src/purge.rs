// SPDX-License-Identifier: Apache-2.0
//! The purge: what compactions made unreadable is taken out of the trees, a slice at a time.
//!
//! Owns      the compactions that wait for it, how far it has come, and the hash each leaves behind.
//! Holds     1. work follows the garbage: a scan of `hist` up to the compact revision knows every
//!              superseded record, and nothing else is read;
//!           2. `hist` is cut only once the records are out of the file, so that a crash at any point
//!              leaves enough to do it again, and hashes right;
//!           3. nothing is taken that a held revision needs, unless the owner says to wait no longer.
//! Never     changes what a read at or above the compact revision gives.

use std::collections::VecDeque;

use cairn_engine::failpoints::reach;
use cairn_engine::{AppendKey, PurgeRequest, Result, Seq, View};

use crate::counts::Counts;
use crate::hash::{HASHED_STORE_BYTES_MAX, HashScan, compaction_scan};
use crate::index::{Snapshot, cell_of, entry_of, revision_of};
use crate::meta::{Meta, NEVER_COMPACTED};
use crate::mutants::planted;
use crate::outcome::Revision;
use crate::store::Shared;
use crate::trees::{HIST, IDX, REV};

/// Records handed to the engine before the purge waits for a checkpoint: their keys stay in memory.
const WAITING_MAX: usize = 1 << 20;

/// How much one step may do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PurgeBudget {
    /// Entries of `hist` or records that are looked at.
    pub entries: usize,
    /// Go on although older revisions are held: whoever holds them gets an error.
    pub break_holds: bool,
}

/// Where the purge stands after a step.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PurgeProgress {
    /// There is nothing to do.
    Idle,
    /// There is more to do at once.
    More,
    /// A read holds a revision below the compact one; the lowest such.
    Held(i64),
    /// The next thing to do follows a checkpoint.
    AwaitsCheckpoint,
    /// The purge of this compaction is done, and its hash remembered if it leaves one.
    Done(i64),
}

/// A compaction as it was applied.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Compaction {
    /// The compact revision before.
    pub(crate) prev: i64,
    pub(crate) revision: i64,
}

struct Job {
    compaction: Compaction,
    phase: Phase,
    /// Whether the compaction before was done when this one was applied.
    remember: bool,
}

enum Phase {
    Begin,
    Hash(Box<HashScan>),
    Scan,
}

/// The purge of a store.
pub(crate) struct Purger {
    jobs: VecDeque<Job>,
    /// The first entry of `hist` that was not looked at yet.
    from: Revision,
    /// `hist` can be cut below this once the engine has no purge waiting.
    cut: Option<Revision>,
    /// Keys handed to the engine since it last had none waiting.
    handed: usize,
    finished: i64,
}

impl Purger {
    /// Goes on where an earlier process stopped: `hist` shows it.
    pub(crate) fn resume(view: &View, meta: &Meta) -> Result<Purger> {
        let mut cursor = view.cursor(&HIST);
        let first = match cursor.next()? {
            Some((key, _)) => Some(revision_of("hist", key)?),
            None => None,
        };
        let unfinished = first.is_some_and(|first| first.main < meta.compact);
        let mut purger = Purger {
            jobs: VecDeque::new(),
            from: Revision::default(),
            cut: None,
            handed: 0,
            finished: if unfinished { NEVER_COMPACTED } else { meta.compact },
        };
        if unfinished {
            // The hashes of an earlier process are gone, and this one's would miss what was purged.
            let compaction = Compaction { prev: NEVER_COMPACTED, revision: meta.compact };
            purger.jobs.push_back(Job { compaction, phase: Phase::Begin, remember: false });
        }
        Ok(purger)
    }

    pub(crate) fn finished(&self) -> i64 {
        self.finished
    }

    pub(crate) fn enqueue(&mut self, compaction: Compaction) {
        let remember = self.jobs.is_empty();
        self.jobs.push_back(Job { compaction, phase: Phase::Begin, remember });
    }

    pub(crate) fn step(&mut self, shared: &Shared, budget: PurgeBudget) -> Result<PurgeProgress> {
        let waiting = shared.db.purges_waiting() > 0;
        if !waiting {
            self.handed = 0;
            if let Some(cut) = self.cut.take() {
                shared.db.purge(&HIST, PurgeRequest::Below(cut.to_key()), shared.db.view().seq());
            }
        }
        let Some(job) = self.jobs.front_mut() else {
            let awaits = self.cut.is_some();
            return Ok(if awaits { PurgeProgress::AwaitsCheckpoint } else { PurgeProgress::Idle });
        };
        let Compaction { prev, revision } = job.compaction;
        match &mut job.phase {
            Phase::Begin => {
                if budget.break_holds {
                    shared.holds.force(revision);
                }
                let floor = shared.holds.raise(revision);
                if floor < revision {
                    return Ok(PurgeProgress::Held(floor));
                }
                let snapshot = Snapshot::new(&shared.db);
                let meta = Meta::of(&snapshot.view())?;
                // Zero asks for the hash of now, which one of revision 0 must not answer (HASH-12).
                let remember = job.remember && revision > 0 && meta.live_bytes < HASHED_STORE_BYTES_MAX;
                job.phase = if remember {
                    Phase::Hash(compaction_scan(&shared.db, &snapshot, prev, revision, meta.revision)?.into())
                } else {
                    Phase::Scan
                };
                Ok(PurgeProgress::More)
            }
            Phase::Hash(scan) => {
                if let Some(done) = scan.advance(budget.entries.max(1))? {
                    shared.hashes.remember(done);
                    job.phase = Phase::Scan;
                }
                Ok(PurgeProgress::More)
            }
            Phase::Scan if waiting && self.handed >= WAITING_MAX => Ok(PurgeProgress::AwaitsCheckpoint),
            Phase::Scan => {
                if !self.scan(shared, revision, budget.entries.max(1))? {
                    return Ok(PurgeProgress::More);
                }
                reach("compactBeforeSetFinishedCompact");
                self.jobs.pop_front();
                self.finished = revision;
                self.cut = self.cut.max(Some(Revision::new(revision.max(0), 0)));
                reach("compactAfterSetFinishedCompact");
                Ok(PurgeProgress::Done(revision))
            }
        }
    }

    /// Looks at the next entries of `hist` and hands over what they supersede; `true` at the end.
    fn scan(&mut self, shared: &Shared, compact: i64, entries: usize) -> Result<bool> {
        reach("compactAfterAcquiredBatchTxLock");
        let view = shared.db.view();
        let mut cursor = view.cursor(&HIST);
        cursor.seek(&self.from.to_key());
        let mut garbage: Vec<AppendKey> = Vec::new();
        let mut dead: Vec<(Vec<u8>, Revision)> = Vec::new();
        let mut next = Revision::end_of(compact);
        let mut ended = true;
        for seen in 0.. {
            let Some((key, value)) = cursor.next()? else { break };
            let revision = revision_of("hist", key)?;
            if revision.main > compact {
                break;
            }
            if seen == entries {
                next = revision;
                ended = false;
                break;
            }
            let entry = entry_of(revision, value)?;
            // A tombstone below is garbage by itself; one in this revision is superseded within it.
            let prev = entry.prev.filter(|prev| !entry.creates() || prev.main == compact);
            garbage.extend(prev.map(Revision::to_key));
            let early = planted("tombstone-at-the-compact-revision-purged")
                || planted("revision-from-the-newest-record");
            if entry.delete && (revision.main < compact || early) {
                garbage.push(revision.to_key());
                let key = entry.key.expect("an entry of a delete is decoded with its key");
                dead.push((key.to_vec(), revision));
            }
        }
        // Entries at the compact revision itself stay for watchers, and are looked at again by the next.
        self.from = if ended { Revision::new(compact.max(0), 0) } else { next };
        reach("compactBeforeCommitBatch");
        let after = delete_cells(shared, &view, &dead)?;
        if !garbage.is_empty() {
            garbage.sort_unstable();
            garbage.dedup();
            self.handed += garbage.len();
            shared.counters.add(&Counts { purged: garbage.len() as u64, ..Counts::default() });
            shared.db.purge(&REV, PurgeRequest::Keys(garbage), after);
        }
        reach("compactAfterCommitBatch");
        Ok(ended)
    }
}

/// Deletes the index cells of keys whose newest change is the given tombstone. Gives the commit after
/// which the records can go.
fn delete_cells(shared: &Shared, view: &View, dead: &[(Vec<u8>, Revision)]) -> Result<Seq> {
    if dead.is_empty() {
        return Ok(view.seq());
    }
    let mut txn = shared.db.begin()?;
    for (key, tombstone) in dead {
        if let Some(cell) = txn.get(&IDX, key)?
            && cell_of(&cell)?.newest == *tombstone
        {
            txn.delete(&IDX, key, 0);
        }
    }
    let (meta, stamp) = (txn.meta().clone(), view.stamp());
    txn.commit(meta, stamp)
}
