// SPDX-License-Identifier: Apache-2.0
//! The lock service.

use crate::support::{Daemon, run, until};
use cairn_proto::{
    etcdserverpb as pb,
    v3lockpb::{LockRequest, UnlockRequest, lock_client::LockClient},
};
use std::time::Duration;
use tonic::{Code, Request, transport::Channel};

async fn grant(daemon: &Daemon, id: i64) -> i64 {
    let request = pb::LeaseGrantRequest { ttl: 60, id };
    daemon.lease().await.lease_grant(request).await.expect("granted").into_inner().id
}

fn lock_request(name: &'static str, lease: i64) -> LockRequest {
    LockRequest { name: name.into(), lease }
}

async fn keys(daemon: &Daemon, prefix: &'static str) -> Vec<String> {
    let mut end = prefix.as_bytes().to_vec();
    *end.last_mut().expect("not empty") += 1;
    let range = pb::RangeRequest { key: prefix.into(), range_end: end.into(), ..Default::default() };
    let response = daemon.kv().await.range(range).await.expect("read").into_inner();
    response.kvs.iter().map(|kv| String::from_utf8_lossy(&kv.key).into_owned()).collect()
}

/// A Lock that waits, once its key is in the queue.
async fn waiting(
    daemon: &Daemon,
    name: &'static str,
    lease: i64,
) -> tokio::task::JoinHandle<Result<cairn_proto::v3lockpb::LockResponse, tonic::Status>> {
    let mut client: LockClient<Channel> = daemon.lock().await;
    let before = keys(daemon, name).await.len();
    let task =
        tokio::spawn(async move { client.lock(lock_request(name, lease)).await.map(|r| r.into_inner()) });
    until(|| async { (keys(daemon, name).await.len() > before).then_some(()) }).await;
    task
}

// rule: LOCK-1
// rule: LOCK-2
// rule: LOCK-4
// rule: LOCK-5
// rule: LOCK-12
#[test]
fn a_free_lock_is_taken_at_once_and_again_by_its_lease() {
    run(async {
        let daemon = Daemon::start(&[]);
        let lease = grant(&daemon, 0x1234abcd).await;
        let mut lock = daemon.lock().await;
        let first = lock.lock(lock_request("a", lease)).await.expect("free").into_inner();
        assert_eq!(first.key, "a/1234abcd");
        let second = lock.lock(lock_request("a", lease)).await.expect("re-entered").into_inner();
        assert_eq!(second.key, first.key);
        assert_eq!(second.header.expect("a header").revision, first.header.expect("a header").revision);
        let pair = daemon.kv().await.range(pb::RangeRequest { key: first.key, ..Default::default() }).await;
        let pair = pair.expect("read").into_inner().kvs.remove(0);
        assert_eq!((pair.value.len(), pair.lease), (0, lease));
        let negative = grant(&daemon, -9).await;
        assert_eq!(lock.lock(lock_request("neg", negative)).await.expect("free").into_inner().key, "neg/-9");
        assert_eq!(lock.lock(lock_request("", negative)).await.expect("free").into_inner().key, "/-9");
    });
}

// rule: LOCK-3
#[test]
fn a_caller_without_a_lease_gets_one_of_a_minute() {
    run(async {
        let daemon = Daemon::start(&[]);
        let response = daemon.lock().await.lock(lock_request("a", 0)).await.expect("free").into_inner();
        let key = String::from_utf8_lossy(&response.key).into_owned();
        let id = i64::from_str_radix(key.strip_prefix("a/").expect("the name"), 16).expect("hex");
        let request = pb::LeaseTimeToLiveRequest { id, keys: true };
        let lease = daemon.lease().await.lease_time_to_live(request).await.expect("known").into_inner();
        assert_eq!(lease.granted_ttl, 60);
        assert_eq!(lease.keys, [response.key]);
    });
}

// rule: LOCK-6
// rule: LOCK-10
#[test]
fn waiters_follow_each_other_in_the_order_of_their_keys() {
    run(async {
        let daemon = Daemon::start(&[]);
        let mut lock = daemon.lock().await;
        let leases = [grant(&daemon, 1).await, grant(&daemon, 2).await, grant(&daemon, 3).await];
        let first = lock.lock(lock_request("q", leases[0])).await.expect("free").into_inner();
        let second = waiting(&daemon, "q", leases[1]).await;
        let third = waiting(&daemon, "q", leases[2]).await;
        lock.unlock(UnlockRequest { key: first.key }).await.expect("unlocked");
        let second = second.await.expect("no panic").expect("its turn");
        assert!(!third.is_finished(), "two hold one lock");
        // A holder's lease that ends frees the lock too.
        daemon.lease().await.lease_revoke(pb::LeaseRevokeRequest { id: leases[1] }).await.expect("revoked");
        let third = third.await.expect("no panic").expect("its turn");
        assert_eq!((second.key, third.key.clone()), ("q/2".into(), "q/3".into()));
        let revision = |header: Option<pb::ResponseHeader>| header.expect("a header").revision;
        assert!(revision(third.header) > revision(second.header), "read after it was acquired");
        lock.unlock(UnlockRequest { key: third.key.clone() }).await.expect("unlocked");
        lock.unlock(UnlockRequest { key: third.key }).await.expect("a missing key is no failure");
        let error = lock.unlock(UnlockRequest::default()).await.expect_err("no key");
        assert_eq!((error.code(), error.message()), (Code::Unknown, "etcdserver: key is not provided"));
    });
}

// rule: LOCK-7
#[test]
fn a_caller_that_goes_away_leaves_no_key() {
    run(async {
        let daemon = Daemon::start(&[]);
        let holder = grant(&daemon, 1).await;
        daemon.lock().await.lock(lock_request("g", holder)).await.expect("free");
        let gone = waiting(&daemon, "g", grant(&daemon, 2).await).await;
        gone.abort();
        until(|| async { (keys(&daemon, "g").await == ["g/1"]).then_some(()) }).await;
        let mut late = Request::new(lock_request("g", grant(&daemon, 3).await));
        late.set_timeout(Duration::from_millis(300));
        daemon.lock().await.lock(late).await.expect_err("held");
        until(|| async { (keys(&daemon, "g").await == ["g/1"]).then_some(()) }).await;
    });
}

// rule: LOCK-8
#[test]
fn a_waiter_whose_key_went_is_told_when_its_turn_comes() {
    run(async {
        let daemon = Daemon::start(&[]);
        let holder = grant(&daemon, 1).await;
        let held = daemon.lock().await.lock(lock_request("s", holder)).await.expect("free").into_inner();
        let waiter = waiting(&daemon, "s", grant(&daemon, 2).await).await;
        let delete = |key: bytes::Bytes| pb::DeleteRangeRequest { key, ..Default::default() };
        daemon.kv().await.delete_range(delete("s/2".into())).await.expect("deleted");
        daemon.kv().await.delete_range(delete(held.key)).await.expect("deleted");
        let error = waiter.await.expect("no panic").expect_err("its key is gone");
        assert_eq!((error.code(), error.message()), (Code::Unknown, "mutex: session is expired"));
    });
}

// rule: LOCK-9
// rule: LOCK-11
#[test]
fn errors_keep_their_text_and_lose_their_code() {
    run(async {
        let daemon = Daemon::start(&["--quota-backend-bytes=1"]);
        let error = daemon.lock().await.lock(lock_request("a", 77)).await.expect_err("no space");
        assert_eq!(
            (error.code(), error.message()),
            (Code::Unknown, "etcdserver: mvcc: database space exceeded")
        );
        let daemon = Daemon::start(&[]);
        let error = daemon.lock().await.lock(lock_request("a", 77)).await.expect_err("an unknown lease");
        assert_eq!((error.code(), error.message()), (Code::Unknown, "etcdserver: requested lease not found"));
    });
}

#[test]
fn a_waiter_outlives_a_compaction() {
    run(async {
        let daemon = Daemon::start(&[]);
        let holder = grant(&daemon, 1).await;
        let held = daemon.lock().await.lock(lock_request("c", holder)).await.expect("free").into_inner();
        let waiter = waiting(&daemon, "c", grant(&daemon, 2).await).await;
        let mut kv = daemon.kv().await;
        let mut revision = 0;
        for _ in 0..20 {
            let put = pb::PutRequest { key: "other".into(), ..Default::default() };
            revision = kv.put(put).await.expect("put").into_inner().header.expect("a header").revision;
        }
        kv.compact(pb::CompactionRequest { revision, physical: true }).await.expect("compacted");
        assert!(!waiter.is_finished());
        daemon.lock().await.unlock(UnlockRequest { key: held.key }).await.expect("unlocked");
        assert_eq!(waiter.await.expect("no panic").expect("its turn").key, "c/2");
    });
}
