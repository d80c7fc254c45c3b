// SPDX-License-Identifier: Apache-2.0
//! Kill -9 under load: what was acknowledged is there, and no revision is given twice.
//!
//! Owns      the rounds of load, kill and check against one data directory.
//! Holds     1. 16 clients write, each its own keys, one request at a time, and keep what was acknowledged;
//!           2. the kill falls on a count of acknowledgements drawn from the printed seed, never on a time;
//!           3. after each restart, every acknowledged write of the round is read back at its own revision,
//!              unless a compaction passed it, and the newest value of each key is the last acknowledged one
//!              or the one that was under way.
//! Never     counts a page cache as a disk: the crash explorer of the engine takes unsynced writes away.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use cairn_proto::etcdserverpb::kv_client::KvClient;
use cairn_proto::etcdserverpb::{CompactionRequest, PutRequest, RangeRequest};
use cairn_tests::scale::{count, score, seed};
use cairn_tests::server::{Program, Server};
use rand::{Rng, SeedableRng};
use tokio::sync::Notify;
use tonic::transport::Channel;

const CLIENTS: usize = 16;
const KEYS_A_CLIENT: u64 = 40;
/// A round that has not reached its count by then hangs.
const HUNG: Duration = Duration::from_secs(120);

/// One client's view of what it wrote. Values are counts, so that order can be told from them.
#[derive(Default)]
struct Written {
    /// By key: the last value acknowledged, and its revision.
    acknowledged: BTreeMap<String, (u64, i64)>,
    /// By revision, in this round: key and value.
    round: Vec<(i64, String, u64)>,
    /// The request that had no answer when the server died.
    under_way: Option<(String, u64)>,
    next: u64,
}

async fn write_until_the_end(
    client: usize,
    mut kv: KvClient<Channel>,
    mut written: Written,
    acknowledged: Arc<AtomicU64>,
    target: u64,
    reached: Arc<Notify>,
) -> Written {
    loop {
        let value = written.next;
        let key = format!("c{client:02}/{:02}", value % KEYS_A_CLIENT);
        written.next += 1;
        written.under_way = Some((key.clone(), value));
        let put = PutRequest {
            key: key.clone().into(),
            value: format!("{value:0200}").into(),
            ..PutRequest::default()
        };
        let Ok(answer) = kv.put(put).await else { return written };
        let revision = answer.into_inner().header.expect("a header").revision;
        written.under_way = None;
        written.acknowledged.insert(key.clone(), (value, revision));
        written.round.push((revision, key, value));
        if acknowledged.fetch_add(1, Ordering::Relaxed) + 1 >= target {
            reached.notify_one();
        }
    }
}

/// Compacts to a little behind the newest acknowledged revision, again and again.
async fn compact_until_the_end(
    mut kv: KvClient<Channel>,
    acknowledged: Arc<AtomicU64>,
    done: Arc<AtomicBool>,
) -> i64 {
    let (mut compacted, mut seen) = (0, 0);
    while !done.load(Ordering::Relaxed) {
        if acknowledged.load(Ordering::Relaxed) < seen + 400 {
            tokio::task::yield_now().await;
            let Ok(_) = kv.range(RangeRequest { key: "c00/00".into(), ..RangeRequest::default() }).await
            else {
                break;
            };
            continue;
        }
        seen = acknowledged.load(Ordering::Relaxed);
        let Ok(now) = kv.range(RangeRequest { key: "c00/00".into(), ..RangeRequest::default() }).await else {
            break;
        };
        let revision = now.into_inner().header.expect("a header").revision - 100;
        // The answer may be lost and the compaction not: what counts is that it was asked for.
        compacted = revision.max(compacted);
        if kv.compact(CompactionRequest { revision, physical: false }).await.is_err() {
            break;
        }
    }
    compacted
}

fn value_of(kv: &cairn_proto::mvccpb::KeyValue) -> u64 {
    std::str::from_utf8(&kv.value).expect("digits").parse().expect("a count")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_and_no_revision_is_given_twice_under_kill_9() {
    let (rounds, seed) = (count(20, 100), seed());
    let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(seed);

    let mut server = Server::start(Program::cairn()).await;
    let mut clients: Vec<Written> = (0..CLIENTS).map(|_| Written::default()).collect();
    let mut given: HashMap<i64, (String, u64)> = HashMap::new();
    let (mut checked, mut restarts) = (0, Vec::new());

    for round in 0..rounds {
        let target = random.random_range(800..3000);
        let (acknowledged, reached) = (Arc::new(AtomicU64::new(0)), Arc::new(Notify::new()));
        let done = Arc::new(AtomicBool::new(false));
        let mut clients_kv = Vec::new();
        for _ in 0..4 {
            clients_kv.push(server.client().await.kv);
        }
        let tasks: Vec<_> = clients
            .drain(..)
            .enumerate()
            .map(|(i, written)| {
                let kv = clients_kv[i % clients_kv.len()].clone();
                tokio::spawn(write_until_the_end(
                    i,
                    kv,
                    written,
                    acknowledged.clone(),
                    target,
                    reached.clone(),
                ))
            })
            .collect();
        let compactor =
            tokio::spawn(compact_until_the_end(clients_kv[0].clone(), acknowledged.clone(), done.clone()));
        tokio::time::timeout(HUNG, reached.notified()).await.expect("the load goes on");
        server.kill();
        done.store(true, Ordering::Relaxed);
        for task in tasks {
            clients.push(task.await.expect("a client ends with its server"));
        }
        let compacted = compactor.await.expect("the compactor ends with its server");

        let from = Instant::now();
        server.restart().await;
        restarts.push(from.elapsed());

        let mut kv = server.client().await.kv;
        for written in &mut clients {
            for (revision, key, value) in written.round.drain(..) {
                if let Some(before) = given.insert(revision, (key.clone(), value)) {
                    panic!(
                        "round {round}: revision {revision} was given to {before:?} and to {key} = {value}"
                    );
                }
                if revision <= compacted {
                    continue;
                }
                let range = RangeRequest { key: key.clone().into(), revision, ..RangeRequest::default() };
                let answer = kv.range(range).await.expect("a read at an acknowledged revision").into_inner();
                let [found] = &answer.kvs[..] else { panic!("round {round}: {key} at {revision} is lost") };
                assert_eq!((found.mod_revision, value_of(found)), (revision, value), "round {round}: {key}");
                checked += 1;
            }
            for (key, (value, revision)) in &mut written.acknowledged {
                let range = RangeRequest { key: key.clone().into(), ..RangeRequest::default() };
                let answer = kv.range(range).await.expect("a read").into_inner();
                let [found] = &answer.kvs[..] else { panic!("round {round}: {key} is lost") };
                let now = value_of(found);
                let landed = written.under_way.as_ref().is_some_and(|(k, v)| k == key && *v == now);
                assert!(now == *value || landed, "round {round}: {key} is {now}, acknowledged {value}");
                if landed {
                    let other = given.insert(found.mod_revision, (key.clone(), now));
                    assert!(other.is_none(), "round {round}: revision {} twice", found.mod_revision);
                }
                (*value, *revision) = (now, found.mod_revision);
                checked += 1;
            }
            written.under_way = None;
        }
    }
    server.stop().await;
    restarts.sort();
    println!(
        "kill: restart to first read: median {:?}, longest {:?}",
        restarts[rounds / 2],
        restarts[rounds - 1]
    );
    let shown = [
        score("kill -9 rounds", restarts.len(), rounds),
        score("writes acknowledged under kill -9", given.len(), rounds * 800),
        score("reads checked after kill -9", checked, rounds * 800),
    ];
    assert!(shown.iter().all(|ok| *ok), "the load lost its weight");
}
