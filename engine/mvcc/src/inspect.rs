// SPDX-License-Identifier: Apache-2.0
//! A store looked at from outside: its pairs and changes at one checkpoint, and whether its trees agree.
//!
//! Owns      reading through a view that nobody writes to, and the check of what the trees say of each other.
//! Holds     1. a pair at a revision is what a client would be answered, or it is refused as compacted or future;
//!           2. what is purged is not missed: below the compact revision nothing has to be there.
//! Never     writes, holds a revision, or knows how the view was come by.

use std::ops::ControlFlow;

use bytes::Bytes;
use cairn_engine::{Corruption, Cursor, Result, TreeDef, Value, View};

use crate::batch::{REVISION_BYTES, small_scan};
use crate::cell::Life;
use crate::index::{self, Trees, Walk, cell_of, entry_of, record_at, revision_of};
use crate::kv::{KvRef, Record};
use crate::meta::Meta;
use crate::ops::KeyRange;
use crate::outcome::{OpError, Revision};
use crate::store::damaged;
use crate::trees::{ATTACH, HIST, IDX, REV, SmallTree};
use crate::txn::{check_revision, pair_of};

/// Nobody writes to what this view reads.
impl Trees for View {
    fn get(&self, tree: &TreeDef, key: &[u8]) -> Result<Option<Value>> {
        View::get(self, tree, key)
    }

    fn cursor(&self, tree: &TreeDef) -> Cursor<'_> {
        View::cursor(self, tree)
    }
}

/// One change of one key, as it is stored.
#[derive(Clone, Copy, Debug)]
pub struct Change<'a> {
    pub revision: Revision,
    pub delete: bool,
    /// Of a delete, key and mod revision alone.
    pub kv: KvRef<'a>,
}

/// What a check of the trees against each other went through.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct ContentCheck {
    /// Records of pairs and tombstones.
    pub records: u64,
    /// Entries of the history.
    pub changes: u64,
    /// Cells of the key index.
    pub keys: u64,
    /// Those of keys that live.
    pub live_keys: u64,
    /// Keys attached to leases.
    pub attachments: u64,
}

/// The state of a store in a view of its trees.
pub struct Stored {
    view: View,
    meta: Meta,
}

impl Stored {
    /// Takes the view of a checkpoint.
    ///
    /// # Errors
    /// If what the checkpoint says of the store cannot be read.
    pub fn new(view: View) -> Result<Stored> {
        let meta = Meta::of(&view)?;
        Ok(Stored { view, meta })
    }

    /// The revision that the store is at.
    pub fn revision(&self) -> i64 {
        self.meta.revision
    }

    /// The compact revision; -1 before the first compaction.
    pub fn compact_revision(&self) -> i64 {
        self.meta.compact
    }

    /// [`Store::live_bytes`](crate::Store::live_bytes).
    pub fn live_bytes(&self) -> i64 {
        self.meta.live_bytes
    }

    /// The message of the pair of `key` as it was at `revision`, zero and below for the newest; `None` if it was not
    /// there.
    ///
    /// # Errors
    /// [`OpError::Compacted`], [`OpError::FutureRevision`]; what the trees answer.
    pub fn get(&self, key: &[u8], revision: i64) -> Result<Option<Bytes>, OpError> {
        let found = index::find(&self.view, key, self.end_of(revision)?)?;
        let record = found.map(|found| record_at(&self.view, found.revision)).transpose()?;
        Ok(record.map(Record::into_message))
    }

    /// Shows the pairs of `keys` as they were at `revision`, zero and below for the newest, in order of key, until
    /// `each` breaks off.
    ///
    /// # Errors
    /// As [`get`](Stored::get).
    pub fn keys<E: From<OpError>>(
        &self,
        keys: &KeyRange,
        revision: i64,
        mut each: impl FnMut(KvRef<'_>) -> Result<ControlFlow<()>, E>,
    ) -> Result<(), E> {
        let mut walk = Walk::forward(&self.view, keys, self.end_of(revision)?);
        while let Some((_, found)) = walk.next().map_err(OpError::from)? {
            let record = record_at(&self.view, found.revision).map_err(OpError::from)?;
            if each(pair_of(&record).map_err(OpError::from)?)?.is_break() {
                break;
            }
        }
        Ok(())
    }

    /// Shows the changes that the state at `revision` is of, in order: of each key that was there the newest. With
    /// `history` also all changes behind it, and the deletes of that revision itself, which a watcher may still ask for.
    /// They start with the revision `from`.
    ///
    /// # Errors
    /// As [`get`](Stored::get).
    pub fn changes_at<E: From<OpError>>(
        &self,
        revision: i64,
        history: bool,
        from: Revision,
        mut each: impl FnMut(Change<'_>) -> Result<ControlFlow<()>, E>,
    ) -> Result<(), E> {
        let end = if revision > 0 { self.end_of(revision)? } else { Revision::default() };
        self.changes(from, |change| {
            if change.revision > end && !history {
                return Ok(ControlFlow::Break(()));
            }
            let counts = if change.revision > end {
                true
            } else if change.delete {
                history && change.revision.main == end.main
            } else {
                let found = index::find(&self.view, change.kv.key, end).map_err(OpError::from)?;
                found.is_some_and(|found| found.revision == change.revision)
            };
            if counts { each(change) } else { Ok(ControlFlow::Continue(())) }
        })
    }

    /// All of a small tree, in the order of keys.
    ///
    /// # Errors
    /// What the tree answers.
    pub fn small_scan(&self, tree: SmallTree) -> Result<Vec<(Bytes, Bytes)>> {
        small_scan(&self.view, tree)
    }

    fn end_of(&self, revision: i64) -> Result<Revision, OpError> {
        if revision <= 0 {
            return Ok(Revision::end_of(self.meta.revision));
        }
        check_revision(revision, self.meta.revision, self.meta.compact)?;
        Ok(Revision::end_of(revision))
    }

    /// Shows the changes from revision `from` on that are still stored, in order, until `each` breaks off.
    ///
    /// # Errors
    /// What the trees answer, and damage in what they hold.
    pub fn changes<E: From<OpError>>(
        &self,
        from: Revision,
        mut each: impl FnMut(Change<'_>) -> Result<ControlFlow<()>, E>,
    ) -> Result<(), E> {
        let mut cursor = self.view.cursor(&REV);
        cursor.seek(&from.to_key());
        while let Some((key, value)) = cursor.next().map_err(OpError::from)? {
            let revision = revision_of("rev", key).map_err(OpError::from)?;
            let record = stored_record(revision, value).map_err(OpError::from)?;
            let kv = pair_of(&record).map_err(OpError::from)?;
            if each(Change { revision, delete: record.is_tombstone(), kv })?.is_break() {
                break;
            }
        }
        Ok(())
    }

    /// Shows the changes of one key that are still stored, newest first.
    ///
    /// # Errors
    /// As [`changes`](Stored::changes).
    pub fn changes_of<E: From<OpError>>(
        &self,
        key: &[u8],
        mut each: impl FnMut(Change<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let cell = self.view.get(&IDX, key).map_err(OpError::from)?;
        let mut next = match cell.as_deref() {
            Some(cell) => Some(cell_of(cell).map_err(OpError::from)?.newest),
            None => None,
        };
        while let Some(revision) = next {
            let value = self.view.get(&REV, &revision.to_key()).map_err(OpError::from)?;
            // What a purge has taken is followed by nothing that it left.
            let Some(value) = value else { break };
            let record = stored_record(revision, &value).map_err(OpError::from)?;
            let kv = pair_of(&record).map_err(OpError::from)?;
            each(Change { revision, delete: record.is_tombstone(), kv })?;
            let entry = self.view.get(&HIST, &revision.to_key()).map_err(OpError::from)?;
            next = match entry.as_deref() {
                Some(entry) => entry_of(revision, entry).map_err(OpError::from)?.prev,
                None => None,
            };
        }
        Ok(())
    }

    /// Holds the trees against each other: records against history, index against records, leases against the
    /// index, live bytes against their sum. `found` is shown every contradiction, `tick` every entry.
    ///
    /// # Errors
    /// What the trees answer: a page that cannot be read ends the check.
    pub fn check(
        &self,
        tick: &mut dyn FnMut() -> Result<()>,
        found: &mut dyn FnMut(Corruption),
    ) -> Result<ContentCheck> {
        let mut check = Check { stored: self, tick, found, done: ContentCheck::default() };
        check.records()?;
        check.index()?;
        check.attachments()?;
        Ok(check.done)
    }
}

fn stored_record(revision: Revision, value: &Value) -> Result<Record> {
    Record::new(value.clone()).ok_or_else(|| damaged("rev", format!("record of revision {revision}")).into())
}

struct Check<'c> {
    stored: &'c Stored,
    tick: &'c mut dyn FnMut() -> Result<()>,
    found: &'c mut dyn FnMut(Corruption),
    done: ContentCheck,
}

impl Check<'_> {
    /// Records and history go side by side: both are in order of revision, and above the compact revision each
    /// change is in both.
    fn records(&mut self) -> Result<()> {
        let Stored { view, meta } = self.stored;
        let mut history = view.cursor(&HIST);
        let mut entry = history.next()?.map(|(key, value)| (key.to_vec(), value.clone()));
        let mut records = view.cursor(&REV);
        while let Some((key, value)) = records.next()? {
            (self.tick)()?;
            self.done.records += 1;
            let Some(revision) = Revision::from_key(key) else {
                (self.found)(damaged("rev", "key of a revision"));
                continue;
            };
            let record = Record::new(value.clone());
            let Some(kv) = record.as_ref().and_then(Record::kv) else {
                (self.found)(damaged("rev", format!("record of revision {revision}")));
                continue;
            };
            if kv.modified != revision.main || revision.main > meta.revision {
                let wrong = damaged("rev", format!("mod revision of the record of revision {revision}"));
                (self.found)(wrong.mismatch(revision.main.min(meta.revision), kv.modified));
            }
            while let Some((at, _)) = entry.as_ref().filter(|(at, _)| at[..] < *key) {
                if Revision::from_key(at).is_none_or(|at| at.main > meta.compact) {
                    let what = format!("record of revision {}", shown(at));
                    (self.found)(damaged("rev", what).mismatch("the one that the history names", "none"));
                }
                entry = self.next_change(&mut history)?;
            }
            match entry.as_ref().filter(|(at, _)| at[..] == *key) {
                Some((_, value)) => {
                    let delete = record.as_ref().is_some_and(Record::is_tombstone);
                    let same = entry_of(revision, value)
                        .is_ok_and(|e| e.key.is_none_or(|key| key == kv.key) && e.delete == delete);
                    if !same {
                        (self.found)(damaged("hist", format!("entry of revision {revision}")));
                    }
                    entry = self.next_change(&mut history)?;
                }
                None if revision.main > meta.compact => {
                    let what = format!("entry of revision {revision}");
                    (self.found)(damaged("hist", what).mismatch("the change that the record is of", "none"));
                }
                None => {}
            }
        }
        while let Some((at, _)) = entry {
            if Revision::from_key(&at).is_none_or(|at| at.main > meta.compact) {
                let what = format!("record of revision {}", shown(&at));
                (self.found)(damaged("rev", what).mismatch("the one that the history names", "none"));
            }
            entry = self.next_change(&mut history)?;
        }
        Ok(())
    }

    fn next_change(&mut self, history: &mut Cursor<'_>) -> Result<Option<(Vec<u8>, Value)>> {
        self.done.changes += 1;
        (self.tick)()?;
        Ok(history.next()?.map(|(key, value)| (key.to_vec(), value.clone())))
    }

    /// Each cell leads to the record of its newest revision, and says the same of it.
    fn index(&mut self) -> Result<()> {
        let Stored { view, meta } = self.stored;
        let (mut live_bytes, mut attached) = (0, 0);
        let mut cells = view.cursor(&IDX);
        while let Some((key, value)) = cells.next()? {
            (self.tick)()?;
            self.done.keys += 1;
            let Ok(cell) = cell_of(value) else {
                (self.found)(damaged("idx", format!("cell of key {}", key.escape_ascii())));
                continue;
            };
            let Some(life) = cell.life else {
                continue;
            };
            self.done.live_keys += 1;
            live_bytes += (life.size + REVISION_BYTES) as i64;
            attached += u64::from(life.lease != 0);
            let record = view.get(&REV, &cell.newest.to_key())?;
            let size = record.as_ref().map_or(0, |record| record.len() as u64);
            let record = record.and_then(Record::new);
            let said = record.as_ref().and_then(Record::kv).filter(|kv| kv.key == key).map(|kv| Life {
                create: kv.create,
                version: kv.version,
                size,
                lease: kv.lease,
            });
            if said != Some(life) {
                let what = format!("cell of key {} and revision {}", key.escape_ascii(), cell.newest);
                let found = said.map_or("no such record".to_owned(), |said| format!("{said:?}"));
                (self.found)(damaged("idx", what).mismatch(found, format_args!("{life:?}")));
            }
        }
        if live_bytes != meta.live_bytes {
            let wrong = damaged("idx", "live bytes that the checkpoint states against their sum");
            (self.found)(wrong.mismatch(live_bytes, meta.live_bytes));
        }
        self.done.attachments = attached;
        Ok(())
    }

    /// Each attachment is of a live key that has this lease; [`index`](Check::index) has counted those.
    fn attachments(&mut self) -> Result<()> {
        let view = &self.stored.view;
        let mut cursor = view.cursor(&ATTACH);
        let mut good = 0;
        while let Some((attachment, _)) = cursor.next()? {
            (self.tick)()?;
            let (lease, key) = attachment.split_first_chunk::<8>().unwrap_or((&[0; 8], attachment));
            let lease = i64::from_be_bytes(*lease);
            let cell = view.get(&IDX, key)?;
            let life = cell.as_deref().and_then(|cell| cell_of(cell).ok()).and_then(|cell| cell.life);
            if life.is_some_and(|life| life.lease == lease) {
                good += 1;
            } else {
                let what = format!("key {} attached to lease {lease:016x}", key.escape_ascii());
                let found =
                    life.map_or("no such key".to_owned(), |life| format!("lease {:016x}", life.lease));
                (self.found)(damaged("attach", what).mismatch("the lease of the key", found));
            }
        }
        if good < self.done.attachments {
            let wrong = damaged("attach", "keys with a lease");
            (self.found)(wrong.mismatch(self.done.attachments, good));
        }
        Ok(())
    }
}

fn shown(key: &[u8]) -> String {
    Revision::from_key(key).map_or_else(|| key.escape_ascii().to_string(), |revision| revision.to_string())
}
