// SPDX-License-Identifier: Apache-2.0
//! A process that ends at each failpoint in turn, in a cluster under load.
//!
//! Owns      the list of points, with whom it hits and what brings it there.
//! Holds     1. every point that there is has its round: it is reached, and the process is gone at that moment;
//!           2. the others go on without it, and it starts again by itself;
//!           3. in the end the verdict is that of the rounds: nothing that was acknowledged is lost.
//! Never     waits for a time: a point that is not reached fails its round.

use std::collections::BTreeSet;
use std::time::Instant;

use cairn_proto::etcdserverpb::watch_request::RequestUnion;
use cairn_proto::etcdserverpb::{
    CompactionRequest, DefragmentRequest, DeleteRangeRequest, LeaseGrantRequest, LeaseKeepAliveRequest,
    LeaseTimeToLiveRequest, MemberListRequest, MemberUpdateRequest, PutRequest, WatchCreateRequest,
    WatchRequest,
};
use cairn_tests::client::Client;
use cairn_tests::cluster::{RETRY, accepted, everything, goes_on, judge, leader};
use cairn_tests::failpoints::{Failpoints, PANICKED, table};
use cairn_tests::history::Event;
use cairn_tests::load::{Load, PREFIX};
use cairn_tests::scale::{score, seed};
use cairn_tests::server::{Program, Server};
use rand::seq::SliceRandom as _;
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use tokio::task::JoinHandle;
use tokio_stream::StreamExt as _;

const MEMBERS: usize = 3;
/// Acknowledgements that show that the others go on.
const WITHOUT: u64 = 20;
/// Changes that compactions can take away: as many for each as its purge takes several slices for.
const GARBAGE: usize = 1_200;
const GARBAGE_PER_COMPACTION: i64 = 150;
/// What has the log of the others begin behind what a member has that was down.
const BIG_WRITES: usize = 12;
const BIG_BYTES: usize = 1 << 20;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Who {
    Leader,
    Follower,
}

/// What brings a member to a point.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum By {
    /// The load alone.
    Load,
    Watch,
    Compaction,
    Defragmentation,
    KeepAlive,
    TimeToLive,
    /// Asked at another member.
    TimeToLiveElsewhere,
    MemberUpdate,
    Start,
}

/// Points of a snapshot, in the order in which one comes to them: until the last, the member stays as far behind.
const OF_A_SNAPSHOT: [&str; 6] = [
    "raftBeforeSaveSnap",
    "raftAfterSaveSnap",
    "raftBeforeApplySnap",
    "raftAfterApplySnap",
    "applyBeforeOpenSnapshot",
    "applyAfterOpenSnapshot",
];

const OTHERS: &[(&str, Who, By)] = &[
    ("raftBeforeSave", Who::Leader, By::Load),
    ("raftAfterSave", Who::Follower, By::Load),
    ("walBeforeSync", Who::Follower, By::Load),
    ("walAfterSync", Who::Leader, By::Load),
    ("raftBeforeLeaderSend", Who::Leader, By::Load),
    ("raftBeforeFollowerSend", Who::Follower, By::Load),
    ("raftBeforeAdvance", Who::Follower, By::Load),
    ("raftDropHeartbeat", Who::Follower, By::Load),
    ("beforeApplyOneEntryNormal", Who::Follower, By::Load),
    ("beforeStartDBTxn", Who::Follower, By::Load),
    ("afterStartDBTxn", Who::Follower, By::Load),
    ("beforeWritebackBuf", Who::Follower, By::Load),
    ("afterWritebackBuf", Who::Leader, By::Load),
    ("beforeSendWatchResponse", Who::Follower, By::Watch),
    ("compactBeforeCommitScheduledCompact", Who::Follower, By::Compaction),
    ("compactAfterCommitScheduledCompact", Who::Leader, By::Compaction),
    ("compactAfterAcquiredBatchTxLock", Who::Follower, By::Compaction),
    ("compactBeforeCommitBatch", Who::Follower, By::Compaction),
    ("compactAfterCommitBatch", Who::Follower, By::Compaction),
    ("compactBeforeSetFinishedCompact", Who::Follower, By::Compaction),
    ("compactAfterSetFinishedCompact", Who::Follower, By::Compaction),
    ("defragBeforeCopy", Who::Follower, By::Defragmentation),
    ("defragOpenFileError", Who::Follower, By::Defragmentation),
    ("defragdbFail", Who::Follower, By::Defragmentation),
    ("defragBeforeRename", Who::Leader, By::Defragmentation),
    ("beforeCommit", Who::Follower, By::Defragmentation),
    ("afterCommit", Who::Follower, By::Defragmentation),
    ("raftAfterWALRelease", Who::Follower, By::Defragmentation),
    ("beforeCheckpointInLeaseRenew", Who::Leader, By::KeepAlive),
    ("beforeLookupWhenLeaseTimeToLive", Who::Leader, By::TimeToLive),
    ("beforeLookupWhenForwardLeaseTimeToLive", Who::Leader, By::TimeToLiveElsewhere),
    ("beforeApplyOneConfChange", Who::Follower, By::MemberUpdate),
    ("beforePublishing", Who::Follower, By::Start),
];

struct Field {
    members: Vec<Server>,
    points: Vec<Failpoints>,
    load: Load,
    random: ChaCha8Rng,
    /// What the next compaction takes away.
    compact: i64,
    rounds: usize,
}

impl Field {
    /// A cluster with garbage, and then a load on it. Gives what there was before the load, too.
    async fn start(mut random: ChaCha8Rng) -> (Field, Vec<Event>) {
        let few = Program::cairn_next().arg("--snapshot-catchup-entries=10");
        let mut members: Vec<Server> = (0..MEMBERS).map(|_| Server::idle(few.clone())).collect();
        let points = members.iter_mut().map(Server::serve_failpoints).collect();
        Server::found_cluster(&mut members).await;
        let client = members[0].client().await;
        let mut writers = Vec::new();
        for writer in 0..8 {
            let mut kv = client.kv.clone();
            writers.push(tokio::spawn(async move {
                for n in 0..GARBAGE / 8 {
                    let (key, value) = (format!("garbage/{writer}"), format!("garbage {writer}.{n}"));
                    let done = if n % 8 == 7 {
                        kv.delete_range(DeleteRangeRequest { key: key.into(), ..Default::default() })
                            .await
                            .map(drop)
                    } else {
                        kv.put(PutRequest { key: key.into(), value: value.into(), ..Default::default() })
                            .await
                            .map(drop)
                    };
                    done.expect("written");
                }
            }));
        }
        for writer in writers {
            writer.await.expect("it writes");
        }
        let before = everything(&client, 2).await;
        let urls: Vec<String> = members.iter().map(Server::url).collect();
        let load = Load::start(&urls, random.random());
        (Field { members, points, load, random, compact: 1, rounds: 0 }, before)
    }

    async fn goes_on(&self, when: &str) {
        goes_on(&self.load, WITHOUT, when).await;
    }

    async fn pick(&mut self, who: Who) -> usize {
        let leader = leader(&self.members).await;
        match who {
            Who::Leader => leader,
            Who::Follower => (leader + self.random.random_range(1..MEMBERS)) % MEMBERS,
        }
    }

    async fn round(&mut self, (point, who, by): (&'static str, Who, By)) {
        self.goes_on("before the end of a member").await;
        let victim = self.pick(who).await;
        println!("{point}: member {victim}, {who:?}, by {by:?}");
        let trigger = if by == By::Start {
            self.members[victim].kill();
            self.begin_to_end_at(victim, point);
            None
        } else {
            self.points[victim].set(point, "panic").await;
            Some(self.trigger(victim, by).await)
        };
        self.has_ended(victim, point).await;
        if let Some(trigger) = trigger {
            trigger.abort();
        }
        self.goes_on("while a member is away").await;
        self.members[victim].set_env("GOFAIL_FAILPOINTS", None);
        self.members[victim].restart().await;
        self.rounds += 1;
    }

    fn begin_to_end_at(&mut self, victim: usize, point: &str) {
        self.members[victim].set_env("GOFAIL_FAILPOINTS", Some(&format!("{point}=panic")));
        self.members[victim].begin();
    }

    /// It has ended at the point, and for no other reason.
    async fn has_ended(&mut self, victim: usize, point: &str) {
        let status = self.members[victim].ended().await;
        let log = self.members[victim].log();
        // Another thread may have said something meanwhile.
        let said = log.lines().rev().take(5).any(|line| line == format!("panic: failpoint panic: {point}"));
        assert!(said && status.code() == Some(PANICKED), "{status}\n{log}");
    }

    /// Begins what brings the victim to a point; it ends nothing if that does not come.
    async fn trigger(&mut self, victim: usize, by: By) -> JoinHandle<()> {
        let own = Client::lazy(&self.members[victim].url());
        let other = Client::lazy(&self.members[(victim + 1) % MEMBERS].url());
        self.compact += if by == By::Compaction { GARBAGE_PER_COMPACTION } else { 0 };
        let revision = self.compact;
        let id = if matches!(by, By::KeepAlive | By::TimeToLive | By::TimeToLiveElsewhere) {
            let grant = LeaseGrantRequest { ttl: 60, id: 0 };
            let granted = accepted(async || other.lease.clone().lease_grant(grant).await).await;
            granted.into_inner().id
        } else {
            0
        };
        let url = self.members[victim].peer_url();
        tokio::spawn(async move {
            // Answers are of no interest: the member may be gone before it gives one.
            match by {
                By::Load | By::Start => {}
                By::Watch => watch(own).await,
                By::Compaction => {
                    let compact = CompactionRequest { revision, physical: false };
                    drop(other.kv.clone().compact(compact).await);
                }
                By::Defragmentation => drop(own.maintenance.clone().defragment(DefragmentRequest {}).await),
                By::KeepAlive => {
                    let asks = tokio_stream::iter([LeaseKeepAliveRequest { id }]);
                    if let Ok(answers) = own.lease.clone().lease_keep_alive(asks).await {
                        drop(answers.into_inner().next().await);
                    }
                }
                By::TimeToLive | By::TimeToLiveElsewhere => {
                    let asked = if by == By::TimeToLive { own } else { other };
                    let ask = LeaseTimeToLiveRequest { id, keys: false };
                    drop(asked.lease.clone().lease_time_to_live(ask).await);
                }
                By::MemberUpdate => {
                    let list = MemberListRequest { linearizable: true };
                    let list = other.cluster.clone().member_list(list).await.expect("a list").into_inner();
                    let member = list.members.iter().find(|member| member.peer_urls == [url.clone()]);
                    let id = member.expect("it is a member").id;
                    let update = MemberUpdateRequest { id, peer_urls: vec![url] };
                    // A change is refused while members that were just started are not yet connected to for long.
                    while other.cluster.clone().member_update(update.clone()).await.is_err() {
                        tokio::time::sleep(RETRY).await;
                    }
                }
            }
        })
    }

    /// A follower that was down for too long ends at each point of the snapshot that it is sent.
    async fn snapshots(&mut self) {
        let behind = self.pick(Who::Follower).await;
        println!("snapshots: member {behind}");
        self.members[behind].kill();
        let others: Vec<usize> = (0..MEMBERS).filter(|other| *other != behind).collect();
        let begin = Instant::now();
        for n in 0..BIG_WRITES {
            let value = format!("{n} {}", "b".repeat(BIG_BYTES));
            let put = PutRequest { key: "big".into(), value: value.into(), ..PutRequest::default() };
            accepted(async || self.members[others[0]].client().await.kv.put(put.clone()).await).await;
            // What is in a checkpoint that is not the newest leaves the log.
            for other in others.iter().filter(|_| n % 3 == 2) {
                let mut maintenance = self.members[*other].client().await.maintenance;
                maintenance.defragment(DefragmentRequest {}).await.expect("folded");
            }
        }
        println!("{BIG_WRITES} large writes took {:?}", begin.elapsed());
        for point in OF_A_SNAPSHOT {
            println!("{point}: member {behind}");
            self.begin_to_end_at(behind, point);
            self.has_ended(behind, point).await;
            self.goes_on("while a member is away").await;
            self.rounds += 1;
        }
        self.members[behind].set_env("GOFAIL_FAILPOINTS", None);
        self.members[behind].restart().await;
    }
}

/// Sees changes until the stream ends.
async fn watch(client: Client) {
    let create = WatchCreateRequest { key: PREFIX.into(), range_end: vec![0].into(), ..Default::default() };
    let create = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
    let requests = tokio_stream::iter([create]).chain(tokio_stream::pending());
    if let Ok(answers) = client.watch.clone().watch(requests).await {
        let mut answers = answers.into_inner();
        while let Some(Ok(_)) = answers.next().await {}
    }
}

#[test]
fn every_failpoint_has_its_round() {
    let there: BTreeSet<String> =
        table().into_iter().filter(|row| row.is_there).map(|row| row.name).collect();
    let rounds: BTreeSet<String> = OF_A_SNAPSHOT
        .iter()
        .chain(OTHERS.iter().map(|(point, ..)| point))
        .map(|name| (*name).to_owned())
        .collect();
    assert_eq!(rounds, there);
}

// rule: E2-8
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_when_a_member_ends_at_any_failpoint() {
    let mut random = ChaCha8Rng::seed_from_u64(seed());
    let begin = Instant::now();
    let (mut field, before) = Field::start(ChaCha8Rng::seed_from_u64(random.random())).await;
    field.snapshots().await;
    let mut rounds = OTHERS.to_vec();
    rounds.shuffle(&mut random);
    for round in rounds {
        field.round(round).await;
    }
    let judged = judge(field.load, &field.members, before).await;
    println!("{judged:?} in {:?}", begin.elapsed());
    let all = OF_A_SNAPSHOT.len() + OTHERS.len();
    assert!(score("ends of a process at a failpoint", field.rounds, all));
    assert!(judged.checked.writes > all * WITHOUT as usize, "the load lost its weight: {judged:?}");
}
