// SPDX-License-Identifier: Apache-2.0
//! The watchers and their states.
//!
//! Owns      streams, watchers, the ranges of the synced ones, the ring of recent revisions.
//! Holds     1. a synced watcher has been given every event up to the hub's revision that it asked for, and
//!              it alone is found through the ranges;
//!           2. all events of one revision go to a watcher in one response (WATCH-23);
//!           3. what waits is bounded: by the outbox of a stream and by the size of the ring. Past them a
//!              watcher lags; no event is dropped (WATCH-42).
//! Never     waits, and never reads the store except for the value before an event (WATCH-29).

use super::{
    catchup::{History, HistoryError, Ring, encode},
    outbox::{ANSWERS_MAX, Out, Outbox},
    ranges::{End, Ranges, Watched},
};
use crate::{boot::draw, mutants::planted};
use bytes::Bytes;
use cairn_mvcc::{Event, EventKind, RevisionEvents};
use cairn_proto::{errors, etcdserverpb as pb};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::Waker,
};

/// Bounds of the hub.
#[derive(Clone, Debug)]
pub struct HubOptions {
    /// Time between two progress notifications of a stream, before its share of jitter (WATCH-35).
    pub progress_interval_ms: u64,
    /// Bytes of recent events that are kept for watchers that fall behind a little.
    pub ring_bytes_max: usize,
    /// Revisions that are kept for them.
    pub ring_revisions_max: usize,
    /// What the jitter of the progress timers is drawn from.
    pub seed: u64,
}

impl Default for HubOptions {
    fn default() -> HubOptions {
        HubOptions {
            progress_interval_ms: 600_000,
            ring_bytes_max: 16 << 20,
            ring_revisions_max: 8192,
            seed: 0,
        }
    }
}

/// The shortest progress interval (WATCH-35).
const PROGRESS_INTERVAL_MIN_MS: u64 = 100;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct StreamId(u64);

/// A place in the hub's table; the generation tells a watcher from a later one in the same place.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct WatcherKey {
    place: u32,
    generation: u32,
}

/// Whether a user, if one is known, may watch from a key to an end; if not, the reason that it is told.
pub type May<'a> = &'a dyn Fn(Option<&str>, &[u8], &[u8]) -> Result<(), &'static str>;

/// How many of what there are.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct HubStats {
    pub streams: usize,
    pub watchers: usize,
    /// Watchers that are not synced.
    pub slow: usize,
    pub ring_bytes: usize,
    pub events_delivered: u64,
    /// Events that wait for their streams to take them.
    pub pending_events: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum State {
    Synced,
    /// Owed everything from this revision on, and listed in `Hub::lagging`.
    Lagging {
        next: i64,
    },
    /// As `Lagging`, and its stream has no room: listed in `Hub::parked`.
    Parked {
        next: i64,
    },
    /// In a plan that is being read.
    Reading {
        next: i64,
    },
    /// Cut off by a compaction: only its id is left (WATCH-22).
    Compacted,
}

#[derive(Debug)]
pub(super) struct Watcher {
    pub stream: StreamId,
    pub watch_id: i64,
    /// The user who created it, if one was known.
    owner: Option<Arc<str>>,
    pub watched: Watched,
    /// No event below this revision is for it.
    pub start: i64,
    /// The start that the client asked for; 0 if none.
    asked_start: i64,
    pub no_put: bool,
    pub no_delete: bool,
    pub prev_kv: bool,
    pub fragment: bool,
    progress_notify: bool,
    /// It got events since the last progress tick (WATCH-36).
    had_events: bool,
    pub state: State,
}

impl Watcher {
    /// Whether this event of revision `main` is for it, its key aside.
    pub fn wants(&self, main: i64, event: &Event) -> bool {
        (main >= self.start || planted("watch-future-start-ignored"))
            && match event.kind {
                EventKind::Put => !self.no_put,
                EventKind::Delete => !self.no_delete,
            }
    }
}

pub(super) struct Stream {
    pub outbox: Arc<Outbox>,
    watchers: BTreeMap<i64, WatcherKey>,
    next_id: i64,
    progress_at_ms: u64,
    progress_interval_ms: u64,
}

#[derive(Debug, Default)]
struct Place {
    generation: u32,
    watcher: Option<Watcher>,
}

/// See the module.
pub struct Hub {
    options: HubOptions,
    /// Every event up to here was given to the synced watchers.
    pub(super) revision: i64,
    pub(super) streams: BTreeMap<StreamId, Stream>,
    next_stream: u64,
    places: Vec<Place>,
    free: Vec<u32>,
    ranges: Ranges<WatcherKey>,
    pub(super) ring: Ring,
    pub(super) lagging: BTreeSet<(i64, WatcherKey)>,
    pub(super) parked: BTreeMap<StreamId, Vec<WatcherKey>>,
    progress: BTreeSet<(u64, StreamId)>,
    wakers: Vec<Waker>,
    matches: Vec<(WatcherKey, u32)>,
    stats: HubStats,
    pending: Arc<AtomicUsize>,
}

impl Hub {
    /// A hub for a store that is at `revision`.
    pub fn new(revision: i64, options: HubOptions) -> Hub {
        Hub {
            ring: Ring::new(options.ring_bytes_max, options.ring_revisions_max),
            options,
            revision: if planted("watch-begins-one-revision-late") { revision - 1 } else { revision },
            streams: BTreeMap::new(),
            next_stream: 0,
            places: Vec::new(),
            free: Vec::new(),
            ranges: Ranges::default(),
            lagging: BTreeSet::new(),
            parked: BTreeMap::new(),
            progress: BTreeSet::new(),
            wakers: Vec::new(),
            matches: Vec::new(),
            stats: HubStats::default(),
            pending: Arc::default(),
        }
    }

    pub fn revision(&self) -> i64 {
        self.revision
    }

    pub fn stats(&self) -> HubStats {
        HubStats {
            streams: self.streams.len(),
            slow: self.lagging.len() + self.parked.values().map(Vec::len).sum::<usize>(),
            ring_bytes: self.ring.bytes(),
            pending_events: self.pending.load(Ordering::Relaxed),
            ..self.stats
        }
    }

    /// Whom to wake for what was put into outboxes since the last call; wake them without the hub's lock.
    pub fn take_wakers(&mut self) -> Vec<Waker> {
        std::mem::take(&mut self.wakers)
    }

    /// Opens a stream. `room` is called when its outbox, once full, has drained.
    pub fn open_stream(&mut self, now_ms: u64, room: Arc<dyn Fn() + Send + Sync>) -> (StreamId, Arc<Outbox>) {
        self.next_stream += 1;
        let id = StreamId(self.next_stream);
        let outbox = Arc::new(Outbox::new(room, self.pending.clone()));
        let interval_ms = self.options.progress_interval_ms.max(PROGRESS_INTERVAL_MIN_MS);
        let tenth = interval_ms / 10;
        let jitter_ms = if tenth == 0 { 0 } else { draw(self.options.seed, id.0) % (tenth + 1) };
        let stream = Stream {
            outbox: outbox.clone(),
            watchers: BTreeMap::new(),
            next_id: 0,
            progress_at_ms: now_ms + interval_ms + jitter_ms,
            progress_interval_ms: interval_ms + jitter_ms,
        };
        self.progress.insert((stream.progress_at_ms, id));
        self.streams.insert(id, stream);
        (id, outbox)
    }

    /// Ends a stream and all its watchers.
    pub fn close_stream(&mut self, id: StreamId) {
        let Some(stream) = self.streams.remove(&id) else { return };
        self.progress.remove(&(stream.progress_at_ms, id));
        for key in stream.watchers.into_values() {
            self.drop_watcher(key);
        }
        self.parked.remove(&id);
        stream.outbox.close();
    }

    /// Ends all streams: the member stops.
    pub fn close(&mut self) {
        let ids: Vec<StreamId> = self.streams.keys().copied().collect();
        ids.into_iter().for_each(|id| self.close_stream(id));
    }

    /// Creates a watcher. `now` is the store's revision, at or above the hub's: what the store has and the
    /// hub was not told yet is before the creation (WATCH-7).
    pub fn create(&mut self, id: StreamId, request: &pb::WatchCreateRequest, now: i64) {
        self.create_for(None, id, request, now);
    }

    /// As [`Hub::create`], for a user whose rights were checked.
    pub fn create_for(
        &mut self,
        owner: Option<Arc<str>>,
        id: StreamId,
        request: &pb::WatchCreateRequest,
        now: i64,
    ) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        let taken = request.watch_id != 0 && stream.watchers.contains_key(&request.watch_id);
        let watched = match admit(request) {
            Ok(_) if taken => return self.refuse(id, errors::CANCEL_WATCHER_DUPLICATE_ID.text, now),
            Ok(watched) => watched,
            Err(reason) => return self.refuse(id, reason, now),
        };
        let watch_id = stream.pick_id(request.watch_id);
        let start = if request.start_revision == 0 { now + 1 } else { request.start_revision };
        let state = if start > self.revision { State::Synced } else { State::Lagging { next: start } };
        let filtered = |kind: pb::watch_create_request::FilterType| request.filters.contains(&(kind as i32));
        let watcher = Watcher {
            stream: id,
            watch_id,
            owner,
            watched,
            start,
            asked_start: request.start_revision,
            no_put: filtered(pb::watch_create_request::FilterType::Noput),
            no_delete: filtered(pb::watch_create_request::FilterType::Nodelete),
            prev_kv: request.prev_kv,
            fragment: request.fragment,
            progress_notify: request.progress_notify,
            had_events: false,
            state,
        };
        let key = self.add_watcher(watcher);
        self.streams.get_mut(&id).expect("found above").watchers.insert(watch_id, key);
        match state {
            State::Synced => self.ranges.insert(&self.watcher(key).watched.clone(), key),
            _ => {
                self.lagging.insert((start, key));
            }
        }
        self.push(id, Out::Created { watch_id, revision: now });
    }

    /// Answers a create that is not to be: a failed check of the hub, or of the caller's rights (WATCH-8).
    pub fn refuse(&mut self, id: StreamId, reason: &str, now: i64) {
        self.push(id, Out::Refused { reason: reason.to_owned(), revision: now });
    }

    /// Cancels a watcher; an unknown id gets no answer (WATCH-31).
    pub fn cancel(&mut self, id: StreamId, watch_id: i64, now: i64) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        let Some(key) = stream.watchers.remove(&watch_id) else { return };
        self.drop_watcher(key);
        self.push(id, Out::Canceled { watch_id, revision: now });
    }

    /// Ends those watchers that `may`, given owner, key and end, refuses: rights changed. Looks at `max` places
    /// from `from` on, so that nobody waits long for the hub, and says where to go on.
    pub fn recheck(&mut self, from: usize, max: usize, may: May<'_>) -> Option<usize> {
        let to = from.saturating_add(max).min(self.places.len());
        for place in from..to {
            let Place { generation, watcher: Some(watcher) } = &self.places[place] else { continue };
            let (key, end) = watcher.watched.on_wire();
            let refused = may(watcher.owner.as_deref(), key, end).err();
            let Some(reason) = refused.filter(|_| watcher.state != State::Compacted) else { continue };
            let (id, watch_id) = (watcher.stream, watcher.watch_id);
            let key = WatcherKey { place: place as u32, generation: *generation };
            self.streams.get_mut(&id).expect("a watcher has its stream").watchers.remove(&watch_id);
            self.drop_watcher(key);
            self.push(id, Out::Revoked { watch_id, reason, revision: self.revision });
        }
        (to < self.places.len()).then_some(to)
    }

    /// Answers a progress request if every watcher of the stream is synced (WATCH-37, WATCH-38).
    pub fn progress(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get(&id) else { return };
        let synced = |key: &WatcherKey| {
            let watcher = self.watcher(*key);
            watcher.state == State::Synced && watcher.asked_start <= self.revision
        };
        let all_synced = stream.watchers.values().all(synced) || planted("watch-progress-while-lagging");
        if !stream.watchers.is_empty() && all_synced {
            self.push(id, Out::Progress { watch_id: -1, revision: self.revision });
        }
    }

    /// Sends the progress notifications that are due (WATCH-36).
    pub fn tick(&mut self, now_ms: u64) {
        while let Some(&(due_ms, id)) = self.progress.first() {
            if due_ms > now_ms {
                break;
            }
            self.progress.pop_first();
            let stream = self.streams.get_mut(&id).expect("a timer has its stream");
            stream.progress_at_ms = now_ms + stream.progress_interval_ms;
            self.progress.insert((stream.progress_at_ms, id));
            let keys: Vec<WatcherKey> = stream.watchers.values().copied().collect();
            for key in keys {
                self.notify_progress(id, key);
            }
        }
    }

    /// When [`Hub::tick`] has something to do next.
    pub fn next_tick_ms(&self) -> Option<u64> {
        self.progress.first().map(|(due_ms, _)| *due_ms)
    }

    fn notify_progress(&mut self, id: StreamId, key: WatcherKey) {
        let revision = self.revision;
        let watcher = self.watcher_mut(key).expect("a stream lists living watchers");
        if !watcher.progress_notify {
            return;
        }
        let quiet = !std::mem::take(&mut watcher.had_events);
        let due = quiet && watcher.state == State::Synced && watcher.asked_start <= revision;
        let watch_id = watcher.watch_id;
        if due && self.streams[&id].outbox.len() < ANSWERS_MAX {
            self.push(id, Out::Progress { watch_id, revision });
        }
    }

    /// Gives new revisions to the synced watchers, in order and without a gap after the hub's revision.
    ///
    /// # Errors
    /// If the value before an event could not be read; the hub is then to be given up.
    pub fn publish(
        &mut self,
        revisions: &[Arc<RevisionEvents>],
        history: &dyn History,
    ) -> Result<(), HistoryError> {
        for revision in revisions {
            assert!(revision.main > self.revision, "revision {} after {}", revision.main, self.revision);
            self.publish_one(revision, history)?;
        }
        Ok(())
    }

    fn publish_one(
        &mut self,
        revision: &Arc<RevisionEvents>,
        history: &dyn History,
    ) -> Result<(), HistoryError> {
        let mut matches = std::mem::take(&mut self.matches);
        matches.clear();
        if !self.ranges.is_empty() {
            for (at, event) in revision.events.iter().enumerate() {
                self.ranges.matching(&event.key, |key| matches.push((key, at as u32)));
            }
            if revision.events.len() > 1 {
                matches.sort_unstable();
            }
        }
        self.revision = revision.main;
        self.ring.push(revision.clone());
        let mut encoder = Encoder { revision, history, plain: None, with_prev: None };
        for group in matches.chunk_by(|a, b| a.0 == b.0) {
            self.give(group, &mut encoder)?;
        }
        self.matches = matches;
        Ok(())
    }

    /// Gives the events of one new revision to one synced watcher.
    fn give(&mut self, group: &[(WatcherKey, u32)], encoder: &mut Encoder<'_>) -> Result<(), HistoryError> {
        let key = group[0].0;
        let main = encoder.revision.main;
        let watcher = self.watcher(key);
        let wanted = group.iter().map(|(_, at)| *at as usize);
        let wanted = wanted.filter(|at| watcher.wants(main, &encoder.revision.events[*at]));
        let prev = watcher.prev_kv;
        let events: Vec<Bytes> = wanted.map(|at| encoder.event(at, prev)).collect::<Result<_, _>>()?;
        if events.is_empty() {
            return Ok(());
        }
        let (id, watch_id, fragment) = (watcher.stream, watcher.watch_id, watcher.fragment);
        let room = self.streams[&id].outbox.has_room();
        if !room && planted("watch-lagging-dropped") {
            return Ok(());
        }
        if room && planted("watch-revision-in-two-responses") {
            for event in events {
                self.push(id, Out::Events { watch_id, revision: main, fragment, events: vec![event] });
            }
            return Ok(());
        }
        if room {
            self.stats.events_delivered += events.len() as u64;
            self.watcher_mut(key).expect("it was just read").had_events = true;
            self.push(id, Out::Events { watch_id, revision: main, fragment, events });
        } else {
            self.unsync(key);
            self.park(key, main);
        }
        Ok(())
    }

    /// After a snapshot was installed, or revisions were passed over: the ring is of no use, and every watcher goes on
    /// from the revision that it is owed next (WATCH-43).
    pub fn reset(&mut self, revision: i64) {
        let next = self.revision + 1;
        self.ring.clear();
        self.revision = self.revision.max(revision);
        let synced: Vec<WatcherKey> =
            self.keys().filter(|k| self.watcher(*k).state == State::Synced).collect();
        for key in synced {
            let next = next.max(self.watcher(key).start);
            if next <= self.revision {
                self.unsync(key);
                self.lag(key, next);
            }
        }
    }

    // ---- what creation, delivery and catching up share ----

    pub(super) fn keys(&self) -> impl Iterator<Item = WatcherKey> + '_ {
        let living = self.places.iter().enumerate().filter(|(_, p)| p.watcher.is_some());
        living.map(|(place, p)| WatcherKey { place: place as u32, generation: p.generation })
    }

    pub(super) fn watcher(&self, key: WatcherKey) -> &Watcher {
        let place = &self.places[key.place as usize];
        assert_eq!(place.generation, key.generation, "a watcher that is gone");
        place.watcher.as_ref().expect("its generation is current")
    }

    /// `None` if it is gone meanwhile.
    pub(super) fn watcher_mut(&mut self, key: WatcherKey) -> Option<&mut Watcher> {
        let place = &mut self.places[key.place as usize];
        if place.generation == key.generation { place.watcher.as_mut() } else { None }
    }

    pub(super) fn push(&mut self, id: StreamId, out: Out) {
        if let Some(stream) = self.streams.get(&id) {
            self.wakers.extend(stream.outbox.push(out));
        }
    }

    pub(super) fn delivered(&mut self, key: WatcherKey, events: usize) {
        self.stats.events_delivered += events as u64;
        if let Some(watcher) = self.watcher_mut(key) {
            watcher.had_events = true;
        }
    }

    /// Takes a synced watcher out of the ranges.
    fn unsync(&mut self, key: WatcherKey) {
        let watched = self.watcher(key).watched.clone();
        self.ranges.remove(&watched, key);
    }

    /// The watcher has everything up to the hub's revision: from now on the ranges find it.
    pub(super) fn sync(&mut self, key: WatcherKey) {
        let watcher = self.watcher_mut(key).expect("the caller checked that it lives");
        watcher.state = State::Synced;
        let watched = watcher.watched.clone();
        self.ranges.insert(&watched, key);
    }

    pub(super) fn lag(&mut self, key: WatcherKey, next: i64) {
        self.watcher_mut(key).expect("the caller checked that it lives").state = State::Lagging { next };
        self.lagging.insert((next, key));
    }

    pub(super) fn park(&mut self, key: WatcherKey, next: i64) {
        let watcher = self.watcher_mut(key).expect("the caller checked that it lives");
        watcher.state = State::Parked { next };
        let stream = watcher.stream;
        self.parked.entry(stream).or_default().push(key);
    }

    fn add_watcher(&mut self, watcher: Watcher) -> WatcherKey {
        self.stats.watchers += 1;
        let place = self.free.pop().unwrap_or_else(|| {
            self.places.push(Place::default());
            (self.places.len() - 1) as u32
        });
        let slot = &mut self.places[place as usize];
        slot.watcher = Some(watcher);
        WatcherKey { place, generation: slot.generation }
    }

    fn drop_watcher(&mut self, key: WatcherKey) {
        let place = &mut self.places[key.place as usize];
        let watcher = place.watcher.take().expect("a stream lists living watchers");
        place.generation = place.generation.wrapping_add(1);
        self.free.push(key.place);
        self.stats.watchers -= 1;
        match watcher.state {
            State::Synced => self.ranges.remove(&watcher.watched, key),
            State::Lagging { next } => {
                self.lagging.remove(&(next, key));
            }
            State::Parked { .. } => {
                if let Some(parked) = self.parked.get_mut(&watcher.stream) {
                    parked.retain(|k| *k != key);
                }
            }
            State::Reading { .. } | State::Compacted => {}
        }
    }
}

impl Stream {
    /// 0 lets the server pick: a counter that skips what is in use (WATCH-5).
    fn pick_id(&mut self, asked: i64) -> i64 {
        if asked != 0 {
            return asked;
        }
        while self.watchers.contains_key(&self.next_id) {
            self.next_id += 1;
        }
        self.next_id += 1;
        self.next_id - 1
    }
}

/// What a create watches, or why it cannot (WATCH-3, WATCH-4, WATCH-9, WATCH-12).
fn admit(request: &pb::WatchCreateRequest) -> Result<Watched, &'static str> {
    const ZERO: &[u8] = b"\0";
    if request.start_revision < 0 {
        return Err(errors::CANCEL_COMPACTED.text);
    }
    let key = if request.key.is_empty() { Bytes::from_static(ZERO) } else { request.key.clone() };
    match &request.range_end {
        end if end.is_empty() => Ok(Watched::Key(key)),
        end if &end[..] == ZERO => Ok(Watched::Range(key, End::Open)),
        end if *end <= key => Err(errors::CANCEL_EMPTY_WATCHER_RANGE.text),
        end => Ok(Watched::Range(key, End::Before(end.clone()))),
    }
}

/// The events of one revision, each encoded when the first watcher wants it and then shared.
struct Encoder<'a> {
    revision: &'a RevisionEvents,
    history: &'a dyn History,
    plain: Option<Vec<Option<Bytes>>>,
    with_prev: Option<Vec<Option<Bytes>>>,
}

impl Encoder<'_> {
    fn event(&mut self, at: usize, prev: bool) -> Result<Bytes, HistoryError> {
        let event = &self.revision.events[at];
        let shared = if prev { &mut self.with_prev } else { &mut self.plain };
        let shared = &mut shared.get_or_insert_with(|| vec![None; self.revision.events.len()])[at];
        if let Some(bytes) = shared {
            return Ok(bytes.clone());
        }
        let bytes = encode(self.revision.main, event, prev, self.history)?;
        *shared = Some(bytes.clone());
        Ok(bytes)
    }
}
