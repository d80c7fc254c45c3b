// SPDX-License-Identifier: Apache-2.0
//! Reading the key index: which revision of a key is seen from where, in what order, and how many there are.
//!
//! Owns      the walk over an interval of keys at a revision, the links into `hist`, and the counts.
//! Holds     1. an index cell may be newer than the view it is read through, so every cell is resolved at
//!              an explicit revision;
//!           2. a count is the index's weight less what `hist` shows to have happened since, or a walk,
//!              whichever is shorter; both give the same number.
//! Never     reads a record but to learn what an old revision's cell no longer says, or the key of a change that
//!           has it there.

use std::cell::{Cell as StdCell, RefCell};
use std::ops::Bound;

use cairn_engine::{Cursor, Db, Error, Result, TreeDef, Value, View, WriteTxn};

use crate::cell::{Cell, Life, Seen};
use crate::hist;
use crate::kv::Record;
use crate::ops::{KeyRange, RangeEnd};
use crate::outcome::Revision;
use crate::store::damaged;
use crate::trees::{HIST, IDX, REV};
use crate::txn::pair_of;

/// Something that the trees can be read through.
pub(crate) trait Trees {
    /// Lets go of what was read so far, if that is held; `true` if cursors are to be made anew.
    fn renew(&self) -> bool {
        false
    }
    fn get(&self, tree: &TreeDef, key: &[u8]) -> Result<Option<Value>>;
    fn cursor(&self, tree: &TreeDef) -> Cursor<'_>;
}

/// The one writer sees its own writes.
impl Trees for WriteTxn<'_> {
    fn get(&self, tree: &TreeDef, key: &[u8]) -> Result<Option<Value>> {
        WriteTxn::get(self, tree, key)
    }

    fn cursor(&self, tree: &TreeDef) -> Cursor<'_> {
        WriteTxn::cursor(self, tree)
    }
}

/// After so many keys or records a read goes on in a newer view, at its own revision: a long one holds no old checkpoint
/// for long, and so keeps no space from being used again.
pub(crate) const STEPS_A_VIEW: u32 = 16_384;

/// A reader's view, and the store to look for links that are newer than it.
pub(crate) struct Snapshot<'a> {
    db: &'a Db,
    view: RefCell<View>,
    /// Look-ups since the view was taken.
    steps: StdCell<u32>,
}

impl<'a> Snapshot<'a> {
    pub(crate) fn new(db: &'a Db) -> Self {
        Snapshot { db, view: RefCell::new(db.view()), steps: StdCell::new(0) }
    }

    /// The view that is read now.
    pub(crate) fn view(&self) -> View {
        self.view.borrow().clone()
    }

    /// A view that has all of `main`, which an ordered tree already shows: those are written a moment
    /// before the commit is published, and nothing but the publishing is left to do.
    fn view_of(&self, main: i64) -> View {
        let mut view = self.view();
        while signed(view.stamp()) < main {
            std::thread::yield_now();
            view = self.db.view();
        }
        view
    }
}

impl Trees for Snapshot<'_> {
    /// What a view shows at a revision that is held, a newer one shows too.
    fn renew(&self) -> bool {
        self.view.replace(self.db.view());
        self.steps.set(0);
        true
    }

    fn get(&self, tree: &TreeDef, key: &[u8]) -> Result<Option<Value>> {
        if tree.id == HIST.id {
            // A link of a cell that is newer than the view.
            let revision = revision_of("hist", key)?;
            return self.view_of(revision.main).get(tree, key);
        }
        self.steps.set(self.steps.get() + 1);
        if self.steps.get() == STEPS_A_VIEW {
            self.renew();
        }
        self.view.borrow().get(tree, key)
    }

    fn cursor(&self, tree: &TreeDef) -> Cursor<'_> {
        self.view.borrow().cursor(tree)
    }
}

/// A key's revision as it is seen at some revision.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Found {
    pub(crate) revision: Revision,
    /// Known if this is the key's newest revision.
    pub(crate) life: Option<Life>,
}

pub(crate) fn cell_of(bytes: &[u8]) -> Result<Cell<'_>> {
    Cell::decode(bytes).ok_or_else(|| damaged("idx", "cell of a key").into())
}

pub(crate) fn record_at<T: Trees>(trees: &T, revision: Revision) -> Result<Record> {
    record_of(revision, trees.get(&REV, &revision.to_key())?)
}

fn record_of(revision: Revision, value: Option<Value>) -> Result<Record> {
    let record = value.and_then(Record::new);
    record.ok_or_else(|| Error::from(damaged("rev", format!("record of revision {revision}"))))
}

pub(crate) fn entry_of(at: Revision, bytes: &[u8]) -> Result<hist::Entry<'_>> {
    hist::Entry::decode(at, bytes)
        .ok_or_else(|| Error::from(damaged("hist", format!("entry of revision {at}"))))
}

/// Where the key of a change is read.
pub(crate) enum ChangeKey<'e> {
    Entry(&'e [u8]),
    Record(Record),
}

impl ChangeKey<'_> {
    pub(crate) fn key(&self) -> Result<&[u8]> {
        match self {
            ChangeKey::Entry(key) => Ok(key),
            ChangeKey::Record(record) => Ok(pair_of(record)?.key),
        }
    }
}

/// The key of the change at `at`. `None` if it is in a record, and there is none: at or below the compact
/// revision that of a superseded change may be gone already.
pub(crate) fn key_of<'e>(
    view: &View,
    at: Revision,
    entry: &hist::Entry<'e>,
) -> Result<Option<ChangeKey<'e>>> {
    match entry.key {
        Some(key) => Ok(Some(ChangeKey::Entry(key))),
        None => match view.get(&REV, &at.to_key())? {
            Some(value) => record_of(at, Some(value)).map(|record| Some(ChangeKey::Record(record))),
            None => Ok(None),
        },
    }
}

/// As [`key_of`], for a change whose record must be there.
pub(crate) fn known_key_of<'e>(view: &View, at: Revision, entry: &hist::Entry<'e>) -> Result<ChangeKey<'e>> {
    match key_of(view, at, entry)? {
        Some(key) => Ok(key),
        None => record_of(at, None).map(ChangeKey::Record),
    }
}

pub(crate) fn revision_of(tree: &'static str, key: &[u8]) -> Result<Revision> {
    Revision::from_key(key).ok_or_else(|| damaged(tree, "key of a revision").into())
}

/// Which revision of a cell's key is seen at `at`.
pub(crate) fn resolve<T: Trees>(trees: &T, cell: &Cell<'_>, at: Revision) -> Result<Option<Found>> {
    let seen = cell.seen(at).ok_or_else(|| Error::from(damaged("idx", "older revisions of a key")))?;
    match seen {
        Seen::Absent => Ok(None),
        Seen::Newest(life) => Ok(Some(Found { revision: cell.newest, life: Some(life) })),
        Seen::Older(revision) => Ok(Some(Found { revision, life: None })),
        Seen::Before(oldest) => Ok(follow(trees, oldest, at)?.map(|revision| Found { revision, life: None })),
    }
}

/// The newest change of a key at or before `at` that is not a tombstone, by the links from `newer`.
fn follow<T: Trees>(trees: &T, mut newer: Revision, at: Revision) -> Result<Option<Revision>> {
    loop {
        // Entries above the compact revision stay, and a reader is at or above it.
        let value = trees.get(&HIST, &newer.to_key())?;
        let value = value.ok_or_else(|| damaged("hist", format!("no entry of revision {newer}")))?;
        let entry = entry_of(newer, &value)?;
        match entry.prev {
            None => return Ok(None),
            Some(prev) if prev <= at => return Ok((!entry.creates()).then_some(prev)),
            Some(prev) => newer = prev,
        }
    }
}

/// What is seen of one key at `at`.
pub(crate) fn find<T: Trees>(trees: &T, key: &[u8], at: Revision) -> Result<Option<Found>> {
    match trees.get(&IDX, key)? {
        None => Ok(None),
        Some(bytes) => resolve(trees, &cell_of(&bytes)?, at),
    }
}

/// Keys of an interval that are there at a revision, in order, from either end.
pub(crate) struct Walk<'a, T> {
    trees: &'a T,
    cursor: Cursor<'a>,
    keys: &'a KeyRange,
    at: Revision,
    key: Vec<u8>,
    /// Keys passed since the cursor was made, and the last of them where it is to be made anew.
    steps: u32,
    last: Vec<u8>,
}

impl<'a, T: Trees> Walk<'a, T> {
    fn new(trees: &'a T, keys: &'a KeyRange, at: Revision) -> Self {
        Walk { trees, cursor: trees.cursor(&IDX), keys, at, key: Vec::new(), steps: 0, last: Vec::new() }
    }

    /// Before the first key of the interval.
    pub(crate) fn forward(trees: &'a T, keys: &'a KeyRange, at: Revision) -> Self {
        let mut walk = Walk::new(trees, keys, at);
        walk.cursor.seek(&keys.key);
        walk
    }

    /// After the last key of the interval.
    pub(crate) fn back(trees: &'a T, keys: &'a KeyRange, at: Revision) -> Self {
        let mut walk = Walk::new(trees, keys, at);
        match keys.upper() {
            Bound::Unbounded => walk.cursor.seek_end(),
            Bound::Included(key) => walk.cursor.seek_after(key),
            Bound::Excluded(key) => walk.cursor.seek(key),
        }
        walk
    }

    /// Makes the cursor anew where that lets go of something. It has to be moved to where the old one was.
    fn renew(&mut self) -> bool {
        self.steps = 0;
        let renewed = self.trees.renew();
        if renewed {
            self.cursor = self.trees.cursor(&IDX);
        }
        renewed
    }

    /// The next key that is there.
    pub(crate) fn next(&mut self) -> Result<Option<(&[u8], Found)>> {
        loop {
            if self.steps == STEPS_A_VIEW && self.renew() {
                self.cursor.seek_after(&self.last);
            }
            let Some((key, value)) = self.cursor.next()? else { return Ok(None) };
            if self.keys.is_past(key) {
                return Ok(None);
            }
            step(&mut self.steps, &mut self.last, key);
            if let Some(found) = resolve(self.trees, &cell_of(value)?, self.at)? {
                self.key.clear();
                self.key.extend_from_slice(key);
                return Ok(Some((&self.key, found)));
            }
        }
    }

    /// The key before that is there.
    pub(crate) fn prev(&mut self) -> Result<Option<(&[u8], Found)>> {
        loop {
            if self.steps == STEPS_A_VIEW && self.renew() {
                self.cursor.seek(&self.last);
            }
            let Some((key, value)) = self.cursor.prev()? else { return Ok(None) };
            if key < &self.keys.key[..] {
                return Ok(None);
            }
            step(&mut self.steps, &mut self.last, key);
            if let Some(found) = resolve(self.trees, &cell_of(value)?, self.at)? {
                self.key.clear();
                self.key.extend_from_slice(key);
                return Ok(Some((&self.key, found)));
            }
        }
    }
}

/// A walk has passed `key`.
fn step(steps: &mut u32, last: &mut Vec<u8>, key: &[u8]) {
    *steps += 1;
    if *steps == STEPS_A_VIEW {
        last.clear();
        last.extend_from_slice(key);
    }
}

/// How many keys of `keys` beyond the bound `lo` are there at `at`.
pub(crate) fn count(snapshot: &Snapshot<'_>, keys: &KeyRange, lo: Bound<&[u8]>, at: Revision) -> Result<i64> {
    if let (RangeEnd::Until(end), Bound::Included(from) | Bound::Excluded(from)) = (&keys.end, lo)
        && end <= from
    {
        return Ok(0);
    }
    let (weight, stamp) = snapshot.view().weight(&IDX, lo, keys.upper())?;
    let (weight, stamp) = (signed(weight), signed(stamp));
    let weighed_at = Revision::end_of(stamp);
    if weighed_at <= at {
        return Ok(weight);
    }
    let view = snapshot.view_of(stamp);
    let (from, to) = (at.to_key(), weighed_at.to_key());
    let (changes, _) = view.weight(&HIST, Bound::Excluded(&from), Bound::Included(&to))?;
    if signed(changes) <= weight {
        return Ok(weight - born_since(&view, keys, lo, at, weighed_at)?);
    }
    walk_count(snapshot, keys, lo, at)
}

fn signed(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// Keys of the interval that were created less those that were deleted after `at`, up to `to`.
fn born_since(view: &View, keys: &KeyRange, lo: Bound<&[u8]>, at: Revision, to: Revision) -> Result<i64> {
    let mut cursor = view.cursor(&HIST);
    cursor.seek_after(&at.to_key());
    let mut born = 0;
    while let Some((key, value)) = cursor.next()? {
        let revision = revision_of("hist", key)?;
        if revision > to {
            break;
        }
        let entry = entry_of(revision, value)?;
        let change = i64::from(entry.creates()) - i64::from(entry.delete);
        if change == 0 {
            continue;
        }
        let stands = known_key_of(view, revision, &entry)?;
        let key = stands.key()?;
        if keys.contains(key) && is_beyond(lo, key) {
            born += change;
        }
    }
    Ok(born)
}

fn is_beyond(lo: Bound<&[u8]>, key: &[u8]) -> bool {
    match lo {
        Bound::Unbounded => true,
        Bound::Included(from) => key >= from,
        Bound::Excluded(from) => key > from,
    }
}

fn walk_count(snapshot: &Snapshot<'_>, keys: &KeyRange, lo: Bound<&[u8]>, at: Revision) -> Result<i64> {
    let mut walk = Walk::forward(snapshot, keys, at);
    match lo {
        Bound::Unbounded => walk.cursor.seek_start(),
        Bound::Included(from) => walk.cursor.seek(from),
        Bound::Excluded(from) => walk.cursor.seek_after(from),
    }
    let mut count = 0;
    while walk.next()?.is_some() {
        count += 1;
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use bytes::Bytes;
    use cairn_engine::sim::SimVfs;
    use cairn_engine::{InstallId, Options};

    use super::*;
    use crate::{DeleteOp, PutOp, SCHEMA, Store};

    const KEYS: u32 = 2 * STEPS_A_VIEW + 100;

    fn key(n: u32) -> Bytes {
        Bytes::copy_from_slice(&n.to_be_bytes())
    }

    #[test]
    fn a_long_walk_goes_on_in_newer_views_at_its_own_revision() {
        let disk = SimVfs::new();
        disk.stop_recording();
        let mut options = Options::default();
        options.vfs = Arc::new(disk);
        let db = Db::create(Path::new("/member"), SCHEMA, InstallId(7), options).expect("a new store");
        let mut store = Store::open(db.clone()).expect("opens");
        let mut batch = store.batch().expect("begins");
        for n in 0..KEYS {
            let put = PutOp { key: key(n), value: Some("v".into()), lease: Some(0), prev_kv: false };
            batch.put(&put, &|_| true).expect("applies");
        }
        let revision = batch.revision();
        batch.commit(1, 1).expect("commits");
        db.checkpoint().expect("makes a checkpoint");
        let _hold = store.reader().hold(revision).expect("is there");
        let all = KeyRange::all();
        for back in [false, true] {
            let snapshot = Snapshot::new(&db);
            let begun_at = db.stats().checkpoint_seq;
            let at = Revision::end_of(revision);
            let mut walk =
                if back { Walk::back(&snapshot, &all, at) } else { Walk::forward(&snapshot, &all, at) };
            let mut held_until = None;
            for step in 0..KEYS {
                let want = if back { KEYS - 1 - step } else { step };
                let found = if back { walk.prev() } else { walk.next() };
                let (found, _) = found.expect("walks").expect("all keys are there at the revision");
                assert_eq!(found, &key(want)[..], "step {step}");
                if step % 5000 == 0 {
                    // Keys on both sides of the walk come and go.
                    let mut batch = store.batch().expect("begins");
                    let keys = crate::KeyRange { key: key(KEYS / 2 + step), end: RangeEnd::Single };
                    batch.delete_range(&DeleteOp { keys, prev_kv: false }).expect("applies");
                    batch
                        .commit(u64::from(step) + u64::from(KEYS) * (1 + u64::from(back)), 1)
                        .expect("commits");
                    db.checkpoint().expect("makes a checkpoint");
                    db.note_readers(0);
                    if held_until.is_none() && db.stats().oldest_reader_seq > begun_at {
                        held_until = Some(step);
                    }
                }
            }
            let held_until = held_until.expect("the first view was let go of");
            assert!((STEPS_A_VIEW..STEPS_A_VIEW + 5000).contains(&held_until), "held for {held_until} keys");
        }
    }
}
