// SPDX-License-Identifier: Apache-2.0
//! Clients of a cluster that is being hurt: they write, read, watch and lock throughout, and keep what they were told.
//!
//! Owns      the tasks of the clients, and how long nobody was acknowledged anything.
//! Holds     1. a request without an answer is recorded as such, and never sent again under the same value;
//!           2. a watcher goes on, wherever it can, behind what it saw last.
//! Never     judges what it is told.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use cairn_proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use cairn_proto::etcdserverpb::request_op::Request as OpRequest;
use cairn_proto::etcdserverpb::watch_request::RequestUnion;
use cairn_proto::etcdserverpb::{
    Compare, DeleteRangeRequest, LeaseGrantRequest, LeaseRevokeRequest, PutRequest, RangeRequest, RequestOp,
    ResponseHeader, TxnRequest, TxnResponse, WatchCreateRequest, WatchRequest,
};
use cairn_proto::v3lockpb::LockRequest;
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_stream::StreamExt as _;
use tonic::{IntoRequest, Request as Call, Status};

use crate::client::Client;
use crate::history::{Answer, Event, Found, Op, Request};

/// What is under load.
pub const PREFIX: &str = "k/";
const PREFIX_END: &str = "k0";
pub const LOCK: &str = "lock";
pub const GUARDED: &str = "guarded";

const WRITERS: usize = 8;
const WATCHERS: usize = 3;
const LOCKERS: usize = 2;
const KEYS: usize = 10;
/// After it a client turns to another member.
const PATIENCE: Duration = Duration::from_secs(1);
/// Each new leader gives leases their whole time again, so one that outlasts the time between two faults would hold the
/// lock throughout once its client lost it.
const LEASE_S: i64 = 2;
/// Waiting for a lock takes as long as others hold it.
const LOCK_PATIENCE: Duration = Duration::from_secs(LEASE_S as u64);
/// What follows a refusal that comes at once, so that clients do not fill the history with them.
const BREATH: Duration = Duration::from_millis(5);
/// What follows a change of the guarded key: it is the writers that are to be many.
const REST: Duration = Duration::from_millis(20);

struct Shared {
    clients: Mutex<Vec<Client>>,
    begun: Instant,
    stop: AtomicBool,
    acknowledged: AtomicU64,
    progress: Notify,
    /// When something was acknowledged last, and the longest time between two such since it was asked for last.
    gap: Mutex<(Instant, Duration)>,
    /// The last revision that a watcher is to see; no end while it is not known.
    last: AtomicI64,
}

/// The clients, running.
pub struct Load {
    shared: Arc<Shared>,
    writers: Vec<JoinHandle<Vec<Op>>>,
    watchers: Vec<JoinHandle<Vec<Event>>>,
    lockers: Vec<JoinHandle<()>>,
}

impl Load {
    /// Starts all clients against the members at these URLs.
    pub fn start(urls: &[String], seed: u64) -> Load {
        let clients = urls.iter().map(|url| Client::lazy(url)).collect();
        let shared = Arc::new(Shared {
            clients: Mutex::new(clients),
            begun: Instant::now(),
            stop: AtomicBool::new(false),
            acknowledged: AtomicU64::new(0),
            progress: Notify::new(),
            gap: Mutex::new((Instant::now(), Duration::ZERO)),
            last: AtomicI64::new(i64::MAX),
        });
        let random = |kind: u64, i: usize| ChaCha8Rng::seed_from_u64(seed ^ kind << 32 ^ i as u64);
        Load {
            writers: (0..WRITERS).map(|i| tokio::spawn(write(shared.clone(), i, random(1, i)))).collect(),
            watchers: (0..WATCHERS).map(|i| tokio::spawn(observe(shared.clone(), i))).collect(),
            lockers: (0..LOCKERS).map(|i| tokio::spawn(lock(shared.clone(), i))).collect(),
            shared,
        }
    }

    /// A member is now at another place.
    pub fn moved(&self, number: usize, url: &str) {
        self.shared.clients.lock().expect("no panic under it")[number] = Client::lazy(url);
    }

    pub fn acknowledged(&self) -> u64 {
        self.shared.acknowledged.load(Ordering::Relaxed)
    }

    /// Waits until so many more were acknowledged; `false` if it takes longer than `patience`.
    pub async fn more(&self, count: u64, patience: Duration) -> bool {
        let target = self.acknowledged() + count;
        let reached = async {
            loop {
                let progress = self.shared.progress.notified();
                if self.acknowledged() >= target {
                    return;
                }
                progress.await;
            }
        };
        tokio::time::timeout(patience, reached).await.is_ok()
    }

    /// The longest time without an acknowledgement since this was asked for last.
    pub fn longest_gap(&self) -> Duration {
        let mut gap = self.shared.gap.lock().expect("no panic under it");
        let now = Instant::now();
        let longest = gap.1.max(now - gap.0);
        *gap = (now, Duration::ZERO);
        longest
    }

    /// Ends those who change anything, and gives what the writers kept. The watchers go on.
    ///
    /// # Panics
    /// If a client failed.
    pub async fn end_writes(&mut self) -> Vec<Op> {
        self.shared.stop.store(true, Ordering::Relaxed);
        let mut ops = Vec::new();
        for writer in self.writers.drain(..) {
            ops.extend(writer.await.expect("a writer ends"));
        }
        for locker in self.lockers.drain(..) {
            locker.await.expect("a locker ends");
        }
        ops
    }

    /// Waits until the watchers have everything up to a revision, and gives what each saw.
    ///
    /// # Panics
    /// If one does not get there within `patience`.
    pub async fn end(self, last: i64, patience: Duration) -> Vec<Vec<Event>> {
        self.shared.last.store(last, Ordering::Relaxed);
        let mut seen = Vec::new();
        for (number, watcher) in self.watchers.into_iter().enumerate() {
            let ended = tokio::time::timeout(patience, watcher).await;
            let ended =
                ended.unwrap_or_else(|_| panic!("watcher {number} is not at {last} after {patience:?}"));
            seen.push(ended.expect("a watcher ends"));
        }
        seen
    }
}

impl Shared {
    fn now(&self) -> u64 {
        self.begun.elapsed().as_nanos() as u64
    }

    fn client(&self, number: usize) -> Client {
        let clients = self.clients.lock().expect("no panic under it");
        clients[number % clients.len()].clone()
    }

    fn members(&self) -> usize {
        self.clients.lock().expect("no panic under it").len()
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn acknowledge(&self) {
        let now = Instant::now();
        let mut gap = self.gap.lock().expect("no panic under it");
        gap.1 = gap.1.max(now - gap.0);
        gap.0 = now;
        drop(gap);
        self.acknowledged.fetch_add(1, Ordering::Relaxed);
        self.progress.notify_waiters();
    }
}

fn timed<T>(message: T, patience: Duration) -> Call<T> {
    let mut call = message.into_request();
    call.set_timeout(patience);
    call
}

/// Its own requests one after the other, at one member until that refuses something.
async fn write(shared: Arc<Shared>, number: usize, mut random: ChaCha8Rng) -> Vec<Op> {
    let mut ops = Vec::new();
    let mut at = number;
    // Of each key, the revision at which this client saw it changed last.
    let mut seen = [0; KEYS];
    for count in 0.. {
        if shared.stopped() {
            break;
        }
        let place = random.random_range(0..KEYS);
        let key = format!("{PREFIX}{place}");
        let value = format!("{number}.{count}");
        let request = match random.random_range(0..100) {
            0..40 => Request::Put { key, value },
            40..60 => Request::Swap { key, seen: seen[place], value },
            60..65 => Request::Pair { keys: [key, format!("{PREFIX}{}", (place + 1) % KEYS)], value },
            65..72 => Request::Delete { key },
            72..92 => Request::Get { key },
            _ => Request::Stale { key },
        };
        let begin = shared.now();
        let answer = ask(shared.client(at), &request).await.ok();
        let end = shared.now();
        match &answer {
            Some(answer) => {
                if let Answer::Changed(revision) = answer {
                    seen[place] = *revision;
                    shared.acknowledge();
                }
                if let Answer::Read(_, found) = answer {
                    seen[place] = found.as_ref().map_or(0, |found| found.modified);
                }
            }
            None => {
                // Not all to the same: else in one fault all may be at who does not answer, one after the other.
                at += random.random_range(1..shared.members().max(2));
                tokio::time::sleep(BREATH).await;
            }
        }
        ops.push(Op { begin, end, request, answer });
    }
    ops
}

async fn ask(mut client: Client, request: &Request) -> Result<Answer, Status> {
    let revision = |header: Option<ResponseHeader>| header.map_or(0, |header| header.revision);
    match request {
        Request::Put { key, value } => {
            let put = put(key, value);
            let answer = client.kv.put(timed(put, PATIENCE)).await?.into_inner();
            Ok(Answer::Changed(revision(answer.header)))
        }
        Request::Delete { key } => {
            let delete = DeleteRangeRequest { key: key.clone().into(), ..Default::default() };
            let answer = client.kv.delete_range(timed(delete, PATIENCE)).await?.into_inner();
            let revision = revision(answer.header);
            Ok(if answer.deleted == 0 { Answer::Unchanged(revision) } else { Answer::Changed(revision) })
        }
        Request::Swap { key, seen, value } => {
            let compare = Compare {
                result: CompareResult::Equal.into(),
                target: CompareTarget::Mod.into(),
                key: key.clone().into(),
                target_union: Some(TargetUnion::ModRevision(*seen)),
                ..Default::default()
            };
            transact(&mut client, vec![compare], vec![put(key, value)]).await.map(answer_of)
        }
        Request::Pair { keys, value } => {
            let puts = keys.iter().map(|key| put(key, value)).collect();
            transact(&mut client, Vec::new(), puts).await.map(answer_of)
        }
        Request::Get { key } | Request::Stale { key } => {
            let serializable = matches!(request, Request::Stale { .. });
            let get = RangeRequest { key: key.clone().into(), serializable, ..Default::default() };
            let answer = client.kv.range(timed(get, PATIENCE)).await?.into_inner();
            Ok(Answer::Read(revision(answer.header), answer.kvs.first().map(Found::of)))
        }
    }
}

fn put(key: &str, value: &str) -> PutRequest {
    PutRequest { key: key.to_owned().into(), value: value.to_owned().into(), ..Default::default() }
}

async fn transact(
    client: &mut Client,
    compare: Vec<Compare>,
    puts: Vec<PutRequest>,
) -> Result<TxnResponse, Status> {
    let success =
        puts.into_iter().map(|put| RequestOp { request: Some(OpRequest::RequestPut(put)) }).collect();
    let txn = TxnRequest { compare, success, failure: Vec::new() };
    Ok(client.kv.txn(timed(txn, PATIENCE)).await?.into_inner())
}

fn answer_of(answer: TxnResponse) -> Answer {
    let revision = answer.header.map_or(0, |header| header.revision);
    if answer.succeeded { Answer::Changed(revision) } else { Answer::Unchanged(revision) }
}

/// Watches everything under load, from revision 2 on, at one member after the other.
async fn observe(shared: Arc<Shared>, number: usize) -> Vec<Event> {
    let mut seen: Vec<Event> = Vec::new();
    let mut next = 2;
    let is_behind = |next: i64| next <= shared.last.load(Ordering::Relaxed);
    for at in number.. {
        if !is_behind(next) {
            break;
        }
        let create = WatchCreateRequest {
            key: PREFIX.into(),
            range_end: PREFIX_END.into(),
            start_revision: next,
            ..Default::default()
        };
        let create = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
        // The client's end stays open.
        let requests = tokio_stream::iter([create]).chain(tokio_stream::pending());
        let mut client = shared.client(at);
        let opened = tokio::time::timeout(PATIENCE, client.watch.watch(requests)).await;
        let Ok(Ok(opened)) = opened else {
            tokio::time::sleep(BREATH).await;
            continue;
        };
        let mut answers = opened.into_inner();
        // A stream that is silent may be cut off from what happens, so the next member is asked.
        while let Ok(Some(Ok(answer))) = tokio::time::timeout(PATIENCE, answers.next()).await {
            seen.extend(answer.events.iter().map(Event::of));
            next = seen.last().map_or(next, |last| last.revision + 1);
            if answer.canceled || !is_behind(next) {
                break;
            }
        }
    }
    seen
}

/// Takes the lock under a lease, changes what it guards, and gives it up, at one member after the other.
async fn lock(shared: Arc<Shared>, number: usize) {
    for count in 0.. {
        if shared.stopped() {
            break;
        }
        let mut client = shared.client(number + count);
        let grant = LeaseGrantRequest { ttl: LEASE_S, id: 0 };
        let Ok(granted) = client.lease.lease_grant(timed(grant, PATIENCE)).await else {
            tokio::time::sleep(BREATH).await;
            continue;
        };
        let lease = granted.into_inner().id;
        let held = hold_once(&mut client, lease, &format!("{number}.{count}")).await;
        // Another member may do what this one did not; if none does, the lease runs out, and the lock with it.
        let mut client = if held.is_ok() { client } else { shared.client(number + count + 1) };
        let revoked = client.lease.lease_revoke(timed(LeaseRevokeRequest { id: lease }, PATIENCE)).await;
        tokio::time::sleep(if revoked.is_ok() { REST } else { BREATH }).await;
    }
}

async fn hold_once(client: &mut Client, lease: i64, change: &str) -> Result<(), Status> {
    let take = LockRequest { name: LOCK.into(), lease };
    let key = client.lock.lock(timed(take, LOCK_PATIENCE)).await?.into_inner().key;
    let still_held = Compare {
        result: CompareResult::Greater.into(),
        target: CompareTarget::Create.into(),
        key: key.clone(),
        target_union: Some(TargetUnion::CreateRevision(0)),
        ..Default::default()
    };
    let value = format!("{}#{change}", String::from_utf8_lossy(&key));
    transact(client, vec![still_held], vec![put(GUARDED, &value)]).await.map(drop)
}
