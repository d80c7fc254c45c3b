// SPDX-License-Identifier: Apache-2.0
//! HashKV: etcd's hash of the revisions, to the bit, and the hashes that compactions leave behind.
//!
//! Owns      the scan that computes one, and the newest ten that are remembered.
//! Holds     1. a hash depends on logical state alone: how far a purge has come does not show;
//!           2. memory is bounded: what is superseded is gathered a window of revisions at a time;
//!           3. no slice sees less than the one before: each takes a newer view, and whatever a purge takes meanwhile
//!              is of no account to the hash. A hold on the compact revision keeps later purges away.
//! Never     holds a view between two slices: an old checkpoint keeps space from being used again.

use std::collections::{BTreeMap, BinaryHeap};
use std::sync::Mutex;

use cairn_engine::{Db, Error, Result, View};

use crate::holds::RevisionHold;
use crate::index::{self, STEPS_A_VIEW, Snapshot, entry_of, known_key_of, revision_of};
use crate::kv::Record;
use crate::meta::NEVER_COMPACTED;
use crate::ops::KeyRange;
use crate::outcome::{OpError, Revision};
use crate::read::Reader;
use crate::store::damaged;
use crate::trees::{HIST, REV};

/// Hashes of compactions that are remembered.
pub const HASHES_MAX: usize = 10;

/// Above this many live bytes a compaction leaves no hash: it would read the whole store each time.
pub const HASHED_STORE_BYTES_MAX: i64 = 256 << 20;

/// Superseded revisions that are gathered at a time.
const WINDOW: usize = 1 << 20;

/// How often a hash is begun anew because a purge waited for it for too long.
const RESTARTS_MAX: u32 = 3;

/// What every hash begins with: the bucket's name.
const SEED: &[u8] = b"key";

/// A hash, and what it is of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HashDone {
    /// The store's revision when it was asked.
    pub revision: i64,
    pub hash: u32,
    /// The compact revision that the hash takes into account; -1 for none.
    pub compact_revision: i64,
    /// The revision up to which was hashed.
    pub hash_revision: i64,
}

/// The remembered hashes, by the revision they are of.
#[derive(Debug, Default)]
pub(crate) struct Hashes(Mutex<BTreeMap<i64, HashDone>>);

impl Hashes {
    fn get(&self, revision: i64) -> Option<HashDone> {
        self.0.lock().expect("no one panics while looking up a hash").get(&revision).copied()
    }

    fn all(&self) -> Vec<HashDone> {
        self.0.lock().expect("no one panics while looking up a hash").values().copied().collect()
    }

    pub(crate) fn remember(&self, done: HashDone) {
        let mut hashes = self.0.lock().expect("no one panics while storing a hash");
        hashes.insert(done.hash_revision, done);
        while hashes.len() > HASHES_MAX {
            hashes.pop_first();
        }
    }
}

impl Reader {
    /// The hash of all revisions up to `revision`, zero for the current one. Reads the whole store; see
    /// [`hash_scan`](Reader::hash_scan) to do it in slices.
    ///
    /// # Errors
    /// [`OpError::FutureRevision`]; [`OpError::Compacted`] below the compact revision, unless that
    /// compaction's hash is remembered.
    pub fn hash_kv(&self, revision: i64) -> Result<HashDone, OpError> {
        hash_whole(|| self.hash_scan(revision))
    }

    /// As [`hash_kv`](Reader::hash_kv), but never what a compaction left: where no key is live, that is another hash
    /// than a member comes to that did not see the compaction yet, of the same revisions (HASH-9). Members that hold
    /// the same, and say the same compact revision, give the same here.
    ///
    /// # Errors
    /// [`OpError::FutureRevision`]; [`OpError::Compacted`] below the compact revision.
    pub fn hash_kv_anew(&self, revision: i64) -> Result<HashDone, OpError> {
        hash_whole(|| self.scan_anew(revision))
    }

    /// The hashes that compactions left, as far as they are remembered, by revision.
    pub fn compaction_hashes(&self) -> Vec<HashDone> {
        self.shared.hashes.all()
    }

    /// As [`hash_kv`](Reader::hash_kv), to be driven by its caller. It holds the compact revision until it is done.
    pub fn hash_scan(&self, revision: i64) -> Result<HashScan, OpError> {
        // One of revision 0, left by Compact(0), would answer for every revision that is the current one.
        if let Some(done) = self.shared.hashes.get(revision).filter(|_| revision != 0) {
            let revision = self.revision()?;
            return Ok(HashScan::known(HashDone { revision, ..done }));
        }
        self.scan_anew(revision)
    }

    fn scan_anew(&self, revision: i64) -> Result<HashScan, OpError> {
        loop {
            // Below zero nothing is hashed, and nothing is compacted either.
            let reading = self.read_at(revision)?;
            let compact = reading.meta.compact;
            // The floor may have passed it meanwhile; a newer view shows why.
            let Some(hold) = self.shared.holds.take(compact) else { continue };
            let at = if revision == 0 { reading.meta.revision } else { revision };
            let live = at < 0 || reading.end(is_any_live(&reading.snapshot, at))?;
            let scan = HashScan::new(&self.shared.db, compact, at, reading.meta.revision, live);
            return Ok(HashScan { hold: Some(hold), ..scan });
        }
    }
}

/// Drives a scan to its end, and begins it anew for a few times if a purge did not wait for it.
fn hash_whole(begin: impl Fn() -> Result<HashScan, OpError>) -> Result<HashDone, OpError> {
    let mut restarts = 0;
    loop {
        let mut scan = begin()?;
        let ended = loop {
            match scan.step(STEPS_A_VIEW as usize) {
                Ok(None) => {}
                Ok(Some(done)) => return Ok(done),
                Err(error) => break error,
            }
        };
        // What a purge that waited no longer has left is hashed, if the revision is still there.
        restarts += 1;
        if !matches!(ended, OpError::Compacted) || restarts > RESTARTS_MAX {
            return Err(ended);
        }
    }
}

/// Whether any key is there at `at`.
pub(crate) fn is_any_live(snapshot: &Snapshot<'_>, at: i64) -> Result<bool> {
    let all = KeyRange::all();
    let count = index::count(snapshot, &all, std::ops::Bound::Unbounded, Revision::end_of(at))?;
    Ok(count > 0)
}

/// A hash while it is computed.
pub struct HashScan {
    /// Where it is read; `None` if the hash is known.
    db: Option<Db>,
    /// Keeps all that is hashed; `None` if whoever drives the scan sees to that.
    hold: Option<RevisionHold>,
    done: HashDone,
    /// Revisions at or below the compact one count if they are live at this one: the hashed one, but
    /// where no key is live there, the compact one itself, which is what a purge leaves (HASH-7).
    horizon: i64,
    phase: Phase,
    /// Revisions up to this one have their superseded ones gathered.
    gathered: Revision,
    superseded: Vec<Revision>,
    /// Most of them at a time.
    window: usize,
}

enum Phase {
    /// Gathering what is superseded after `gathered`, from this entry of `hist` on; largest first.
    Gather(Revision, BinaryHeap<Revision>),
    /// Hashing, from this record on.
    Sum(Revision),
    Done,
}

impl HashScan {
    fn new(db: &Db, compact: i64, at: i64, current: i64, any_live: bool) -> HashScan {
        let done = HashDone {
            revision: current,
            hash: crc32c::crc32c(SEED),
            compact_revision: compact,
            hash_revision: at,
        };
        let phase = if compact > 0 {
            Phase::Gather(Revision::default(), BinaryHeap::new())
        } else {
            Phase::Sum(Revision::default())
        };
        HashScan {
            db: Some(db.clone()),
            hold: None,
            done,
            horizon: if any_live { at } else { compact },
            phase,
            gathered: Revision::default(),
            superseded: Vec::new(),
            window: WINDOW,
        }
    }

    fn known(done: HashDone) -> HashScan {
        HashScan {
            db: None,
            hold: None,
            done,
            horizon: done.hash_revision,
            phase: Phase::Done,
            gathered: Revision::default(),
            superseded: Vec::new(),
            window: WINDOW,
        }
    }

    /// Looks at up to `entries` more entries, as they are now; the hash once it is complete.
    ///
    /// # Errors
    /// [`OpError::Compacted`] if a purge waited for it in vain.
    pub fn step(&mut self, entries: usize) -> Result<Option<HashDone>, OpError> {
        let done = self.advance(entries);
        if self.hold.as_ref().is_some_and(|hold| !hold.is_intact()) {
            return Err(OpError::Compacted);
        }
        let done = done?;
        if done.is_some() {
            self.hold = None;
        }
        Ok(done)
    }

    /// The same, where nothing can be purged meanwhile that the hash needs.
    pub(crate) fn advance(&mut self, entries: usize) -> Result<Option<HashDone>> {
        let Some(db) = &self.db else { return Ok(Some(self.done)) };
        let view = db.view();
        match std::mem::replace(&mut self.phase, Phase::Done) {
            Phase::Gather(from, gathered) => self.gather(&view, from, gathered, entries)?,
            Phase::Sum(from) => self.sum(&view, from, entries)?,
            Phase::Done => {}
        }
        Ok(matches!(self.phase, Phase::Done).then_some(self.done))
    }

    /// Gathers the revisions at or below the compact one that a later change up to the horizon has
    /// superseded, the lowest ones above those gathered before.
    fn gather(
        &mut self,
        view: &View,
        from: Revision,
        mut lowest: BinaryHeap<Revision>,
        entries: usize,
    ) -> Result<()> {
        let compact = Revision::end_of(self.done.compact_revision);
        let mut cursor = view.cursor(&HIST);
        cursor.seek(&from.to_key());
        let mut seen = 0;
        while let Some((key, value)) = cursor.next()? {
            let revision = revision_of("hist", key)?;
            if revision.main > self.horizon {
                break;
            }
            if seen == entries {
                self.phase = Phase::Gather(revision, lowest);
                return Ok(());
            }
            seen += 1;
            let entry = entry_of(revision, value)?;
            let prev = entry.prev.filter(|&prev| !entry.creates() && prev > self.gathered && prev <= compact);
            lowest.extend(prev);
            if lowest.len() > self.window {
                lowest.pop();
            }
        }
        let from = self.gathered;
        self.gathered =
            if lowest.len() < self.window { compact } else { *lowest.peek().expect("it is full") };
        self.superseded = lowest.into_sorted_vec();
        self.phase = Phase::Sum(Revision::new(from.main, from.sub + i64::from(from.main > 0)));
        Ok(())
    }

    fn sum(&mut self, view: &View, from: Revision, entries: usize) -> Result<()> {
        let HashDone { compact_revision: compact, hash_revision: until, .. } = self.done;
        let mut cursor = view.cursor(&REV);
        cursor.seek(&from.to_key());
        let mut superseded = self.superseded.iter().copied().skip_while(|&s| s < from).peekable();
        let mut seen = 0;
        while let Some((key, value)) = cursor.next()? {
            let revision = revision_of("rev", key)?;
            if revision.main > until {
                break;
            }
            if seen == entries {
                self.phase = Phase::Sum(revision);
                return Ok(());
            }
            seen += 1;
            let filtered = revision.main <= compact;
            if filtered && revision > self.gathered {
                self.phase = Phase::Gather(Revision::default(), BinaryHeap::new());
                return Ok(());
            }
            let record = Record::new(value.clone());
            let record = record.ok_or_else(|| damaged("rev", format!("record of revision {revision}")))?;
            let tombstone = record.is_tombstone();
            if tombstone && filtered {
                continue;
            }
            if filtered {
                while superseded.next_if(|&s| s < revision).is_some() {}
                if superseded.next_if_eq(&revision).is_some() {
                    continue;
                }
            }
            self.done.hash = add(self.done.hash, revision, tombstone, hashed(&record, revision)?);
        }
        Ok(())
    }
}

fn hashed(record: &Record, revision: Revision) -> Result<&[u8]> {
    record.hashed().ok_or_else(|| Error::from(damaged("rev", format!("record of revision {revision}"))))
}

/// Adds an entry as etcd's file has it: the revision as key, a mark on tombstones, and the message.
fn add(hash: u32, revision: Revision, tombstone: bool, message: &[u8]) -> u32 {
    let mut key = [0; 18];
    key[..8].copy_from_slice(&revision.main.to_be_bytes());
    key[8] = b'_';
    key[9..17].copy_from_slice(&revision.sub.to_be_bytes());
    key[17] = b't';
    let key = if tombstone { &key[..] } else { &key[..17] };
    crc32c::crc32c_append(crc32c::crc32c_append(hash, key), message)
}

/// The hash that a compaction at `compact`, after one at `prev`, leaves behind. A tombstone at `compact`
/// counts as live here. The purge of that compaction drives it, so no other goes on meanwhile.
pub(crate) fn compaction_scan(
    db: &Db,
    snapshot: &Snapshot<'_>,
    prev: i64,
    compact: i64,
    current: i64,
) -> Result<HashScan> {
    let prev = prev.max(NEVER_COMPACTED);
    let live = is_any_live(snapshot, compact)? || is_tombstone_at(&snapshot.view(), compact)?;
    Ok(HashScan::new(db, prev, compact, current, live))
}

/// Whether a delete at main revision `main` is the last change of its key there.
fn is_tombstone_at(view: &View, main: i64) -> Result<bool> {
    let mut cursor = view.cursor(&HIST);
    cursor.seek(&Revision::new(main.max(0), 0).to_key());
    let mut last = BTreeMap::new();
    while let Some((key, value)) = cursor.next()? {
        let revision = revision_of("hist", key)?;
        if revision.main > main {
            break;
        }
        let entry = entry_of(revision, value)?;
        last.insert(known_key_of(view, revision, &entry)?.key()?.to_vec(), entry.delete);
    }
    Ok(last.into_values().any(|delete| delete))
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use cairn_engine::sim::SimVfs;
    use cairn_engine::{Db, InstallId, Options};

    use super::*;
    use crate::{DeleteOp, PurgeBudget, PurgeProgress, PutOp, RangeEnd, SCHEMA, Store};

    // rule: HASH-6
    #[test]
    fn a_hash_is_the_same_in_windows_and_slices_of_any_size() {
        let (_, store) = store();
        let reader = store.reader();
        let want = reader.hash_kv(280).expect("readable");
        for (window, entries) in [(1, 1000), (2, 3), (7, 1), (10, 64), (100, 7)] {
            let mut scan = reader.hash_scan(280).expect("readable");
            scan.window = window;
            let got = loop {
                if let Some(done) = scan.step(entries).expect("reads") {
                    break done;
                }
            };
            assert_eq!(got, want, "windows of {window}, slices of {entries}");
        }
    }

    fn store() -> (Db, Store) {
        let mut options = Options::default();
        options.vfs = Arc::new(SimVfs::new());
        let db = Db::create(Path::new("/member"), SCHEMA, InstallId(7), options).expect("a new store");
        let mut store = Store::open(db.clone()).expect("opens");
        change(&mut store, 0..300, Some(200));
        (db, store)
    }

    /// Puts, a delete beside one in nine, and then a compaction.
    fn change(store: &mut Store, puts: std::ops::Range<u64>, compact: Option<i64>) {
        let applied = puts.end;
        let mut batch = store.batch().expect("begins");
        for n in puts {
            let key = format!("k{}", n * n % 41);
            let value = Some(n.to_string().into());
            let put = PutOp { key: key.clone().into(), value, lease: Some(0), prev_kv: false };
            batch.put(&put, &|_| true).expect("applies");
            if n % 9 == 0 {
                let keys = KeyRange { key: key.into(), end: RangeEnd::Single };
                batch.delete_range(&DeleteOp { keys, prev_kv: false }).expect("applies");
            }
        }
        if let Some(compact) = compact {
            batch.compact(compact).expect("applies");
        }
        batch.commit(applied, 1).expect("commits");
    }

    fn purge(db: &Db, store: &mut Store, break_holds: bool) -> Vec<PurgeProgress> {
        let mut seen = Vec::new();
        loop {
            let step = store.purge_step(PurgeBudget { entries: 50, break_holds }).expect("purges");
            seen.push(step);
            match step {
                PurgeProgress::AwaitsCheckpoint => drop(db.checkpoint().expect("makes a checkpoint")),
                PurgeProgress::Idle | PurgeProgress::Held(_) => return seen,
                PurgeProgress::More | PurgeProgress::Done(_) => {}
            }
        }
    }

    // rule: HASH-6
    #[test]
    fn a_hash_goes_on_in_newer_views_while_what_it_does_not_need_is_purged() {
        let (db, mut store) = store();
        let reader = store.reader();
        let want = reader.hash_kv(280).expect("readable");
        db.checkpoint().expect("makes a checkpoint");
        let mut scan = reader.hash_scan(280).expect("readable");
        scan.window = 10;
        let mut applied = 300;
        let got = loop {
            if let Some(done) = scan.step(40).expect("reads") {
                break done;
            }
            let before = db.stats().checkpoint_seq;
            change(&mut store, applied..applied + 3, None);
            applied += 3;
            purge(&db, &mut store, false);
            db.checkpoint().expect("makes a checkpoint");
            db.note_readers(0);
            assert!(db.stats().oldest_reader_seq > before, "no checkpoint is held between two slices");
        };
        let steps = (applied - 300) / 3;
        assert!(steps > 10, "{steps} slices");
        assert_eq!(got, want);
    }

    // rule: HASH-6
    #[test]
    fn a_purge_waits_for_a_hash_and_one_that_waits_no_longer_ends_it() {
        let (db, mut store) = store();
        purge(&db, &mut store, false);
        let reader = store.reader();
        let want = reader.hash_kv(290).expect("readable");
        let mut scan = reader.hash_scan(290).expect("readable");
        assert_eq!(scan.step(10).expect("reads"), None);
        change(&mut store, 300..301, Some(280));
        assert_eq!(purge(&db, &mut store, false), [PurgeProgress::Held(200)]);
        assert_eq!(scan.step(usize::MAX).expect("reads"), None, "what is superseded");
        assert_eq!(scan.step(usize::MAX).expect("reads"), Some(want));
        let mut scan = reader.hash_scan(290).expect("readable");
        assert_eq!(
            purge(&db, &mut store, false).last(),
            Some(&PurgeProgress::Idle),
            "a hash that is done holds nothing"
        );
        assert_eq!(scan.done.compact_revision, 280);
        change(&mut store, 301..302, Some(285));
        assert_eq!(purge(&db, &mut store, false), [PurgeProgress::Held(280)]);
        assert_eq!(purge(&db, &mut store, true).last(), Some(&PurgeProgress::Idle));
        assert!(matches!(scan.step(10), Err(OpError::Compacted)));
        assert_eq!(reader.hash_kv(290).expect("readable").compact_revision, 285);
    }
}
