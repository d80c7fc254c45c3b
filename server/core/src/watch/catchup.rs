// SPDX-License-Identifier: Apache-2.0
//! What lagging watchers are owed: from the ring of recent revisions, or from the history of the store.
//!
//! Owns      the ring, and the three steps of catching up: [`Hub::plan`] under the hub's lock,
//!           [`Plan::read`] without it, [`Hub::deliver`] under it again.
//! Holds     1. a watcher joins the synced ones only when what it was given reaches the hub's revision;
//!           2. a response of catching up holds at most [`REVISIONS_PER_RESPONSE`] revisions (WATCH-24);
//!           3. a watcher whose history was compacted is told so after what it was given before, and is
//!              never served past the gap (WATCH-20, WATCH-21).
//! Never     reads the store under the hub's lock, except for the value before an event of the ring.

use super::{
    hub::{Hub, State, Watcher, WatcherKey},
    outbox::Out,
    ranges::Watched,
};
use crate::mutants::planted;
use bytes::{BufMut, Bytes, BytesMut};
use cairn_mvcc::{Event, EventKind, KeyRange, OpError, RevisionEvents};
use prost::encoding::{encode_varint, encoded_len_varint};
use std::{collections::VecDeque, sync::Arc};

/// Distinct revisions in one response (WATCH-24).
pub const REVISIONS_PER_RESPONSE: usize = 1000;
/// Watchers that one plan serves (WATCH-41).
pub const WATCHERS_PER_PLAN: usize = 512;
/// Bytes of events that one plan reads, all its watchers together.
pub const BYTES_PER_PLAN: usize = 4 << 20;
/// Events of the ring that are looked at in one hold of the hub's lock, but for the last watcher's.
const RING_EVENTS_PER_STEP: usize = 20_000;

/// Why the past could not be read.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    #[error("the history was compacted meanwhile")]
    Compacted,
    #[error("{0}")]
    Failed(OpError),
}

/// Events of the past, as far as they were read.
#[derive(Debug)]
pub struct Chunk {
    pub revisions: Vec<Arc<RevisionEvents>>,
    /// Everything that was wanted up to here is in `revisions`.
    pub covered: i64,
}

/// The past of the store, as the hub needs it.
pub trait History {
    /// Revisions below this one are gone; it is -1 when nothing was ever compacted.
    ///
    /// # Errors
    /// If the store could not be read.
    fn compact_revision(&self) -> Result<i64, HistoryError>;

    /// The events from revision `from` to `to`, both included, of keys in any of `ranges`. Stops early
    /// after about `bytes_max` bytes, at the end of a revision, and always makes progress.
    ///
    /// # Errors
    /// [`HistoryError::Compacted`] if a compaction passed `from` meanwhile.
    fn events(
        &self,
        ranges: &[KeyRange],
        from: i64,
        to: i64,
        bytes_max: usize,
    ) -> Result<Chunk, HistoryError>;

    /// The encoded pair of `key` as it was at `revision`; `None` if there was none or it is compacted.
    ///
    /// # Errors
    /// If the store could not be read.
    fn kv_at(&self, key: &[u8], revision: i64) -> Result<Option<Bytes>, HistoryError>;
}

/// The newest revisions, for watchers that fall behind a little.
pub(super) struct Ring {
    revisions: VecDeque<Arc<RevisionEvents>>,
    bytes: usize,
    bytes_max: usize,
    revisions_max: usize,
}

impl Ring {
    pub fn new(bytes_max: usize, revisions_max: usize) -> Ring {
        Ring { revisions: VecDeque::new(), bytes: 0, bytes_max, revisions_max }
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn clear(&mut self) {
        self.revisions.clear();
        self.bytes = 0;
    }

    pub fn push(&mut self, revision: Arc<RevisionEvents>) {
        self.bytes += weight(&revision);
        self.revisions.push_back(revision);
        while self.revisions.len() > self.revisions_max || self.bytes > self.bytes_max {
            let oldest = self.revisions.pop_front().expect("it was just filled");
            self.bytes -= weight(&oldest);
        }
    }

    /// Whether every event from `next` on is here.
    fn reaches(&self, next: i64) -> bool {
        self.revisions.front().is_some_and(|oldest| oldest.main <= next)
    }

    fn from(&self, next: i64) -> impl Iterator<Item = &Arc<RevisionEvents>> {
        let start = self.revisions.partition_point(|r| r.main < next);
        self.revisions.range(start..)
    }
}

fn weight(revision: &RevisionEvents) -> usize {
    revision.events.iter().map(|e| e.kv.len() + e.key.len() + 64).sum()
}

/// What [`Hub::plan`] found.
#[derive(Debug)]
pub enum Step {
    /// This is to be read, and brought back to [`Hub::deliver`].
    Read(Plan),
    /// Some were served from the ring; ask again at once.
    Again,
    /// Nobody lags, or those who do have no room.
    Idle,
}

/// A part of the history that some lagging watchers are owed.
#[derive(Debug)]
pub struct Plan {
    from: i64,
    /// The hub's revision when the plan was made.
    to: i64,
    watchers: Vec<Owed>,
}

#[derive(Debug)]
struct Owed {
    key: WatcherKey,
    next: i64,
    watched: Watched,
    start: i64,
    no_put: bool,
    no_delete: bool,
    prev_kv: bool,
    /// What was read for it, by revision.
    events: Vec<(i64, Bytes)>,
}

impl Owed {
    fn wants(&self, main: i64, event: &Event) -> bool {
        let kind = match event.kind {
            EventKind::Put => !self.no_put,
            EventKind::Delete => !self.no_delete,
        };
        kind && main >= self.next.max(self.start) && self.watched.contains(&event.key)
    }
}

/// What a plan came to; goes back to the hub by [`Hub::deliver`].
#[derive(Debug)]
pub struct Caught {
    to: i64,
    covered: i64,
    watchers: Vec<Owed>,
}

impl Plan {
    /// Reads the history. Needs no lock; may block on the disk.
    ///
    /// # Errors
    /// If the store cannot be read. A compaction meanwhile is no error: the hub finds out.
    pub fn read(mut self, history: &dyn History) -> Result<Caught, HistoryError> {
        let mut ranges: Vec<KeyRange> = Vec::new();
        for owed in &self.watchers {
            let range = owed.watched.key_range();
            // Many watchers of one range are the common case; a few distinct ones are found quickly.
            if !ranges.contains(&range) {
                ranges.push(range);
            }
        }
        let chunk = match history.events(&ranges, self.from, self.to, BYTES_PER_PLAN) {
            Ok(chunk) => chunk,
            Err(HistoryError::Compacted) => Chunk { revisions: Vec::new(), covered: self.from - 1 },
            Err(failed) => return Err(failed),
        };
        for revision in &chunk.revisions {
            for event in &revision.events {
                let mut encoded = [None, None];
                for owed in self.watchers.iter_mut().filter(|owed| owed.wants(revision.main, event)) {
                    let shared = &mut encoded[usize::from(owed.prev_kv)];
                    let bytes = match shared {
                        Some(bytes) => Bytes::clone(bytes),
                        None => shared.insert(encode(revision.main, event, owed.prev_kv, history)?).clone(),
                    };
                    owed.events.push((revision.main, bytes));
                }
            }
        }
        Ok(Caught { to: self.to, covered: chunk.covered.min(self.to), watchers: self.watchers })
    }
}

impl Hub {
    /// Serves what the ring can serve, ends what a compaction cut off, and says what is to be read from the
    /// history.
    ///
    /// # Errors
    /// If the value before an event could not be read.
    pub fn plan(&mut self, history: &dyn History) -> Result<Step, HistoryError> {
        self.unpark();
        let compacted = history.compact_revision()?;
        let mut watchers: Vec<Owed> = Vec::new();
        let mut looked_at = 0;
        while watchers.len() < WATCHERS_PER_PLAN && looked_at < RING_EVENTS_PER_STEP {
            let Some((next, key)) = self.lagging.pop_first() else { break };
            let stream = self.watcher(key).stream;
            if next < compacted && planted("watch-compaction-passed-over") {
                self.lag(key, compacted);
            } else if next < compacted {
                self.cut_off(key, compacted);
            } else if !self.streams[&stream].outbox.has_room() {
                self.park(key, next);
            } else if self.ring.reaches(next) {
                looked_at += self.serve_from_ring(key, next, history)?;
            } else {
                let watcher = self.watcher_mut(key).expect("it is listed as lagging");
                watcher.state = State::Reading { next };
                watchers.push(owed(key, next, watcher));
            }
        }
        let next = watchers.first().map(|owed| owed.next);
        Ok(match next {
            Some(from) => Step::Read(Plan { from, to: self.revision, watchers }),
            None if self.lagging.is_empty() => Step::Idle,
            None => Step::Again,
        })
    }

    /// Whether [`Hub::plan`] has something to do.
    pub fn wants_plan(&self) -> bool {
        !self.lagging.is_empty()
    }

    /// Gives what was read to those who are owed it; who has everything joins the synced watchers.
    ///
    /// # Errors
    /// If the value before an event of the ring could not be read.
    pub fn deliver(&mut self, caught: Caught, history: &dyn History) -> Result<(), HistoryError> {
        for owed in caught.watchers {
            // It may be gone meanwhile, or another one may be in its place.
            let living = self.watcher_mut(owed.key).map(|w| w.state);
            if living != Some(State::Reading { next: owed.next }) {
                continue;
            }
            let next = owed.next.max(caught.covered + 1);
            self.push_batches(owed.key, owed.events, caught.to);
            if next > self.revision {
                self.sync(owed.key);
            } else if self.ring.reaches(next) && next >= history.compact_revision()? {
                self.serve_from_ring(owed.key, next, history)?;
            } else {
                self.lag(owed.key, next);
            }
        }
        Ok(())
    }

    /// Gives a lagging watcher the rest from the ring, and syncs it: no new revision can come in between.
    /// Says how many events it looked at.
    fn serve_from_ring(
        &mut self,
        key: WatcherKey,
        next: i64,
        history: &dyn History,
    ) -> Result<usize, HistoryError> {
        let watcher = self.watcher(key);
        let mut events = Vec::new();
        let mut looked_at = 0;
        for revision in self.ring.from(next) {
            looked_at += revision.events.len();
            for event in &revision.events {
                if watcher.watched.contains(&event.key) && watcher.wants(revision.main, event) {
                    events.push((revision.main, encode(revision.main, event, watcher.prev_kv, history)?));
                }
            }
        }
        self.push_batches(key, events, self.revision);
        self.sync(key);
        Ok(looked_at)
    }

    /// Cuts what a watcher is owed into responses. `revision` is the store's at the time of reading
    /// (WATCH-25). The outbox takes them all: it had room before, and what is read at once is bounded.
    fn push_batches(&mut self, key: WatcherKey, events: Vec<(i64, Bytes)>, revision: i64) {
        if events.is_empty() {
            return;
        }
        self.delivered(key, events.len());
        let watcher = self.watcher(key);
        let (id, watch_id, fragment) = (watcher.stream, watcher.watch_id, watcher.fragment);
        let mut batch = Vec::new();
        let (mut revisions, mut last) = (0, 0);
        for (main, event) in events {
            if main != last {
                if revisions == REVISIONS_PER_RESPONSE {
                    let events = std::mem::take(&mut batch);
                    self.push(id, Out::Events { watch_id, revision, fragment, events });
                    revisions = 0;
                }
                revisions += 1;
                last = main;
            }
            batch.push(event);
        }
        self.push(id, Out::Events { watch_id, revision, fragment, events: batch });
    }

    fn cut_off(&mut self, key: WatcherKey, compact_revision: i64) {
        let watcher = self.watcher_mut(key).expect("it is listed as lagging");
        watcher.state = State::Compacted;
        let (id, watch_id) = (watcher.stream, watcher.watch_id);
        self.push(id, Out::Compacted { watch_id, compact_revision });
    }

    /// Lists the watchers of streams that have room again as lagging.
    fn unpark(&mut self) {
        let drained: Vec<_> =
            self.parked.keys().copied().filter(|id| self.streams[id].outbox.has_room()).collect();
        for id in drained {
            for key in self.parked.remove(&id).expect("just listed") {
                let State::Parked { next } = self.watcher(key).state else { continue };
                self.lag(key, next);
            }
        }
    }
}

fn owed(key: WatcherKey, next: i64, watcher: &Watcher) -> Owed {
    Owed {
        key,
        next,
        watched: watcher.watched.clone(),
        start: watcher.start,
        no_put: watcher.no_put,
        no_delete: watcher.no_delete,
        prev_kv: watcher.prev_kv,
        events: Vec::new(),
    }
}

/// An `mvccpb.Event` from the stored bytes of its pairs: `type = 1`, `kv = 2`, `prev_kv = 3`.
pub(super) fn encode(
    main: i64,
    event: &Event,
    prev: bool,
    history: &dyn History,
) -> Result<Bytes, HistoryError> {
    // A put that creates its key has nothing before it (WATCH-29).
    let asks = prev && (event.kind == EventKind::Delete || event.create != main);
    let before = if asks { history.kv_at(&event.key, main - 1)? } else { None };
    let field = |kv: &Bytes| 1 + encoded_len_varint(kv.len() as u64) + kv.len();
    let len = 2 + field(&event.kv) + before.as_ref().map_or(0, field);
    let mut out = BytesMut::with_capacity(len);
    if event.kind == EventKind::Delete {
        out.put_slice(&[0x08, 1]);
    }
    out.put_u8(0x12);
    encode_varint(event.kv.len() as u64, &mut out);
    out.put_slice(&event.kv);
    if let Some(before) = before {
        out.put_u8(0x1a);
        encode_varint(before.len() as u64, &mut out);
        out.put_slice(&before);
    }
    Ok(out.freeze())
}
