// SPDX-License-Identifier: Apache-2.0
//! The tool `engine` beside the daemon: what it makes, a daemon starts on.
//!
//! Holds     1. a daemon that was restored answers as the one that was copied did, to the last field, and goes on;
//!           2. what was acknowledged before a backup was begun is in it.
//! Never     looks into a file itself.

use std::path::Path;
use std::process::Command;

use cairn_proto::etcdserverpb::{
    CompactionRequest, DefragmentRequest, DeleteRangeRequest, HashKvRequest, LeaseGrantRequest,
    LeaseRevokeRequest, LeaseTimeToLiveRequest, MemberListRequest, PutRequest, RangeRequest, RangeResponse,
    WatchCreateRequest, WatchRequest, WatchResponse, watch_request::RequestUnion,
};
use cairn_tests::client::Client;
use cairn_tests::server::{Program, Server};
use cairn_tests::tools;
use tokio_stream::StreamExt as _;

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

/// The lines of JSON that the tool answers.
fn lines(args: &[&str]) -> Vec<String> {
    engine(args, 0).lines().map(str::to_owned).collect()
}

/// A number of a line of JSON.
fn number(line: &str, field: &str) -> u64 {
    let rest = line.split(&format!("\"{field}\":")).nth(1).unwrap_or_else(|| panic!("no {field} in {line}"));
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap_or_else(|_| panic!("{field} in {line}"))
}

/// Flips a byte of a file.
fn flip(path: &Path, at: u64) {
    let mut bytes = std::fs::read(path).expect("reads");
    bytes[at as usize] ^= 0x20;
    std::fs::write(path, bytes).expect("writes");
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path is text")
}

/// The ids in the header, and how long the lease lives at most.
async fn identity(client: &mut Client) -> (u64, u64, i64) {
    let members = client.cluster.member_list(MemberListRequest::default()).await.expect("lists").into_inner();
    assert_eq!(members.members.len(), 1);
    assert!(!members.members[0].is_learner, "what is made of a copy has a voter");
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
            client.maintenance.defragment(DefragmentRequest {}).await.expect("runs");
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

/// Case R37.
///
/// rule: EX-5
#[tokio::test]
async fn a_restore_that_passes_over_revisions_gives_none_twice_and_tells_the_watchers_from_before() {
    const BY: i64 = 1_000;
    let temp = tempfile::tempdir().expect("a temporary directory");
    let mut server = Server::start(Program::cairn()).await;
    let mut client = server.client().await;
    fill(&mut client).await;
    let kept = all(&mut client, 0).await;
    let at_backup = kept.header.expect("a header").revision;
    let (file, data) = (temp.path().join("backup"), temp.path().join("data"));
    engine(&["backup", text(&server.data_dir()), text(&file)], 0);
    put(&mut client, "lost".into(), "behind the backup".into(), 0).await;
    let remembered = all(&mut client, 0).await.header.expect("a header").revision;

    let by = BY.to_string();
    engine(&["restore", text(&file), text(&data), "--bump-revision", &by, "--mark-compacted"], 0);
    client = start_on(&mut server, &data).await;
    for start in ["restored", "started again"] {
        let now = all(&mut client, 0).await;
        assert_eq!((&now.kvs, now.count), (&kept.kvs, kept.count), "{start}");
        assert_eq!(now.header.expect("a header").revision, at_backup + BY, "{start}");
        for from in [at_backup, remembered + 1, at_backup + BY - 1] {
            let told = first_answer(&mut client, from).await;
            assert!(
                told.canceled && told.compact_revision == at_backup + BY,
                "{start}, from {from}: {told:?}"
            );
            let old = RangeRequest { key: "key/0001".into(), revision: from, ..Default::default() };
            let refused = client.kv.range(old).await.expect_err("compacted");
            assert_eq!(refused.message(), "etcdserver: mvcc: required revision has been compacted");
        }
        server.kill();
        server.restart().await;
        client = server.client().await;
    }
    put(&mut client, "new".into(), String::new(), 0).await;
    let first = first_answer(&mut client, at_backup + BY + 1).await;
    let [event] = &first.events[..] else { panic!("one change: {first:?}") };
    assert_eq!(event.kv.as_ref().expect("a pair").mod_revision, at_backup + BY + 1);
    assert!(server.stop().await.code().is_none_or(|code| code == 0 || code == 143));
    engine(&["check", "--deep", text(&server.data_dir())], 0);
}

/// The first that a watcher of everything is told: changes, or its end.
async fn first_answer(client: &mut Client, from: i64) -> WatchResponse {
    let create = WatchCreateRequest {
        key: vec![0].into(),
        range_end: vec![0].into(),
        start_revision: from,
        ..Default::default()
    };
    let create = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
    let requests = tokio_stream::iter([create]).chain(tokio_stream::pending());
    let mut answers = client.watch.watch(requests).await.expect("a stream").into_inner();
    loop {
        let answer = answers.message().await.expect("an answer").expect("one");
        if answer.canceled || !answer.events.is_empty() {
            return answer;
        }
        assert!(answer.created, "{answer:?}");
    }
}

#[tokio::test]
async fn a_daemon_starts_on_what_surgery_made() {
    const YES: &str = "--i-accept-data-loss";
    let temp = tempfile::tempdir().expect("a temporary directory");
    let data = |name: &str| temp.path().join(name);
    let mut server = Server::start(Program::cairn()).await;
    let mut client = server.client().await;
    fill(&mut client).await;
    // Two checkpoints, so that there is one to go back to.
    for n in 0..2 {
        client.maintenance.defragment(DefragmentRequest {}).await.expect("runs");
        put(&mut client, format!("between/{n}"), "x".repeat(20_000), 0).await;
    }
    client.maintenance.defragment(DefragmentRequest {}).await.expect("runs");
    let dir = server.data_dir();
    let ran = Command::new(tools::engine())
        .args(["surgery", "previous-slot", text(&dir), text(&data("x")), YES])
        .output();
    assert_eq!(ran.expect("the tool runs").status.code(), Some(2), "not while the daemon runs");

    // The newest checkpoint is damaged in what it wrote itself: the log brings all of it back.
    let before = all(&mut client, 0).await;
    server.kill();
    let newest = number(&lines(&["info", "--json", text(&dir)])[0], "seq");
    let pages = lines(&["pages", "--json", text(&dir), "--tree", "rev"]);
    let young = pages.iter().find(|page| number(page, "birth") == newest && number(page, "level") == 0);
    let page = number(young.expect("a leaf of the newest checkpoint"), "page");
    flip(&dir.join("member/engine.db"), page * 4096 + 300);
    engine(&["check", text(&dir)], 1);
    let out = engine(&["surgery", "previous-slot", text(&dir), text(&data("slot")), YES], 0);
    assert!(out.contains("lost            nothing"), "{out}");
    client = start_on(&mut server, &data("slot")).await;
    assert_eq!(all(&mut client, 0).await.kvs, before.kvs);

    // A map that cannot be read.
    server.kill();
    (6..10).for_each(|page| flip(&dir.join("member/engine.db"), page * 4096 + 80));
    engine(&["surgery", "rebuild-space-map", text(&dir), text(&data("map")), YES], 0);
    client = start_on(&mut server, &data("map")).await;
    assert_eq!(all(&mut client, 0).await.kvs, before.kvs);

    // A batch of the log that others follow: the daemon refuses, and starts on the cut log with what came before.
    for n in 0..100 {
        put(&mut client, format!("cut/{n:02}"), n.to_string(), 0).await;
    }
    server.kill();
    let records = lines(&["wal", "dump", "--json", text(&dir)]);
    let entries: Vec<&String> = records.iter().filter(|line| line.contains("\"record\":\"entry\"")).collect();
    let record = entries[entries.len() - 50];
    let log = std::fs::read_dir(dir.join("member/wal")).expect("a directory");
    let segment = format!("{:016x}-", number(record, "segment"));
    let mut files = log.map(|entry| entry.expect("an entry").path());
    let file = files.find(|path| path.to_string_lossy().contains(&segment)).expect("the segment");
    flip(&file, number(record, "offset") + 100);
    engine(&["check", text(&dir)], 1);
    let out = engine(&["surgery", "cut-wal", text(&dir), text(&data("cut")), YES], 0);
    assert!(out.contains("lost        entries "), "{out}");
    client = start_on(&mut server, &data("cut")).await;
    let kvs = all(&mut client, 0).await.kvs;
    let cut: Vec<_> = kvs.iter().filter(|kv| kv.key.starts_with(b"cut/")).collect();
    assert!((20..100).contains(&cut.len()), "{} of 100 came back", cut.len());
    assert!(cut.iter().enumerate().all(|(n, kv)| kv.value == n.to_string().as_bytes()), "the first of them");
    assert_eq!(kvs.len() - cut.len(), before.kvs.len());
    put(&mut client, "goes on".into(), String::new(), 0).await;
    server.stop().await;
    engine(&["check", "--deep", text(&dir)], 0);
}

/// The hash over all that is stored up to a revision.
async fn hash(client: &mut Client, revision: i64) -> (u32, i64) {
    let answer = client.maintenance.hash_kv(HashKvRequest { revision }).await.expect("is told").into_inner();
    (answer.hash, answer.compact_revision)
}

// rule: LR-8
#[tokio::test]
async fn a_daemon_starts_on_a_store_that_was_loaded_anew() {
    let temp = tempfile::tempdir().expect("a temporary directory");
    let mut server = Server::start(Program::cairn()).await;
    let mut client = server.client().await;
    fill(&mut client).await;
    client.maintenance.defragment(DefragmentRequest {}).await.expect("runs");
    let ids = identity(&mut client).await;
    let (now, then, end) =
        (all(&mut client, 0).await, all(&mut client, 600).await, hash(&mut client, 0).await);
    let revision = now.header.as_ref().expect("a header").revision;
    let dir = server.data_dir();
    let peer = server.peer_url();
    let lines = temp.path().join("lines");
    engine(&["export", "--history", text(&dir), text(&lines)], 0);
    for round in ["defrag", "import"] {
        let data = temp.path().join(round);
        server.kill();
        match round {
            "defrag" => engine(&["defrag", text(&dir), text(&data)], 0),
            _ => {
                let urls = format!("--initial-advertise-peer-urls={peer}");
                engine(&["import", text(&lines), text(&data), &urls], 0)
            }
        };
        client = start_on(&mut server, &data).await;
        let (again, old) = (all(&mut client, 0).await, all(&mut client, 600).await);
        assert_eq!((again.kvs, again.count), (now.kvs.clone(), now.count), "{round}");
        assert_eq!(old.kvs, then.kvs, "{round}");
        assert_eq!(again.header.expect("a header").revision, revision, "{round}");
        assert_eq!(hash(&mut client, revision).await, end, "{round}");
        assert_eq!(identity(&mut client).await, ids, "{round}");
        // A lease takes its keys along.
        if round == "import" {
            let revoke = LeaseRevokeRequest { id: LEASE };
            client.lease.lease_revoke(revoke).await.expect("revokes");
            let leased = now.kvs.iter().filter(|kv| kv.lease == LEASE).count();
            assert_eq!((leased, all(&mut client, 0).await.count), (6, now.count - 6));
        }
        put(&mut client, "goes on".into(), round.into(), 0).await;
        server.kill();
        server.restart().await;
        engine(&["check", "--deep", text(&dir)], 0);
    }
}
