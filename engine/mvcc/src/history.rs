// SPDX-License-Identifier: Apache-2.0
//! The watch history: what happened, revision by revision, for watchers that ask for the past.
//!
//! Owns      the scan of `hist` for the changes of some keys, and its budget.
//! Holds     1. a revision is given whole or not at all;
//!           2. records are read only for changes that match, and short ones for their keys (`hist`);
//!           3. at the compact revision a key that changed several times has only its last change, as if
//!              the purge were done (COMPACT-7).
//! Never     knows a watcher: it is given intervals.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use cairn_engine::Error;

use crate::index::{ChangeKey, Snapshot, entry_of, key_of, record_at, revision_of};
use crate::kv::KvRef;
use crate::ops::KeyRange;
use crate::outcome::{Event, EventKind, OpError, Revision, RevisionEvents};
use crate::read::Reader;
use crate::store::damaged;
use crate::trees::HIST;

/// How much one call may do. Each bound stops the scan after the revision that reaches it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HistoryBudget {
    /// Changes looked at, matching or not.
    pub entries: usize,
    /// Revisions with a match.
    pub revisions: usize,
    /// Bytes of the pairs given.
    pub bytes: usize,
}

/// A stretch of history.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HistoryDone {
    /// Revisions with matches, in order.
    pub revisions: Vec<Arc<RevisionEvents>>,
    /// The first revision that was not looked at: where to go on. Above `to` if all was.
    pub next: i64,
}

impl Reader {
    /// The changes of the keys in any of `ranges` at revisions `from..=to`, where `to` is lowered to the
    /// current revision. One scan of `hist`, and one read of a record for each match
    /// and for each change whose key is in a short record.
    ///
    /// # Errors
    /// [`OpError::Compacted`] if `from` is below the compact revision (at it is fine).
    pub fn history(
        &self,
        ranges: &[KeyRange],
        from: i64,
        to: i64,
        budget: HistoryBudget,
    ) -> Result<HistoryDone, OpError> {
        let reading = match self.read_at(from.max(1)) {
            Err(OpError::FutureRevision) => return Ok(HistoryDone { revisions: Vec::new(), next: from }),
            reading => reading?,
        };
        let to = to.min(reading.meta.revision);
        let mut scan = Scan {
            snapshot: &reading.snapshot,
            ranges,
            compact: reading.meta.compact,
            entries: 0,
            bytes: 0,
            revisions: Vec::new(),
        };
        let next = scan.run(from, to, budget);
        reading.end(next.map(|next| HistoryDone { revisions: scan.revisions, next }))
    }
}

struct Scan<'a> {
    snapshot: &'a Snapshot<'a>,
    ranges: &'a [KeyRange],
    compact: i64,
    entries: usize,
    bytes: usize,
    revisions: Vec<Arc<RevisionEvents>>,
}

impl Scan<'_> {
    /// Scans whole revisions and gives the first that it did not look at.
    fn run(&mut self, from: i64, to: i64, budget: HistoryBudget) -> Result<i64, Error> {
        let view = self.snapshot.view();
        let mut cursor = view.cursor(&HIST);
        cursor.seek(&Revision::new(from.max(0), 0).to_key());
        let mut main = from;
        let mut events = Vec::new();
        while let Some((key, value)) = cursor.next()? {
            let revision = revision_of("hist", key)?;
            if revision.main > to {
                break;
            }
            if revision.main > main {
                self.close(main, &mut events)?;
                main = revision.main;
                let spent = self.entries >= budget.entries
                    || self.revisions.len() >= budget.revisions
                    || self.bytes >= budget.bytes;
                if spent {
                    return Ok(main);
                }
            }
            self.entries += 1;
            let entry = entry_of(revision, value)?;
            let Some(stands) = key_of(&view, revision, &entry)? else {
                // Superseded within the compact revision, and purged.
                if main == self.compact {
                    continue;
                }
                return Err(no_record(revision));
            };
            let key = stands.key()?;
            if self.ranges.iter().any(|range| range.contains(key)) {
                let key = Bytes::copy_from_slice(key);
                events.push(Event {
                    kind: if entry.delete { EventKind::Delete } else { EventKind::Put },
                    key,
                    kv: match stands {
                        ChangeKey::Entry(_) => Bytes::new(),
                        ChangeKey::Record(record) => record.into_message(),
                    },
                    create: entry.create,
                    version: entry.version,
                    sub: revision.sub,
                    prev: entry.prev.filter(|_| !entry.creates()),
                });
            }
        }
        self.close(main, &mut events)?;
        Ok(to.max(from - 1) + 1)
    }

    /// Gives the matches of one revision their pairs.
    fn close(&mut self, main: i64, events: &mut Vec<Event>) -> Result<(), Error> {
        let mut events = std::mem::take(events);
        if main == self.compact {
            keep_last_of_each_key(&mut events);
        }
        if events.is_empty() {
            return Ok(());
        }
        for event in &mut events {
            let revision = Revision::new(main, event.sub);
            if event.kv.is_empty() {
                event.kv = record_at(self.snapshot, revision)?.into_message();
            }
            // One buffer an event: the key is part of the pair.
            let kv = KvRef::decode(&event.kv).filter(|kv| kv.key == &event.key[..]);
            let kv = kv.ok_or_else(|| no_record(revision))?;
            event.key = event.kv.slice_ref(kv.key);
            self.bytes += event.kv.len();
        }
        self.revisions.push(Arc::new(RevisionEvents { main, events }));
        Ok(())
    }
}

fn no_record(revision: Revision) -> Error {
    damaged("rev", format!("record of revision {revision}")).into()
}

fn keep_last_of_each_key(events: &mut Vec<Event>) {
    let mut seen = HashSet::new();
    let mut last: Vec<Event> =
        std::mem::take(events).into_iter().rev().filter(|event| seen.insert(event.key.clone())).collect();
    last.reverse();
    *events = last;
}
