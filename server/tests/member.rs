// SPDX-License-Identifier: Apache-2.0
//! A member on real files, driven through its handle as the services drive it.
//!
//! Owns      a member in a directory of its own for each test.
//! Holds     each test names what a client may count on.
//! Never     sleeps: it waits for what it expects, within a bound.

use bytes::Bytes;
use cairn::member::{Ended, Level, Member, MemberConfig, Observer, StartError, WatchStream};
use cairn_proto::{etcdserverpb as pb, mvccpb, serve};
use pb::{request_op::Request, watch_request::RequestUnion};
use prost::Message;
use std::{future::Future, panic::Location, path::Path, sync::Arc, time::Duration};

struct Quiet;

impl Observer for Quiet {
    fn log(&self, _: &Location<'_>, _: Level, _: &str, _: &[(&'static str, String)]) {}
}

fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let bounded = async { tokio::time::timeout(Duration::from_secs(60), test).await };
    runtime.expect("a runtime").block_on(bounded).expect("the test ends in time")
}

fn config(dir: &Path) -> MemberConfig {
    MemberConfig::new(dir.to_path_buf(), 7)
}

async fn start(config: MemberConfig) -> Member {
    Member::start(config, Arc::new(Quiet)).await.expect("it starts")
}

fn bytes(text: &str) -> Bytes {
    Bytes::from(text.to_owned())
}

fn put(key: &str, value: &str) -> pb::PutRequest {
    pb::PutRequest { key: bytes(key), value: bytes(value), ..Default::default() }
}

fn get(key: &str) -> pb::RangeRequest {
    pb::RangeRequest { key: bytes(key), ..Default::default() }
}

fn all() -> pb::RangeRequest {
    let zero = Bytes::from_static(b"\0");
    pb::RangeRequest { key: zero.clone(), range_end: zero, ..Default::default() }
}

fn pairs(response: &serve::RangeResponse) -> Vec<(String, String)> {
    let text = |b: &Bytes| String::from_utf8(b.to_vec()).expect("text");
    let pair = |kv: &Bytes| {
        let kv = mvccpb::KeyValue::decode(&kv[..]).expect("a stored pair");
        (text(&kv.key), text(&kv.value))
    };
    response.kvs.iter().map(pair).collect()
}

async fn watch(stream: &WatchStream, create: pb::WatchCreateRequest) {
    stream.request(pb::WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) }).await;
    let created = stream.next().await.expect("it is open");
    assert!(created.created && !created.canceled);
}

// rule: HDR-1, HDR-3, HDR-5, HDR-7, REV-1, KV-2, DEL-2, LIMIT-10
#[test]
fn writes_are_read_back_and_survive_a_restart() {
    let dir = tempfile::tempdir().expect("a directory");
    run(async {
        let member = start(config(dir.path())).await;
        assert_eq!(member.header().revision, 1);
        let done = member.put(put("a", "1")).await.expect("put");
        let header = done.header.expect("a header");
        assert_eq!((header.revision, header.raft_term), (2, member.status().raft_term));
        assert_eq!(header.member_id, 0x8e9e05c52164694d);
        member.put(put("b", "2")).await.expect("put");
        let deleted = member.delete_range(pb::DeleteRangeRequest { key: bytes("a"), ..Default::default() });
        assert_eq!(deleted.await.expect("delete").deleted, 1);
        let found = member.range(all()).await.expect("range");
        assert_eq!(pairs(&found), [("b".to_owned(), "2".to_owned())]);
        member.stop().await;
        assert_eq!(member.ended().await, Ended::Stopped);
        assert_eq!(member.put(put("c", "3")).await.expect_err("stopped").text, "etcdserver: server stopped");
        drop(member);

        let again = start(config(dir.path())).await;
        assert_eq!(again.header().revision, 4);
        assert_eq!(pairs(&again.range(all()).await.expect("range")), [("b".to_owned(), "2".to_owned())]);
        let listed = again.member_list(pb::MemberListRequest::default()).await.expect("members");
        assert_eq!(listed.header.expect("a header").revision, 0);
        assert_eq!((listed.members.len(), listed.members[0].name.as_str()), (1, "default"));
        again.stop().await;
    });
}

// rule: TXN-1, TXN-15, HDR-8, HDR-9
#[test]
fn a_transaction_reads_its_own_writes_after_it_is_applied() {
    let dir = tempfile::tempdir().expect("a directory");
    run(async {
        let member = start(config(dir.path())).await;
        let op = |request| pb::RequestOp { request: Some(request) };
        let nested =
            pb::TxnRequest { success: vec![op(Request::RequestRange(get("k")))], ..Default::default() };
        let txn = pb::TxnRequest {
            success: vec![
                op(Request::RequestRange(get("k"))),
                op(Request::RequestPut(put("k", "v"))),
                op(Request::RequestTxn(nested)),
            ],
            ..Default::default()
        };
        let done = member.txn(txn).await.expect("txn");
        assert!(done.succeeded);
        assert_eq!(done.header.expect("a header").revision, 2);
        let mut responses = done.responses.into_iter().map(|r| r.response.expect("set"));
        let Some(serve::response_op::Response::ResponseRange(before)) = responses.next() else { panic!() };
        assert_eq!((before.kvs.len(), before.header.expect("one").revision), (0, 1));
        let Some(serve::response_op::Response::ResponsePut(done)) = responses.next() else { panic!() };
        assert_eq!(done.header.expect("one").revision, 2);
        let Some(serve::response_op::Response::ResponseTxn(inner)) = responses.next() else { panic!() };
        assert_eq!(inner.header, Some(pb::ResponseHeader::default()));
        let Some(serve::response_op::Response::ResponseRange(after)) = &inner.responses[0].response else {
            panic!()
        };
        assert_eq!(pairs(after), [("k".to_owned(), "v".to_owned())]);
        member.stop().await;
    });
}

// rule: WATCH-7, WATCH-16, WATCH-17, WATCH-44
#[test]
fn a_watcher_gets_the_past_and_the_present_once() {
    let dir = tempfile::tempdir().expect("a directory");
    run(async {
        let member = start(config(dir.path())).await;
        for n in 0..50 {
            member.put(put("k", &n.to_string())).await.expect("put");
        }
        let stream = member.watch_stream();
        let create = pb::WatchCreateRequest {
            key: bytes("k"),
            start_revision: 2,
            prev_kv: true,
            ..Default::default()
        };
        watch(&stream, create).await;
        for n in 50..100 {
            member.put(put("k", &n.to_string())).await.expect("put");
        }
        let mut seen = Vec::new();
        while seen.len() < 100 {
            for event in stream.next().await.expect("it is open").events {
                let event = mvccpb::Event::decode(&event[..]).expect("an event");
                let kv = event.kv.expect("a pair");
                assert_eq!(event.prev_kv.is_some(), kv.mod_revision != 2);
                seen.push((kv.mod_revision, String::from_utf8(kv.value.to_vec()).expect("text")));
            }
        }
        let expected: Vec<_> = (0..100).map(|n| (n + 2, n.to_string())).collect();
        assert_eq!(seen, expected);
        member.stop().await;
        assert!(stream.next().await.is_none(), "it ends with the member");
    });
}

// rule: WATCH-1, WATCH-31, KV-23
#[test]
fn a_request_that_says_nothing_is_ignored_and_an_unknown_cancel_is_not_answered() {
    let dir = tempfile::tempdir().expect("a directory");
    run(async {
        let member = start(config(dir.path())).await;
        let stream = member.watch_stream();
        stream.request(pb::WatchRequest::default()).await;
        let cancel = RequestUnion::CancelRequest(pb::WatchCancelRequest { watch_id: 9 });
        stream.request(pb::WatchRequest { request_union: Some(cancel) }).await;
        watch(&stream, pb::WatchCreateRequest { key: bytes("k"), ..Default::default() }).await;
        member.put(put("k", "v")).await.expect("put");
        assert_eq!(stream.next().await.expect("it is open").events.len(), 1);
        let old = member.range(pb::RangeRequest { serializable: true, ..get("k") }).await.expect("range");
        assert_eq!(old.count, 1);
        member.stop().await;
    });
}

// rule: LEASE-6, LEASE-13, LEASE-17, WATCH-30
#[test]
fn a_lease_that_runs_out_takes_its_keys_along_in_one_revision() {
    let dir = tempfile::tempdir().expect("a directory");
    run(async {
        let mut config = config(dir.path());
        (config.heartbeat_ms, config.election_ms) = (10, 100);
        let member = start(config).await;
        let grant = member.lease_grant(pb::LeaseGrantRequest { ttl: 1, id: 0 }).await.expect("grant");
        assert_eq!(grant.ttl, 1);
        assert!(grant.id > 0);
        for key in ["b", "a", "c"] {
            let lease = pb::PutRequest { lease: grant.id, ..put(key, "v") };
            member.put(lease).await.expect("put");
        }
        let left = pb::LeaseTimeToLiveRequest { id: grant.id, keys: true };
        let left = member.lease_time_to_live(left).await.expect("time to live");
        assert_eq!((left.ttl, left.granted_ttl, left.keys.len()), (0, 1, 3));
        let stream = member.watch_stream();
        let zero = Bytes::from_static(b"\0");
        watch(&stream, pb::WatchCreateRequest { key: zero.clone(), range_end: zero, ..Default::default() })
            .await;
        let ended = stream.next().await.expect("it is open");
        let keys: Vec<Bytes> = ended
            .events
            .iter()
            .map(|e| mvccpb::Event::decode(&e[..]).expect("an event").kv.expect("a pair").key)
            .collect();
        assert_eq!(keys, ["a", "b", "c"]);
        assert_eq!(member.lease_keep_alive(grant.id).await.expect("keep alive").ttl, 0);
        assert!(member.leases().await.expect("leases").leases.is_empty());
        member.stop().await;
    });
}

// rule: COMPACT-3, COMPACT-6, COMPACT-8, COMPACT-9, KV-9
#[test]
fn compaction_cuts_at_once_and_physical_waits_for_the_purge() {
    let dir = tempfile::tempdir().expect("a directory");
    run(async {
        let member = start(config(dir.path())).await;
        for n in 0..500 {
            member.put(put("k", &n.to_string())).await.expect("put");
        }
        let at = |revision| member.range(pb::RangeRequest { revision, ..get("k") });
        let compact = |physical| member.compact(pb::CompactionRequest { revision: 300, physical });
        compact(true).await.expect("compact");
        assert_eq!(pairs(&at(300).await.expect("at it"))[0].1, "298");
        let below = at(299).await.expect_err("below it");
        assert_eq!(below.text, "etcdserver: mvcc: required revision has been compacted");
        let future = at(502).await.expect_err("above");
        assert_eq!(future.text, "etcdserver: mvcc: required revision is a future revision");
        assert_eq!(compact(true).await.expect_err("twice"), below);
        assert_eq!(
            member.hash_kv(pb::HashKvRequest { revision: 0 }).await.expect("hash").compact_revision,
            300
        );
        member.stop().await;
    });
}

// rule: ALARM-2, ALARM-4, ALARM-5, ALARM-7
#[test]
fn a_full_quota_raises_the_alarm_and_leaves_deletes_working() {
    let dir = tempfile::tempdir().expect("a directory");
    run(async {
        let mut config = config(dir.path());
        config.quota_bytes = 256 << 10;
        let member = start(config.clone()).await;
        let big = "x".repeat(4096);
        let refused = loop {
            if let Err(refused) = member.put(put("k", &big)).await {
                break refused;
            }
            assert!(member.header().revision < 1_000, "the quota is never met");
        };
        assert_eq!(refused.text, "etcdserver: mvcc: database space exceeded");
        assert_eq!(member.status().alarms.len(), 1);
        let small = member.put(put("", &big)).await.expect_err("the quota comes first");
        assert_eq!(small, refused);
        member
            .delete_range(pb::DeleteRangeRequest { key: bytes("k"), ..Default::default() })
            .await
            .expect("delete");
        member.stop().await;
        drop(member);
        let again = start(config).await;
        assert_eq!(again.status().alarms.len(), 1, "it survives a restart");
        again.stop().await;
    });
}

// rule: ALARM-8
#[test]
fn compaction_and_defragmentation_make_room_again_and_the_alarm_is_switched_off_by_hand() {
    let dir = tempfile::tempdir().expect("a directory");
    run(async {
        let mut config = config(dir.path());
        config.quota_bytes = 256 << 10;
        let member = start(config).await;
        let big = "x".repeat(4096);
        while member.put(put("k", &big)).await.is_ok() {}
        let alarm = |action| pb::AlarmRequest {
            action,
            member_id: member.member_id().0,
            alarm: pb::AlarmType::Nospace as i32,
        };
        let off = pb::alarm_request::AlarmAction::Deactivate as i32;
        member.alarm(alarm(off)).await.expect("switched off");
        let refused = member.put(put("k", &big)).await.expect_err("still full");
        assert_eq!(refused.text, "etcdserver: mvcc: database space exceeded");
        assert_eq!(member.status().alarms.len(), 1, "raised again");
        let revision = member.header().revision;
        member.compact(pb::CompactionRequest { revision, physical: true }).await.expect("compact");
        member.defragment().await.expect("defragment");
        assert!(member.put(put("k", &big)).await.is_err(), "the alarm is still on");
        member.alarm(alarm(off)).await.expect("switched off");
        member.put(put("k", &big)).await.expect("there is room");
        assert!(member.status().db_size < 128 << 10, "{} bytes", member.status().db_size);
        member.stop().await;
    });
}

// rule: ALARM-8
#[test]
fn a_restart_alone_makes_no_room_and_does_not_take_back_what_a_defragmentation_made() {
    let dir = tempfile::tempdir().expect("a directory");
    run(async {
        let member = start(config(dir.path())).await;
        let big = "x".repeat(64 << 10);
        // A few rounds, so that what the first ones needed is free by the last.
        for _ in 0..4 {
            for _ in 0..16 {
                member.put(put("k", &big)).await.expect("put");
            }
            let revision = member.header().revision;
            member.compact(pb::CompactionRequest { revision, physical: true }).await.expect("compact");
        }
        let full = member.status().db_size;
        assert!(full > 1 << 20, "{full} bytes");
        member.stop().await;
        drop(member);

        let member = start(config(dir.path())).await;
        assert!(member.status().db_size >= full, "{} after {full} bytes", member.status().db_size);
        member.defragment().await.expect("defragment");
        let small = member.status().db_size;
        assert!(small < full / 2, "{small} after {full} bytes");
        member.stop().await;
        drop(member);

        let member = start(config(dir.path())).await;
        assert!(member.status().db_size < full / 2, "{} after {small} bytes", member.status().db_size);
        member.stop().await;
    });
}

#[test]
fn a_defragmentation_holds_up_nobody_and_is_answered_once_the_file_is_small() {
    let dir = tempfile::tempdir().expect("a directory");
    run(async {
        let member = start(config(dir.path())).await;
        let big = "x".repeat(256 << 10);
        for round in 0..4 {
            for n in 0..30 {
                member.put(put(&format!("k{n}"), &format!("{round}{big}"))).await.expect("put");
            }
        }
        // All versions are in the file before most of them become unreadable.
        member.defragment().await.expect("defragment");
        let revision = member.header().revision;
        member.compact(pb::CompactionRequest { revision, physical: true }).await.expect("compact");
        let before = member.status().store;
        let defragmented = std::cell::Cell::new(false);
        let defragment = async {
            member.defragment().await.expect("defragment");
            defragmented.set(true);
            member.status().store
        };
        // What was asked for while it ran, and answered before it was.
        let beside = async {
            let (mut puts, mut gets) = (0, 0);
            loop {
                member.put(put("beside", &puts.to_string())).await.expect("put");
                if defragmented.get() {
                    return (puts, gets);
                }
                puts += 1;
                let read = member.range(get("k7")).await.expect("get");
                assert!(pairs(&read)[0].1.starts_with("3x"));
                gets += u32::from(!defragmented.get());
            }
        };
        let (after, (puts, gets)) = tokio::join!(defragment, beside);
        println!(
            "{} KiB with {} used, then {} with {}, beside {puts} puts and {gets} gets",
            before.file_bytes >> 10,
            before.used_bytes >> 10,
            after.file_bytes >> 10,
            after.used_bytes >> 10
        );
        assert!(puts >= 2 && gets >= 2, "{puts} puts and {gets} gets were answered meanwhile");
        assert!(before.file_bytes > after.used_bytes * 2, "there was much to give back: {before:?}");
        // A mebibyte is what a file is cut to, and a checkpoint may have come between goal and answer.
        assert!(after.file_bytes <= after.used_bytes * 5 / 4 + (2 << 20), "{after:?}");
        member.stop().await;
    });
}

// rule: LIMIT-1, PUT-2
#[test]
fn a_request_that_is_too_large_or_ill_formed_is_refused_at_the_door() {
    let dir = tempfile::tempdir().expect("a directory");
    run(async {
        let member = start(config(dir.path())).await;
        let large = member.put(put("k", &"x".repeat(1_572_864))).await.expect_err("too large");
        assert_eq!(large.text, "etcdserver: request is too large");
        assert_eq!(
            member.put(put("", "v")).await.expect_err("no key").text,
            "etcdserver: key is not provided"
        );
        let lease = pb::PutRequest { lease: 99, ..put("k", "v") };
        assert_eq!(
            member.put(lease).await.expect_err("no lease").text,
            "etcdserver: requested lease not found"
        );
        assert_eq!(member.header().revision, 1);
        member.stop().await;
    });
}

// rule: KV-27, KV-28, KV-30, KV-31
#[test]
fn a_stream_of_chunks_is_the_range_in_pieces() {
    let dir = tempfile::tempdir().expect("a directory");
    run(async {
        let member = start(config(dir.path())).await;
        for n in 0..47 {
            member.put(put(&format!("k{n:02}"), "v")).await.expect("put");
        }
        let mut chunks = member.range_stream(all()).await.expect("stream");
        let (mut sizes, mut last) = (Vec::new(), None);
        while let Some(chunk) = chunks.next().await {
            let response = chunk.expect("a chunk").range_response.expect("set");
            sizes.push(response.kvs.len());
            assert!(last.replace(response).is_none_or(|r| r.header.is_none()), "only the last has a header");
        }
        let last = last.expect("one chunk at least");
        assert_eq!(sizes, [10, 20, 17]);
        assert_eq!((last.count, last.more, last.header.expect("one").revision), (47, false, 48));
        member.stop().await;
    });
}

#[test]
fn many_writers_at_once_lose_nothing_and_share_syncs() {
    const WRITERS: usize = 64;
    const EACH: usize = 50;
    let dir = tempfile::tempdir().expect("a directory");
    run(async {
        let member = start(config(dir.path())).await;
        let writers: Vec<_> = (0..WRITERS)
            .map(|w| {
                let member = member.clone();
                tokio::spawn(async move {
                    for n in 0..EACH {
                        let done = member.put(put(&format!("{w}/{n}"), "v")).await.expect("put");
                        assert!(done.header.expect("a header").revision > 1);
                    }
                })
            })
            .collect();
        for writer in writers {
            writer.await.expect("no panic");
        }
        assert_eq!(member.header().revision, 1 + (WRITERS * EACH) as i64);
        member.defragment().await.expect("defragment");
        member.stop().await;
        drop(member);
        let again = start(config(dir.path())).await;
        let count = again.range(pb::RangeRequest { count_only: true, ..all() }).await.expect("count").count;
        assert_eq!(count, (WRITERS * EACH) as i64);
        again.stop().await;
    });
}

#[test]
fn a_directory_in_use_or_of_etcd_is_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    run(async {
        let member = start(config(dir.path())).await;
        let second = Member::start(config(dir.path()), Arc::new(Quiet)).await;
        assert!(matches!(second, Err(StartError::InUse(_))));
        member.stop().await;

        let etcd = tempfile::tempdir().expect("a directory");
        std::fs::create_dir_all(etcd.path().join("member/snap")).expect("made");
        std::fs::write(etcd.path().join("member/snap/db"), b"bolt").expect("written");
        let refused = Member::start(config(etcd.path()), Arc::new(Quiet)).await;
        assert!(matches!(refused, Err(StartError::MadeByEtcd(_))));
        let left: Vec<_> = std::fs::read_dir(etcd.path().join("member")).expect("read").collect();
        assert_eq!(left.len(), 1, "nothing was added");
    });
}
