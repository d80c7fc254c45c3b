// SPDX-License-Identifier: Apache-2.0
//! Members that hold other data than their peers, and members that only seem to.
//!
//! Owns      a member whose store was changed behind the back of its log, while it was stopped.
//! Holds     each wait is bounded, and one that ends in vain says what was seen.
//! Never     waits for a time: it waits for what is to happen.

use crate::{
    members::{Members, Place, run},
    membership::ask,
    support::Daemon,
};
use cairn_engine::{Db, Options};
use cairn_mvcc::{PutOp, SCHEMA, Store};
use cairn_proto::etcdserverpb::{self as pb, AlarmType};
use rustix::process::Signal;
use std::{
    fmt::Debug,
    path::Path,
    time::{Duration, Instant},
};
use tonic::{Code, Response, Status};

const MEMBERS: usize = 3;
const WAIT: Duration = Duration::from_secs(20);
const CALL: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(20);

/// The answer to a call, which has to come in time.
async fn call<T: Debug>(
    what: &str,
    asked: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, Status> {
    let answer = tokio::time::timeout(CALL, asked).await.unwrap_or_else(|_| panic!("{what}: no answer"));
    answer.map(Response::into_inner)
}

/// Asks again until it is as wanted.
async fn seen<T: Debug, F: Future<Output = T>>(
    what: &str,
    mut ask: impl FnMut() -> F,
    wanted: impl Fn(&T) -> bool,
) -> T {
    let begin = Instant::now();
    loop {
        let seen = ask().await;
        if wanted(&seen) {
            return seen;
        }
        assert!(begin.elapsed() < WAIT, "{what} is still {seen:?}");
        tokio::time::sleep(POLL).await;
    }
}

async fn put(place: &Place, key: &str, value: &str) -> Result<i64, Status> {
    let put =
        pb::PutRequest { key: key.to_owned().into(), value: value.to_owned().into(), ..Default::default() };
    let done = call("put", place.kv().await.put(put)).await?;
    Ok(done.header.expect("a header").revision)
}

/// Puts until one is done: a leader may be missing. Gives the revision.
async fn put_somehow(place: &Place, key: &str) -> i64 {
    let done = seen("a put", || put(place, key, "v"), Result::is_ok).await;
    done.expect("just seen")
}

async fn delete_all(place: &Place) -> Option<i64> {
    let all = pb::DeleteRangeRequest { key: vec![0].into(), range_end: vec![0].into(), ..Default::default() };
    let done = call("delete", place.kv().await.delete_range(all)).await.ok()?;
    Some(done.header.expect("a header").revision)
}

async fn compact(place: &Place, revision: i64) -> Result<(), Status> {
    let compact = pb::CompactionRequest { revision, physical: false };
    call("compact", place.kv().await.compact(compact)).await.map(drop)
}

/// The alarms that are on, as everyone has them.
async fn alarms(place: &Place) -> Vec<(u64, AlarmType)> {
    let get = pb::AlarmRequest::default();
    let answer = call("alarms", place.maintenance().await.alarm(get)).await.expect("a list");
    answer.alarms.iter().map(|alarm| (alarm.member_id, alarm.alarm())).collect()
}

/// Has everything that a member applied in its newest checkpoint.
async fn fold(place: &Place) {
    let folded = call("defragment", place.maintenance().await.defragment(pb::DefragmentRequest {})).await;
    folded.expect("folded");
}

/// Puts a key into the store of a member that is stopped, as if it had applied one entry more than the others did.
fn change_alone(dir: &Path) {
    let dir = dir.join("data").join("member");
    let (db, recovered) =
        Db::open(&dir, SCHEMA, Options::default()).expect("the store of one that has ended");
    let mut store = Store::open(db.clone()).expect("it opens");
    let mut batch = store.batch().expect("it begins");
    let put = PutOp { key: "k1".into(), value: Some("alone".into()), lease: Some(0), prev_kv: false };
    batch.put(&put, &|_| true).expect("it applies");
    batch.commit(recovered.meta.applied_index, recovered.meta.applied_term).expect("it commits");
    assert!(db.checkpoint().expect("a checkpoint"), "there is something to fold");
    db.confirm().expect("durable");
}

/// Three members, and which of them leads, which follows, and which has more in its store than the others and is
/// stopped; and its directory.
struct Changed {
    trio: Members,
    leader: usize,
    other: usize,
    odd: usize,
    dir: tempfile::TempDir,
}

async fn changed(flags: &[&str]) -> Changed {
    let mut trio = Members::start(MEMBERS, flags);
    let leader = trio.leader().await;
    let (odd, other) = ((leader + 1) % MEMBERS, (leader + 2) % MEMBERS);
    for n in 0..5 {
        put_somehow(&trio.place(leader), &format!("k{n}")).await;
    }
    assert_eq!(trio.hashes().await.len(), 1, "all have the same");
    fold(&trio.place(odd)).await;
    let dir = tokio::task::block_in_place(|| trio.kill(odd));
    change_alone(dir.path());
    Changed { trio, leader, other, odd, dir }
}

// rule: CO-4, CO-5, ALARM-6, AL-6
#[test]
fn the_member_that_holds_something_else_is_named_after_a_compaction_and_writes_end() {
    run(async {
        let Changed { mut trio, leader, odd, dir, .. } =
            changed(&["--feature-gates=InitialCorruptCheck=false"]).await;
        tokio::task::block_in_place(|| trio.restart(odd, dir));
        let id = trio.id(odd).await;
        let place = trio.place(leader);
        let revision = put_somehow(&place, "after").await;
        assert_eq!(alarms(&place).await, []);
        compact(&place, revision).await.expect("compacted");
        let raised = seen("the list of alarms", || alarms(&place), |alarms| !alarms.is_empty()).await;
        assert_eq!(raised, [(id, AlarmType::Corrupt)]);
        for i in 0..MEMBERS {
            let refused = put(&trio.place(i), "k", "v").await.expect_err("no write any more");
            assert_eq!((refused.code(), refused.message()), (Code::DataLoss, "etcdserver: corrupt cluster"));
            let get = pb::RangeRequest { key: "after".into(), ..Default::default() };
            let read = call("get", trio.place(i).kv().await.range(get)).await.expect("reads go on");
            assert_eq!(read.count, 1);
        }
        let (status, why) = ask(&place.client, "GET", "/readyz", "").await;
        assert!(status == 503 && why.contains("alarm activated: CORRUPT"), "{status} {why}");
        assert_eq!(ask(&place.client, "GET", "/livez", "").await.0, 200);
        trio.member(leader).read_all();
        assert!(trio.member(leader).has_said("members hold different data"));
    });
}

/// One that starts in spite of all is not waited for.
fn wait_for_refusal(daemon: &mut Daemon) {
    let began = Instant::now();
    while !daemon.has_said("found data inconsistency with peers") {
        let starts = daemon.has_said("ready to serve") || began.elapsed() > WAIT;
        assert!(!starts, "it is not refused: {:#?}", daemon.log);
        std::thread::sleep(POLL);
        daemon.read_all();
    }
}

// rule: CO-1
#[test]
fn a_member_that_holds_something_else_than_most_does_not_start() {
    run(async {
        let Changed { mut trio, leader, other, odd, dir } = changed(&[]).await;
        for n in 0..3 {
            put_somehow(&trio.place(leader), &format!("more{n}")).await;
        }
        fold(&trio.place(other)).await;
        let mut refused = trio.spawn(odd, dir);
        wait_for_refusal(&mut refused);
        assert_eq!(refused.wait().code(), Some(6), "{:#?}", refused.log);
        let fatal: Vec<_> = refused.log.iter().filter(|line| line["level"] == "fatal").collect();
        assert_eq!(fatal.len(), 1, "{fatal:#?}");
        let text = fatal[0]["error"].as_str().unwrap_or_default();
        assert!(text.contains("found data inconsistency with peers"), "{text}");

        // Where it is let in, it does not keep those out that most agree with, but for who asks for that.
        let lenient = ["--feature-gates=InitialCorruptCheck=false"];
        let daemon = trio.spawn_with(odd, refused.stop_ended(), &lenient);
        trio.put_back(odd, tokio::task::block_in_place(|| daemon.ready()));
        let dir = tokio::task::block_in_place(|| trio.kill(other));
        let strict = ["--feature-gates=InitialCorruptCheck=true"];
        let mut refused = trio.spawn_with(other, dir, &strict);
        wait_for_refusal(&mut refused);
        assert_eq!(refused.wait().code(), Some(6), "{:#?}", refused.log);
        tokio::task::block_in_place(|| trio.restart(other, refused.stop_ended()));
        assert!(trio.member(other).has_said("this one is not known to be wrong"));
    });
}

/// Reads a member's log until it says this, with this field.
fn wait_said(daemon: &mut Daemon, message: &str, field: &str, value: &str, wait: Duration) -> bool {
    let begin = Instant::now();
    while begin.elapsed() < wait {
        let from = daemon.log.len();
        daemon.read_all();
        if daemon.log[from..].iter().any(|line| line["msg"] == message && line[field] == value) {
            return true;
        }
        std::thread::sleep(POLL);
    }
    false
}

// rule: R31 of the test plan, CO-3, CO-4, HASH-17
#[test]
fn r31_compactions_lagging_and_restarted_members_raise_no_alarm() {
    const ROUNDS: usize = 4;
    run(async {
        let mut trio =
            Members::start(MEMBERS, &["--corrupt-check-time=1ms", "--compact-hash-check-time=500ms"]);
        for round in 0..ROUNDS {
            let leader = trio.leader().await;
            let behind = (leader + 1) % MEMBERS;
            let mut dir = None;
            // One stands still, and the leader is lost, in turn.
            if round % 2 == 0 {
                trio.member(behind).signal(Signal::STOP);
            } else {
                dir = Some(tokio::task::block_in_place(|| trio.kill(leader)));
            }
            let place = trio.place(if round % 2 == 0 { leader } else { behind });
            for n in 0..30 {
                put_somehow(&place, &format!("k{n}")).await;
                // Where no key is left, a compaction leaves another hash than there was before it.
                if let Some(revision) = delete_all(&place).await {
                    compact(&place, revision).await.ok();
                }
            }
            match dir {
                Some(dir) => tokio::task::block_in_place(|| trio.restart(leader, dir)),
                None => trio.member(behind).signal(Signal::CONT),
            }
        }
        assert_eq!(trio.hashes().await.len(), 1, "all have the same");
        let leader = trio.leader().await;
        let place = trio.place(leader);
        let begin = Instant::now();
        // A member whose purge lagged does not have the hash of the next compaction; of the one after it has.
        loop {
            let revision = put_somehow(&place, "last").await;
            compact(&place, revision).await.expect("compacted");
            let revision = revision.to_string();
            let wait = Duration::from_secs(4);
            let said = tokio::task::block_in_place(|| {
                let message = "finished compaction hash check";
                wait_said(trio.member(leader), message, "revision", &revision, wait)
            });
            if said {
                break;
            }
            assert!(begin.elapsed() < WAIT, "no compaction was compared: {:#?}", trio.member(leader).log);
        }
        let whole = tokio::task::block_in_place(|| {
            wait_said(trio.member(leader), "finished peer corruption check", "equal", "true", WAIT)
        });
        assert!(whole, "no stores were compared: {:#?}", trio.member(leader).log);
        assert_eq!(alarms(&place).await, []);
        for i in 0..MEMBERS {
            trio.member(i).read_all();
            assert!(!trio.member(i).has_said("members hold different data"), "member {i}");
        }
    });
}
