// SPDX-License-Identifier: Apache-2.0
//! The tool `engine` beside the daemon: what it makes, a daemon starts on.
//!
//! Holds     1. a daemon that was restored answers as the one that was copied did, to the last field, and goes on;
//!           2. what was acknowledged before a backup was begun is in it.
//! Never     looks into a file itself.

use std::path::Path;
use std::process::Command;

use cairn_proto::etcdserverpb::{
    CompactionRequest, DeleteRangeRequest, LeaseGrantRequest, LeaseTimeToLiveRequest, MemberListRequest,
    PutRequest, RangeRequest, RangeResponse,
};
use cairn_tests::client::Client;
use cairn_tests::server::{Program, Server};
use cairn_tests::tools;

const KEYS: usize = 400;
const LEASE: i64 = 4242;

/// Runs the tool, which has to answer `code`. Gives its output.
fn engine(args: &[&str], code: i32) -> String {
    let ran = Command::new(tools::engine()).args(args).output().expect("the tool runs");
    let (out, err) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert_eq!(ran.status.code(), Some(code), "engine {args:?}\n{out}{err}");
    out.into_owned()
}

async fn put(client: &mut Client, key: String, value: String, lease: i64) {
    let put = PutRequest { key: key.into(), value: value.into(), lease, ..Default::default() };
    client.kv.put(put).await.expect("puts");
}

/// Keys of several versions, some deleted, some with a lease, and a compaction among it.
async fn fill(client: &mut Client) {
    let grant = LeaseGrantRequest { id: LEASE, ttl: 3_600 };
    client.lease.lease_grant(grant).await.expect("grants");
    for n in 0..2 * KEYS {
        let lease = if n % 50 == 0 { LEASE } else { 0 };
        put(client, format!("key/{:04}", n % KEYS), format!("value {n}"), lease).await;
    }
    let delete = |from: usize, to: usize| DeleteRangeRequest {
        key: format!("key/{from:04}").into(),
        range_end: format!("key/{to:04}").into(),
        ..Default::default()
    };
    client.kv.delete_range(delete(100, 120)).await.expect("deletes");
    let compact = CompactionRequest { revision: 300, physical: true };
    client.kv.compact(compact).await.expect("compacts");
    client.kv.delete_range(delete(200, 210)).await.expect("deletes");
}

/// All keys, at a revision or now.
async fn all(client: &mut Client, revision: i64) -> RangeResponse {
    let all = RangeRequest { key: vec![0].into(), range_end: vec![0].into(), revision, ..Default::default() };
    client.kv.range(all).await.expect("reads").into_inner()
}

/// Puts `data` in the place of a server's data directory and starts it again.
async fn start_on(server: &mut Server, data: &Path) -> Client {
    server.kill();
    let dir = server.data_dir();
    std::fs::rename(&dir, data.with_extension("before")).expect("moves");
    std::fs::rename(data, &dir).expect("moves");
    server.restart().await;
    server.client().await
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path is text")
}

/// The ids in the header, and how long the lease lives at most.
async fn identity(client: &mut Client) -> (u64, u64, i64) {
    let members = client.cluster.member_list(MemberListRequest::default()).await.expect("lists").into_inner();
    assert_eq!(members.members.len(), 1);
    let header = members.header.expect("a header");
    let ask = LeaseTimeToLiveRequest { id: LEASE, keys: false };
    let lease = client.lease.lease_time_to_live(ask).await.expect("is told").into_inner();
    (header.cluster_id, header.member_id, lease.granted_ttl)
}

#[tokio::test]
async fn a_daemon_starts_on_the_backup_of_one_that_ran() {
    let temp = tempfile::tempdir().expect("a temporary directory");
    let mut server = Server::start(Program::cairn()).await;
    let mut client = server.client().await;
    // The first backup is of a store whose newest checkpoint is empty, the second of one that has nearly all.
    for round in ["log", "checkpoint"] {
        if round == "log" {
            fill(&mut client).await;
        } else {
            client
                .maintenance
                .defragment(cairn_proto::etcdserverpb::DefragmentRequest {})
                .await
                .expect("runs");
        }
        for n in 0..20 {
            put(&mut client, format!("{round}/{n}"), "x".repeat(n), 0).await;
        }
        let (now, then) = (all(&mut client, 0).await, all(&mut client, 600).await);
        let ids = identity(&mut client).await;
        let revision = now.header.as_ref().expect("a header").revision;
        let (file, data) = (temp.path().join(round), temp.path().join(format!("{round}.data")));
        engine(&["backup", text(&server.data_dir()), text(&file)], 0);
        put(&mut client, "behind the backup".into(), String::new(), 0).await;
        engine(&["restore", text(&file), text(&data)], 0);
        engine(&["check", "--deep", text(&data)], 0);

        client = start_on(&mut server, &data).await;
        let (restored, old) = (all(&mut client, 0).await, all(&mut client, 600).await);
        assert_eq!((restored.kvs, restored.count), (now.kvs, now.count), "{round}");
        assert_eq!(old.kvs, then.kvs, "{round}");
        let header = restored.header.expect("a header");
        assert_eq!(header.revision, revision, "{round}");
        assert_eq!(identity(&mut client).await, ids, "{round}");
        put(&mut client, "goes on".into(), round.into(), 0).await;
        assert_eq!(all(&mut client, 0).await.header.expect("a header").revision, revision + 1);
        server.kill();
        server.restart().await;
        client = server.client().await;
        assert_eq!(all(&mut client, 0).await.header.expect("a header").revision, revision + 1);
    }
    assert!(server.stop().await.code().is_none_or(|code| code == 0 || code == 143));
    engine(&["check", "--deep", text(&server.data_dir())], 0);
}
