// SPDX-License-Identifier: Apache-2.0
//! Three members, each a process, as clients and operators meet them.
//!
//! Holds     what one member acknowledged, every member has; revisions are given once.
//! Never     waits for a time: it waits for what is to happen.

use crate::{
    members::{Members, Place, run},
    support::{Daemon, raw_call, until},
};
use bytes::Bytes;
use cairn_proto::etcdserverpb::{self as pb, kv_client::KvClient};
use futures_util::{StreamExt as _, stream};
use rustix::process::Signal;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tonic::{Code, Request, Status, transport::Channel};

const MEMBERS: usize = 3;

pub fn put(key: impl Into<Bytes>, value: impl Into<Bytes>) -> pb::PutRequest {
    pb::PutRequest { key: key.into(), value: value.into(), ..Default::default() }
}

pub fn get(key: impl Into<Bytes>, serializable: bool) -> pb::RangeRequest {
    pb::RangeRequest { key: key.into(), serializable, ..Default::default() }
}

// rule: BO-4, CL-13, HASH-17, LEASE-15, LEASE-22, LEASE-23, MT-8, RT-11, RT-12, SD-6
#[test]
fn three_members_are_one_store() {
    run(async {
        let mut trio = Members::start(MEMBERS, &[]);
        for i in 0..MEMBERS {
            let key = format!("k{i}");
            trio.place(i).kv().await.put(put(key, "v")).await.expect("any member takes writes");
        }
        for i in 0..MEMBERS {
            let everything = pb::RangeRequest { range_end: "l".into(), ..get("k", false) };
            let answer = trio.place(i).kv().await.range(everything).await.expect("read").into_inner();
            assert_eq!(answer.count, 3, "through member {i}");
        }
        assert_eq!(trio.hashes().await.len(), 1, "the same everywhere");

        let leader = trio.leader().await;
        let follower = (leader + 1) % MEMBERS;
        let mut lease = trio.place(follower).lease().await;
        let granted = lease.lease_grant(pb::LeaseGrantRequest { ttl: 60, id: 0 }).await.expect("granted");
        let id = granted.into_inner().id;
        let asked = futures_util::stream::iter([pb::LeaseKeepAliveRequest { id }]);
        let mut kept = lease.lease_keep_alive(asked).await.expect("a stream").into_inner();
        assert_eq!(kept.message().await.expect("an answer").expect("one").ttl, 60, "the leader renews it");
        let left = pb::LeaseTimeToLiveRequest { id, keys: false };
        let left = lease.lease_time_to_live(left).await.expect("an answer").into_inner();
        assert!((58..=60).contains(&left.ttl) && left.granted_ttl == 60, "{left:?}");

        let members = trio.place(follower).cluster().await;
        let listed =
            { members }.member_list(pb::MemberListRequest { linearizable: true }).await.expect("a list");
        let listed = listed.into_inner().members;
        let names: BTreeSet<&str> = listed.iter().map(|member| &member.name[..]).collect();
        assert_eq!(names, ["m0", "m1", "m2"].into());
        let id_of = |i: usize| listed.iter().find(|m| m.name == format!("m{i}")).expect("it is listed").id;

        let to = pb::MoveLeaderRequest { target_id: id_of(follower) };
        let refused = trio.place(follower).maintenance().await.move_leader(to).await.expect_err("a follower");
        assert_eq!((refused.code(), refused.message()), (Code::FailedPrecondition, "etcdserver: not leader"));
        let nobody = pb::MoveLeaderRequest { target_id: 77 };
        let refused = trio.place(leader).maintenance().await.move_leader(nobody).await.expect_err("nobody");
        let bad = "etcdserver: bad leader transferee";
        assert_eq!((refused.code(), refused.message()), (Code::FailedPrecondition, bad));
        trio.place(leader).maintenance().await.move_leader(to).await.expect("it moves");
        assert_eq!(trio.leader().await, follower);

        // A stop hands leadership over first.
        drop(trio.take(follower).stop());
        let next = trio.leader().await;
        assert_ne!(next, follower);
        trio.place(next).kv().await.put(put("after", "v")).await.expect("two of three go on");
    });
}

// rule: CL-9, HDR-11, KV-25, RT-4, WATCH-45
#[test]
fn a_member_without_a_quorum_serves_what_it_has_and_nothing_that_it_would_have_to_ask_for() {
    run(async {
        let mut trio = Members::start(MEMBERS, &[]);
        let alone = (trio.leader().await + 1) % MEMBERS;
        let others = [(alone + 1) % MEMBERS, (alone + 2) % MEMBERS];
        let place = trio.place(alone);
        let (mut kv, mut list) = (place.kv().await, place.cluster().await);
        let before = kv.put(put("k", "before")).await.expect("put").into_inner();
        let before = before.header.expect("a header").revision;
        let create = pb::WatchCreateRequest { key: "k".into(), ..Default::default() };
        let create =
            pb::WatchRequest { request_union: Some(pb::watch_request::RequestUnion::CreateRequest(create)) };
        // The client's end stays open.
        let requests = stream::iter([create]).chain(stream::pending());
        let mut events = place.watch().await.watch(requests).await.expect("a stream").into_inner();
        assert!(events.message().await.expect("an answer").expect("one").created);

        for other in others {
            trio.member(other).signal(Signal::STOP);
        }
        let refused = |status: Status| (status.code(), status.message().to_owned());
        let late = (Code::Unavailable, "etcdserver: request timed out".to_owned());
        let read = kv.range(get("k", false)).await.expect_err("nobody confirms it");
        assert_eq!(refused(read), late);
        let linearizable = pb::MemberListRequest { linearizable: true };
        assert_eq!(refused(list.member_list(linearizable).await.expect_err("nor this")), late);
        let known = list.member_list(pb::MemberListRequest { linearizable: false }).await;
        assert_eq!(known.expect("from memory").into_inner().members.len(), MEMBERS);
        let read = kv.range(get("k", true)).await.expect("what it has").into_inner();
        assert_eq!(
            (&read.kvs[0].value[..], read.header.expect("a header").revision),
            (&b"before"[..], before)
        );

        // The others go on without it; what it has is older, and its revision says so.
        trio.member(alone).signal(Signal::STOP);
        for other in others {
            trio.member(other).signal(Signal::CONT);
        }
        let mut through = trio.place(others[0]).kv().await;
        let after = until(|| {
            let mut through = through.clone();
            async move { through.put(put("k", "after")).await.ok() }
        });
        let after = after.await.into_inner().header.expect("a header").revision;
        assert_eq!(after, before + 1);
        let read = through.range(get("k", true)).await.expect("read").into_inner();
        assert_eq!(&read.kvs[0].value[..], b"after");
        trio.member(alone).signal(Signal::CONT);
        until(|| {
            let mut kv = kv.clone();
            async move {
                let read = kv.range(get("k", true)).await.ok()?.into_inner();
                let revision = read.header.expect("a header").revision;
                let seen = if &read.kvs[0].value[..] == b"after" { after } else { before };
                assert_eq!(revision, seen, "the revision is that of what is shown");
                (revision == after).then_some(())
            }
        })
        .await;
        let event = events.message().await.expect("the watch stands").expect("an event");
        assert_eq!(event.events[0].kv.as_ref().expect("a pair").mod_revision, after);
    });
}

// rule: RT-2
#[test]
fn a_member_that_starts_passes_over_most_of_its_wait_for_a_leader_once_another_is_there() {
    const FORWARD: &str = "initialized peer connections; fast-forwarding election ticks";
    run(async {
        let off: &[&str] = &["--initial-election-tick-advance=false"];
        let mut trio = Members::start_each(MEMBERS, |i| if i == 2 { off } else { &[] });
        let ticks = |daemon: &Daemon, message: &str| {
            let line = daemon.log.iter().find(|line| line["msg"] == message).expect("it says so");
            line["forward-ticks"].as_str().map(str::to_owned)
        };
        trio.member(0).wait_for(FORWARD);
        assert_eq!(ticks(trio.member(0), FORWARD).as_deref(), Some("9"));
        trio.member(2).wait_for("skipping initial election tick advance");
        assert!(!trio.member(2).has_said(FORWARD));
        let dir = trio.kill(0);
        trio.restart(0, dir);
        trio.member(0).wait_for(FORWARD);
        assert_eq!(ticks(trio.member(0), FORWARD).as_deref(), Some("8"), "one that was there before");

        let mut alone = Daemon::start(&[]);
        let single = "started as single-node; fast-forwarding election ticks";
        alone.wait_for(single);
        assert_eq!(ticks(&alone, single).as_deref(), Some("9"));
    });
}

// rule: RT-9
#[test]
fn a_write_that_is_late_because_the_leader_is_gone_says_so() {
    run(async {
        // So long that nobody else leads before the callers have given up.
        let mut trio = Members::start(MEMBERS, &["--heartbeat-interval=400", "--election-timeout=4000"]);
        let leader = trio.leader().await;
        let follower = trio.place((leader + 1) % MEMBERS);
        let put = put("k", "v");
        trio.place(leader).kv().await.put(put.clone()).await.expect("written");
        drop(trio.kill(leader));
        let address = follower.client.strip_prefix("http://").expect("a URL");
        let lost = until(|| async {
            let late = [("grpc-timeout", "300m")];
            let told = raw_call(address, "/etcdserverpb.KV/Put", &late, &put).await;
            // The first may come before the end of the connection was noticed.
            (told.1 != "etcdserver: request timed out").then_some(told)
        })
        .await;
        let cut = "etcdserver: request timed out, possibly due to connection lost";
        assert_eq!(lost, (14, cut.to_owned()));
    });
}

/// What clients were told.
#[derive(Default)]
struct Told {
    /// Key and revision of each put that was acknowledged.
    puts: Mutex<BTreeMap<String, i64>>,
    /// Where a client may ask: nobody asks a member that is about to be killed.
    places: Mutex<Vec<Option<Place>>>,
    stop: AtomicBool,
}

impl Told {
    fn place(&self, i: usize) -> Option<Place> {
        self.places.lock().expect("no panic")[i].clone()
    }
}

async fn connect(place: &Place) -> Option<KvClient<Channel>> {
    let endpoint = tonic::transport::Endpoint::from_shared(place.client.clone()).ok()?;
    Some(KvClient::new(endpoint.timeout(Duration::from_secs(10)).connect().await.ok()?))
}

/// Puts one key after the other through one member, and sees each through another.
async fn write(told: Arc<Told>, client: usize) {
    let mut n = 0;
    while !told.stop.load(Ordering::Relaxed) {
        let at = (client + n) % MEMBERS;
        n += 1;
        let key = format!("client{client}/{n:06}");
        let Some(place) = told.place(at) else {
            tokio::task::yield_now().await;
            continue;
        };
        let Some(mut kv) = connect(&place).await else { continue };
        // Without an answer it may have been done or not.
        let Ok(done) = kv.put(put(key.clone(), "v")).await else { continue };
        let revision = done.into_inner().header.expect("a header").revision;
        told.puts.lock().expect("no panic").insert(key.clone(), revision);
        let Some(other) = told.place((at + 1) % MEMBERS) else { continue };
        let Some(mut kv) = connect(&other).await else { continue };
        if let Ok(found) = kv.range(get(key.clone(), false)).await {
            let found = found.into_inner().kvs;
            assert_eq!(
                found.first().map(|kv| kv.mod_revision),
                Some(revision),
                "{key}: acknowledged, then read"
            );
        }
    }
}

// rule: R02, R16 of the test plan
#[test]
fn nothing_acknowledged_is_lost_while_each_member_is_killed_in_turn() {
    run(async {
        let mut trio = Members::start(MEMBERS, &[]);
        let told = Arc::new(Told::default());
        *told.places.lock().expect("no panic") = (0..MEMBERS).map(|i| Some(trio.place(i))).collect();
        let writers: Vec<_> = (0..4).map(|client| tokio::spawn(write(told.clone(), client))).collect();
        for round in 0..2 * MEMBERS {
            // Each in turn, and in between whoever leads.
            let victim = if round % 2 == 0 { round / 2 } else { trio.leader().await };
            let before = told.puts.lock().expect("no panic").len();
            told.places.lock().expect("no panic")[victim] = None;
            let dir = tokio::task::block_in_place(|| trio.kill(victim));
            let went_on =
                || async { (told.puts.lock().expect("no panic").len() > before + 20).then_some(()) };
            until(went_on).await;
            tokio::task::block_in_place(|| trio.restart(victim, dir));
            told.places.lock().expect("no panic")[victim] = Some(trio.place(victim));
        }
        told.stop.store(true, Ordering::Relaxed);
        for writer in writers {
            writer.await.expect("a read that was behind");
        }
        assert_eq!(trio.hashes().await.len(), 1, "all have the same");
        let puts = told.puts.lock().expect("no panic").clone();
        println!("{} puts were acknowledged", puts.len());
        assert!(puts.len() > 120, "only {} puts", puts.len());
        let revisions: BTreeSet<i64> = puts.values().copied().collect();
        assert_eq!(revisions.len(), puts.len(), "a revision is given once");
        for i in 0..MEMBERS {
            let mut kv = trio.place(i).kv().await;
            let everything = pb::RangeRequest { range_end: "clienu".into(), ..get("client", true) };
            let found = kv.range(everything).await.expect("read").into_inner().kvs;
            let found: BTreeMap<&[u8], i64> = found.iter().map(|kv| (&kv.key[..], kv.mod_revision)).collect();
            for (key, revision) in &puts {
                assert_eq!(found.get(key.as_bytes()), Some(revision), "{key} at member {i}");
            }
        }
    });
}

// rule: R27 of the test plan, BO-3
#[test]
fn a_member_that_comes_back_with_an_empty_disk_is_refused() {
    run(async {
        let mut trio = Members::start(MEMBERS, &[]);
        drop(trio.kill(1));
        let mut again = trio.spawn(1, tempfile::tempdir().expect("a directory"));
        assert_eq!(again.wait().code(), Some(1));
        assert!(again.has_said("has already been bootstrapped"), "{:#?}", again.log);
        drop(again.stop_ended());
    });
}

/// Of the user `root`.
pub const PASSWORD: &str = "a password of root";

/// A request of this user's.
pub fn by<M>(message: M, token: &str) -> Request<M> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("token", token.parse().expect("a token is ASCII"));
    request
}

pub async fn log_in(place: &Place) -> String {
    let root = pb::AuthenticateRequest { name: "root".into(), password: PASSWORD.into() };
    let mut auth = place.auth().await;
    auth.authenticate(root).await.expect("root may come in").into_inner().token
}

pub async fn close_to_strangers(place: &Place) {
    let mut auth = place.auth().await;
    let user =
        pb::AuthUserAddRequest { name: "root".into(), password: PASSWORD.into(), ..Default::default() };
    auth.user_add(user).await.expect("added");
    let role = pb::AuthUserGrantRoleRequest { user: "root".into(), role: "root".into() };
    auth.user_grant_role(role).await.expect("granted");
    auth.auth_enable(pb::AuthEnableRequest {}).await.expect("on");
}

pub const CATCH_UP: [&str; 2] = ["--snapshot-catchup-entries=10", "--bcrypt-cost=4"];

/// Writes through these members until their logs begin after what they have now; the key and revision of the last.
pub async fn write_past_the_log(trio: &Members, through: &[usize]) -> (String, i64) {
    const WRITES: u8 = 32;
    const WRITES_PER_FOLD: u8 = 8;
    let token = log_in(&trio.place(through[0])).await;
    let mut kv = trio.place(through[0]).kv().await;
    let mut last = (String::new(), 0);
    for n in 1..=WRITES {
        let key = format!("big{n}");
        let big = put(key.clone(), vec![n; 1 << 20]);
        let done = kv.put(by(big, &token)).await.expect("two of three take it").into_inner();
        last = (key, done.header.expect("a header").revision);
        // What is in a checkpoint that is not the newest leaves the log.
        for i in through.iter().filter(|_| n % WRITES_PER_FOLD == 0) {
            let mut maintenance = trio.place(*i).maintenance().await;
            maintenance.defragment(by(pb::DefragmentRequest {}, &token)).await.expect("folded");
        }
    }
    last
}

/// It was sent a snapshot: the users came with it, a new token counts on it, and it has what the others have.
pub async fn check_follows(trio: &mut Members, behind: usize, (key, revision): (String, i64)) {
    assert!(trio.member(behind).has_said("a snapshot takes the place of the store"));
    let place = trio.place(behind);
    let token = log_in(&place).await;
    let mut kv = place.kv().await;
    let found = kv.range(by(get(key, false), &token)).await.expect("read").into_inner();
    assert_eq!(found.kvs[0].mod_revision, revision);
    let refused = kv.range(get("big1", true)).await.expect_err("a stranger");
    assert_eq!(refused.message(), "etcdserver: user name is empty");
    place.auth().await.auth_disable(by(pb::AuthDisableRequest {}, &token)).await.expect("off");
    assert_eq!(trio.hashes().await.len(), 1, "the same everywhere");
}

// rule: AU-5, AU-25, SP-4
#[test]
fn a_member_that_was_down_for_too_long_is_sent_a_snapshot_and_starts_anew_from_it() {
    run(async {
        let mut trio = Members::start(MEMBERS, &CATCH_UP);
        let leader = trio.leader().await;
        let (behind, other) = ((leader + 1) % MEMBERS, (leader + 2) % MEMBERS);
        close_to_strangers(&trio.place(leader)).await;
        let dir = tokio::task::block_in_place(|| trio.kill(behind));
        let last = write_past_the_log(&trio, &[leader, other]).await;
        tokio::task::block_in_place(|| trio.restart(behind, dir));
        check_follows(&mut trio, behind, last).await;
    });
}

// rule: RT-14, SP-6
#[test]
fn a_member_that_stood_still_is_sent_a_snapshot_while_it_serves() {
    run(async {
        let mut trio = Members::start(MEMBERS, &CATCH_UP);
        let leader = trio.leader().await;
        let (behind, other) = ((leader + 1) % MEMBERS, (leader + 2) % MEMBERS);
        close_to_strangers(&trio.place(leader)).await;
        trio.member(behind).signal(Signal::STOP);
        // What is on its way to it is lost with its connections.
        let url = trio.place(behind).peer;
        tokio::task::block_in_place(|| {
            for i in [leader, other] {
                trio.member(i).read_all();
                trio.member(i).wait_for_new("no connection to a peer", "url", &url);
            }
        });
        let last = write_past_the_log(&trio, &[leader, other]).await;
        trio.member(behind).signal(Signal::CONT);
        tokio::task::block_in_place(|| trio.member(behind).wait_for("starts anew from it"));
        check_follows(&mut trio, behind, last).await;
    });
}
