// SPDX-License-Identifier: Apache-2.0
//! The same watchers beside the same writes see the same on Cairn and on etcd 3.5.1.
//!
//! Owns      the random watchers and writes, and the comparison of what each watcher was sent.
//! Holds     1. both servers get the same writes, one at a time, so that revisions agree;
//!           2. between bursts of writes there is a barrier: each watcher has been sent what the history says
//!              it must see, so that a compaction never races a delivery;
//!           3. before a compaction every watcher is synced, also one that is owed nothing: else it may still need
//!              a revision that goes, and would be cut on one server and not on the other (COMPACT-12);
//!           4. a listed difference is named by its rule, recognised exactly, and must occur.
//! Never     waits for a time: it waits for events, and a server that does not send them fails.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use cairn_proto::etcdserverpb::kv_client::KvClient;
use cairn_proto::etcdserverpb::request_op::Request;
use cairn_proto::etcdserverpb::watch_request::RequestUnion;
use cairn_proto::etcdserverpb::{
    CompactionRequest, DeleteRangeRequest, PutRequest, RequestOp, TxnRequest, WatchCancelRequest,
    WatchCreateRequest, WatchRequest, WatchResponse,
};
use cairn_proto::mvccpb::{Event, event::EventType};
use cairn_tests::scale::{count, score, seed};
use cairn_tests::server::{Program, Server};
use cairn_tests::tools;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tokio::sync::mpsc;
use tonic::transport::Channel;

const WATCHERS: usize = 200;
const STREAMS: usize = 8;
/// Watchers that begin in the past, and below the compaction, at least.
const RESUMED: usize = 200;
const CUT: usize = 50;
/// A barrier that is not reached by then hangs.
const HUNG: Duration = Duration::from_secs(60);

/// (stream, watch id)
type Id = (usize, i64);

/// What one watcher was sent.
#[derive(Default, Debug)]
struct Seen {
    created: Option<WatchResponse>,
    events: Vec<Event>,
    end: Option<(i64, String)>,
}

struct Side {
    name: &'static str,
    /// Runs for as long as this side does.
    _server: Server,
    kv: KvClient<Channel>,
    requests: Vec<mpsc::Sender<WatchRequest>>,
    answers: mpsc::UnboundedReceiver<(usize, WatchResponse)>,
    seen: BTreeMap<Id, Seen>,
}

impl Side {
    async fn start(name: &'static str, program: Program) -> Side {
        let server = Server::start(program).await;
        let (sender, answers) = mpsc::unbounded_channel();
        let mut requests = Vec::new();
        for stream in 0..=STREAMS {
            let (ask, asked) = mpsc::channel(64);
            let mut client = server.client().await.watch;
            let asked = tokio_stream::wrappers::ReceiverStream::new(asked);
            let sender = sender.clone();
            tokio::spawn(async move {
                let mut answers = client.watch(asked).await.expect("a watch stream").into_inner();
                while let Ok(Some(answer)) = answers.message().await {
                    if sender.send((stream, answer)).is_err() {
                        break;
                    }
                }
            });
            requests.push(ask);
        }
        let kv = server.client().await.kv;
        Side { name, _server: server, kv, requests, answers, seen: BTreeMap::new() }
    }

    async fn ask(&mut self, stream: usize, request: RequestUnion) {
        let request = WatchRequest { request_union: Some(request) };
        self.requests[stream].send(request).await.expect("the stream is open");
    }

    /// Cancels a watcher, and gives what it was sent that nobody took yet.
    async fn cancel(&mut self, id: Id) -> Vec<Event> {
        let cancel = WatchCancelRequest { watch_id: id.1 };
        self.ask(id.0, RequestUnion::CancelRequest(cancel)).await;
        self.until("a cancel", |seen| seen[&id].end.is_some()).await;
        let seen = self.seen.remove(&id).expect("seen");
        assert_eq!(seen.end, Some((0, String::new())), "the end of a cancel");
        seen.events
    }

    /// Takes answers until `done` says so of what was seen.
    async fn until(&mut self, what: &str, mut done: impl FnMut(&BTreeMap<Id, Seen>) -> bool) {
        while !done(&self.seen) {
            let next = tokio::time::timeout(HUNG, self.answers.recv()).await;
            let Ok(Some((stream, answer))) = next else { panic!("{what}: {} sent nothing more", self.name) };
            let seen = self.seen.entry((stream, answer.watch_id)).or_default();
            if answer.created {
                seen.created = Some(answer.clone());
            }
            if answer.canceled {
                assert!(answer.events.is_empty(), "events in a cancel: {answer:?}");
                seen.end = Some((answer.compact_revision, answer.cancel_reason.clone()));
            } else {
                assert!(seen.end.is_none(), "events after the end of {:?}", (stream, answer.watch_id));
                seen.events.extend(answer.events);
            }
        }
    }
}

/// One watcher as it was asked for, and what the history owes it.
struct Watcher {
    id: Id,
    asked: WatchCreateRequest,
    /// The first revision that it must see.
    from: i64,
    /// Events of the history already counted into `owed`.
    counted: usize,
    owed: Vec<Event>,
    tombstone_at_compaction: usize,
}

impl Watcher {
    fn wants(&self, event: &Event) -> bool {
        let (kv, asked) = (event.kv.as_ref().expect("a kv"), &self.asked);
        let inside = match &asked.range_end[..] {
            [] => kv.key == asked.key,
            [0] => kv.key >= asked.key,
            end => kv.key >= asked.key && &kv.key[..] < end,
        };
        // NOPUT is 0 and NODELETE is 1, as PUT and DELETE are: a filter drops the type of its number.
        inside && kv.mod_revision >= self.from && !asked.filters.contains(&event.r#type)
    }

    /// Counts in what happened since the last barrier; `compacted` bounds what `prev_kv` can show.
    fn owe(&mut self, history: &[Event], compacted: i64) {
        for event in &history[self.counted..] {
            if self.wants(event) {
                let mut owed = event.clone();
                let revision = event.kv.as_ref().expect("a kv").mod_revision;
                if !self.asked.prev_kv || revision - 1 < compacted {
                    owed.prev_kv = None;
                }
                self.owed.push(owed);
            }
        }
        self.counted = history.len();
    }
}

fn random_key(random: &mut ChaCha8Rng) -> Bytes {
    format!("{}{:02}", ["a", "b", "c"].choose(random).expect("not empty"), random.random_range(0..30)).into()
}

fn random_range(random: &mut ChaCha8Rng) -> (Bytes, Bytes) {
    match random.random_range(0..6) {
        0 => (random_key(random), Bytes::new()),
        1 => (Bytes::from_static(b"a"), Bytes::from_static(b"b")),
        2 => (Bytes::new(), Bytes::from_static(b"\0")),
        3 => (random_key(random), Bytes::from_static(b"\0")),
        _ => {
            let (one, two) = (random_key(random), random_key(random));
            if one < two { (one, two) } else { (two, one) }
        }
    }
}

enum Write {
    Put(PutRequest),
    Delete(DeleteRangeRequest),
    Txn(TxnRequest),
}

fn random_write(random: &mut ChaCha8Rng) -> Write {
    let put = |random: &mut ChaCha8Rng| PutRequest {
        key: random_key(random),
        value: format!("v{}", random.random::<u32>()).into(),
        ..PutRequest::default()
    };
    match random.random_range(0..10) {
        0..6 => Write::Put(put(random)),
        6 | 7 => {
            Write::Delete(DeleteRangeRequest { key: random_key(random), ..DeleteRangeRequest::default() })
        }
        8 => {
            let (key, range_end) = (random_key(random), random_key(random));
            Write::Delete(DeleteRangeRequest { key, range_end, prev_kv: false })
        }
        _ => {
            // Distinct keys: a key put twice in one transaction is refused.
            let puts: BTreeMap<Bytes, PutRequest> =
                (0..random.random_range(1..8)).map(|_| put(random)).map(|p| (p.key.clone(), p)).collect();
            let op = |p| RequestOp { request: Some(Request::RequestPut(p)) };
            Write::Txn(TxnRequest { success: puts.into_values().map(op).collect(), ..TxnRequest::default() })
        }
    }
}

async fn write(side: &mut Side, write: &Write) -> i64 {
    let header = match write {
        Write::Put(put) => side.kv.put(put.clone()).await.expect("a put").into_inner().header,
        Write::Delete(delete) => {
            side.kv.delete_range(delete.clone()).await.expect("a delete").into_inner().header
        }
        Write::Txn(txn) => side.kv.txn(txn.clone()).await.expect("a txn").into_inner().header,
    };
    header.expect("a header").revision
}

#[derive(Default)]
struct Counts {
    events: usize,
    created: usize,
    resumed: usize,
    cut: usize,
    refused: usize,
    /// COMPACT-5: 3.5.1 removes a tombstone at the compact revision, so a watch from there misses it.
    tombstone_at_compaction: usize,
}

/// Creates a watcher on both sides and settles how its creation ended.
async fn create(
    sides: &mut [Side; 2],
    stream: usize,
    asked: WatchCreateRequest,
    now: i64,
    compacted: i64,
    history: &[Event],
    counts: &mut Counts,
) -> Option<Watcher> {
    let id = (stream, asked.watch_id);
    for side in sides.iter_mut() {
        side.ask(stream, RequestUnion::CreateRequest(asked.clone())).await;
        side.until("a creation", |seen| {
            let created = |id| seen.get(&id).is_some_and(|s: &Seen| s.created.is_some());
            created(id) || created((stream, -1))
        })
        .await;
    }
    counts.created += 1;
    let [left, right] = sides;
    if let Some(refusal) = left.seen.remove(&(stream, -1)) {
        let other = right.seen.remove(&(stream, -1)).expect("refused by both");
        assert_eq!(refusal.end, other.end, "the reasons of a refusal: {asked:?}");
        counts.refused += 1;
        return None;
    }
    let revision =
        |side: &Side| side.seen[&id].created.as_ref().and_then(|c| c.header.as_ref()).map(|h| h.revision);
    assert_eq!(revision(left), revision(right), "the revision in `created`");
    if asked.start_revision > 0 && asked.start_revision < compacted {
        for side in sides.iter_mut() {
            side.until("a watch below the compaction", |seen| seen[&id].end.is_some()).await;
        }
        let [left, right] = sides;
        let (left, right) = (left.seen.remove(&id).expect("seen"), right.seen.remove(&id).expect("seen"));
        assert_eq!(left.end, right.end, "a watch below the compaction: {asked:?}");
        assert_eq!(right.end, Some((compacted, String::new())));
        assert!(left.events.is_empty() && right.events.is_empty(), "events below the compaction");
        counts.cut += 1;
        return None;
    }
    counts.resumed += usize::from(asked.start_revision > 0 && asked.start_revision <= now);
    let from = if asked.start_revision == 0 { now + 1 } else { asked.start_revision };
    let mut watcher = Watcher { id, asked, from, counted: 0, owed: Vec::new(), tombstone_at_compaction: 0 };
    watcher.owe(history, compacted);
    let lost = |e: &&Event| {
        e.r#type() == EventType::Delete && e.kv.as_ref().is_some_and(|kv| kv.mod_revision == compacted)
    };
    watcher.tombstone_at_compaction = watcher.owed.iter().filter(lost).count();
    Some(watcher)
}

/// Waits until each watcher was sent what it is owed, then compares and forgets it.
async fn barrier(
    sides: &mut [Side; 2],
    watchers: &mut [Watcher],
    history: &[Event],
    compacted: i64,
    counts: &mut Counts,
) {
    for watcher in watchers.iter_mut() {
        watcher.owe(history, compacted);
    }
    for (side, etcd) in sides.iter_mut().zip([true, false]) {
        side.until("a barrier", |seen| {
            watchers.iter().all(|w| {
                let lost = if etcd { w.tombstone_at_compaction } else { 0 };
                seen.get(&w.id).is_some_and(|s| s.events.len() + lost >= w.owed.len())
            })
        })
        .await;
    }
    for watcher in watchers {
        for (side, etcd) in sides.iter_mut().zip([true, false]) {
            let events = std::mem::take(&mut side.seen.get_mut(&watcher.id).expect("seen").events);
            let lost = if etcd { watcher.tombstone_at_compaction } else { 0 };
            assert_eq!(events, watcher.owed[lost..], "{} sent {:?}", side.name, watcher.asked);
        }
        counts.tombstone_at_compaction += watcher.tombstone_at_compaction;
        counts.events += watcher.owed.len();
        watcher.tombstone_at_compaction = 0;
        watcher.owed.clear();
    }
}

/// Returns once every watcher has seen everything up to `now` (WATCH-41). Of one that is owed nothing no response
/// tells; but lagging watchers are served together, in one pass, and whoever comes after them in a later one. So a
/// watcher of the newest revision, once told, means that a pass began which serves all that came before it, and a
/// second one that this pass is over.
async fn all_synced(sides: &mut [Side; 2], now: i64, next_id: &mut i64) {
    for _ in 0..2 {
        *next_id += 1;
        let id = (STREAMS, *next_id);
        let newest = WatchCreateRequest {
            range_end: Bytes::from_static(b"\0"),
            start_revision: now,
            watch_id: id.1,
            ..WatchCreateRequest::default()
        };
        for side in sides.iter_mut() {
            side.ask(id.0, RequestUnion::CreateRequest(newest.clone())).await;
            side.until("the newest revision", |seen| seen.get(&id).is_some_and(|s| !s.events.is_empty()))
                .await;
            side.cancel(id).await;
        }
    }
}

fn random_watcher(random: &mut ChaCha8Rng, watch_id: i64, now: i64, compacted: i64) -> WatchCreateRequest {
    let (key, range_end) = random_range(random);
    let start_revision = match random.random_range(0..10) {
        0..3 => 0,
        3 => now + random.random_range(1..200),
        4 => compacted.max(1),
        5 | 6 if compacted > 1 => random.random_range(1..compacted),
        _ => random.random_range(compacted.max(1)..=now),
    };
    let filters = match random.random_range(0..6) {
        0 => vec![0],
        1 => vec![1],
        2 => vec![0, 1],
        _ => Vec::new(),
    };
    WatchCreateRequest {
        key,
        range_end,
        start_revision,
        filters,
        watch_id,
        prev_kv: random.random(),
        fragment: random.random(),
        progress_notify: random.random(),
    }
}

#[tokio::test]
async fn two_hundred_watchers_see_the_same_on_both_servers() {
    let Some(etcd) = tools::etcd() else { return };
    let (goal, seed) = (count(100_000, 1_000_000), seed());
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut sides =
        [Side::start("etcd", Program::etcd(&etcd)).await, Side::start("cairn", Program::cairn()).await];
    let (mut counts, mut history) = (Counts::default(), Vec::<Event>::new());
    let (mut now, mut compacted, mut next_id) = (1, 0, 1);
    let mut watchers: Vec<Watcher> = Vec::new();

    // The witness: everything from the beginning, with what was before. It is owed whatever it was sent.
    let witness = (STREAMS, 1);
    for side in &mut sides {
        let all = WatchCreateRequest {
            range_end: Bytes::from_static(b"\0"),
            start_revision: 1,
            watch_id: witness.1,
            prev_kv: true,
            ..WatchCreateRequest::default()
        };
        side.ask(witness.0, RequestUnion::CreateRequest(all)).await;
        side.until("the witness", |seen| seen.get(&witness).is_some_and(|s| s.created.is_some())).await;
    }

    // Which watchers come is chance: it goes on until each count has its share, within reason.
    while counts.events < goal || counts.resumed < RESUMED || counts.cut < CUT {
        assert!(
            counts.events < goal * 3,
            "{} resumed and {} cut in so many events",
            counts.resumed,
            counts.cut
        );
        for _ in 0..random.random_range(20..60) {
            let next = random_write(&mut random);
            let (left, right) = (write(&mut sides[0], &next).await, write(&mut sides[1], &next).await);
            assert_eq!(left, right, "the revision of a write");
            now = left;
        }
        let mut told = Vec::new();
        for side in &mut sides {
            let newest = |s: &Seen| {
                s.events.last().and_then(|e| e.kv.as_ref()).is_some_and(|kv| kv.mod_revision == now)
            };
            let quiet = history.last().and_then(|e| e.kv.as_ref()).is_some_and(|kv| kv.mod_revision == now);
            side.until("the witness", |seen| quiet || newest(&seen[&witness])).await;
            told.push(std::mem::take(&mut side.seen.get_mut(&witness).expect("seen").events));
        }
        assert_eq!(told[0], told[1], "the witness saw two histories");
        history.append(&mut told[1]);
        barrier(&mut sides, &mut watchers, &history, compacted, &mut counts).await;

        if random.random_range(0..4) == 0 && now > compacted + 1 {
            // Often at a revision that deletes: the tombstone there must outlive the compaction.
            let deletes = history.iter().filter(|e| e.r#type() == EventType::Delete);
            let deletes: Vec<i64> = deletes
                .filter_map(|e| e.kv.as_ref())
                .map(|kv| kv.mod_revision)
                .filter(|r| *r > compacted)
                .collect();
            compacted = match deletes.choose(&mut random) {
                Some(revision) if random.random() => *revision,
                _ => random.random_range(compacted + 1..=now),
            };
            all_synced(&mut sides, now, &mut next_id).await;
            for side in &mut sides {
                let request = CompactionRequest { revision: compacted, physical: true };
                side.kv.compact(request).await.expect("a compaction");
            }
            history.retain(|e| e.kv.as_ref().is_some_and(|kv| kv.mod_revision >= compacted));
            watchers.iter_mut().for_each(|w| w.counted = history.len());
        }
        // A few go, and as many as are missing come.
        for _ in 0..random.random_range(10..40).min(watchers.len()) {
            let gone = watchers.swap_remove(random.random_range(0..watchers.len()));
            for side in &mut sides {
                let more = side.cancel(gone.id).await;
                assert!(more.is_empty(), "{} sent {:?} more than it owed: {more:?}", side.name, gone.asked);
            }
        }
        while watchers.len() < WATCHERS {
            next_id += 1;
            let asked = random_watcher(&mut random, next_id, now, compacted);
            let stream = random.random_range(0..STREAMS);
            watchers.extend(create(&mut sides, stream, asked, now, compacted, &history, &mut counts).await);
        }
        barrier(&mut sides, &mut watchers, &history, compacted, &mut counts).await;
    }
    let Counts { events, created, resumed, cut, refused, tombstone_at_compaction } = counts;
    println!("watches: {created} watchers created, {refused} refused");
    println!("watches: COMPACT-5 on 3.5.1: {tombstone_at_compaction} tombstones lost there");
    let shown = [
        score("watch events compared", events, goal),
        score("watchers resumed from history", resumed, RESUMED),
        score("watchers cut by compaction", cut, CUT),
        score("differences by COMPACT-5", tombstone_at_compaction, 1),
    ];
    assert!(shown.iter().all(|ok| *ok), "too little was shown, or a listed difference no longer occurs");
}
