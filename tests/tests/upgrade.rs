// SPDX-License-Identifier: Apache-2.0
//! A rolling upgrade to the version after this one, and back.
//!
//! Owns      the replacement of each member's program in turn, while clients write.
//! Holds     1. what was acknowledged at any time is there at the end, at its revision;
//!           2. what came with the later version is used only while all members have it;
//!           3. a member is never started on what it may not understand.
//! Never     waits for a time: it waits for what is to happen.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use cairn_proto::etcdserverpb::downgrade_request::DowngradeAction;
use cairn_proto::etcdserverpb::{
    DowngradeRequest, HashKvRequest, PutRequest, RangeRequest, StatusRequest, StatusResponse,
};
use cairn_tests::client::Client;
use cairn_tests::server::{Program, Server};
use cairn_tests::tools;

const MEMBERS: usize = 3;
const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(20);
/// What a member says when a request is applied that came with the later version.
const LATER: &str = "applied a request of the next version";

/// Keys that were acknowledged, each with its revision.
type Written = Vec<(String, i64)>;

/// Writes one key after the other, each through the next member, until it is to stop.
async fn write(writer: usize, urls: Vec<String>, stop: Arc<AtomicBool>, count: Arc<AtomicU64>) -> Written {
    let mut clients: Vec<Client> = urls.iter().map(|url| Client::lazy(url)).collect();
    let mut written = Vec::new();
    for n in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let key = format!("w{writer}/{n:06}");
        let put = PutRequest { key: key.clone().into(), value: "v".into(), ..PutRequest::default() };
        // Without an answer it may have been done or not.
        match clients[n % MEMBERS].kv.put(put).await {
            Ok(answer) => {
                written.push((key, answer.into_inner().header.expect("a header").revision));
                count.fetch_add(1, Ordering::Relaxed);
            }
            Err(_) => tokio::time::sleep(POLL).await,
        }
    }
    written
}

async fn status(server: &Server) -> StatusResponse {
    let mut client = server.client().await;
    client.maintenance.status(StatusRequest {}).await.expect("a status").into_inner()
}

/// The versions of cluster and peers' view of it, as `/version` and `Status` tell.
async fn cluster_of(server: &Server) -> String {
    // The storage version follows the cluster's, and is told by Status.
    status(server).await.storage_version
}

async fn all_are_of(servers: &[Server], version: &str) {
    for server in servers {
        let begin = Instant::now();
        while cluster_of(server).await != version {
            assert!(begin.elapsed() < PATIENCE, "it never was of {version}\n{}", server.log());
            tokio::time::sleep(POLL).await;
        }
    }
}

/// Waits until so many more writes were acknowledged.
async fn more(count: &AtomicU64, writes: u64) {
    let (begin, goal) = (Instant::now(), count.load(Ordering::Relaxed) + writes);
    while count.load(Ordering::Relaxed) < goal {
        assert!(begin.elapsed() < PATIENCE, "writes stand still");
        tokio::time::sleep(POLL).await;
    }
}

async fn replace(server: &mut Server, program: &Path) {
    server.stop().await;
    server.become_another(program);
    server.restart().await;
}

/// Since `said` bytes of its log.
fn says_since(server: &Server, said: usize, text: &str) -> bool {
    server.log()[said..].contains(text)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r36_a_rolling_upgrade_and_a_downgrade_lose_nothing_and_use_what_is_new_only_where_all_have_it() {
    let (old, new) = (tools::cairn(), tools::cairn_next());
    let mut servers: Vec<Server> = (0..MEMBERS).map(|_| Server::idle(Program::cairn())).collect();
    Server::found_cluster(&mut servers).await;
    all_are_of(&servers, "3.7.0").await;
    let urls: Vec<String> = servers.iter().map(Server::url).collect();
    let (stop, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let writers: Vec<_> =
        (0..2).map(|writer| tokio::spawn(write(writer, urls.clone(), stop.clone(), count.clone()))).collect();
    more(&count, 50).await;

    // Up: the cluster is of the old version until the last member is of the new one.
    for i in 0..MEMBERS {
        for server in &servers {
            assert_eq!(cluster_of(server).await, "3.7.0");
            assert!(
                !says_since(server, 0, LATER),
                "a member that does not know it is there\n{}",
                server.log()
            );
        }
        replace(&mut servers[i], &new).await;
        assert_eq!(status(&servers[i]).await.version, "3.8.0");
        more(&count, 50).await;
    }
    all_are_of(&servers, "3.8.0").await;
    for server in &servers {
        let begin = Instant::now();
        while !says_since(server, 0, LATER) {
            assert!(begin.elapsed() < PATIENCE, "it is never used\n{}", server.log());
            tokio::time::sleep(POLL).await;
        }
        let log = server.log();
        let (raised, used) = (log.find(r#""to":"3.8""#), log.find(LATER));
        assert!(raised.expect("it says so") < used.expect("it says so"), "{log}");
        // Members of the two versions talked in the way of the older one, and now do in the newer one's.
        assert!(log.contains(r#""protocol":"1""#) && log.contains(r#""protocol":"2""#), "{log}");
    }

    // A member of the old version is not started on what it may not understand.
    servers[0].stop().await;
    let said = servers[0].log().len();
    servers[0].become_another(&old);
    servers[0].begin();
    assert!(!servers[0].ended().await.success());
    let why = "invalid downgrade; server version is lower than determined cluster version";
    assert!(says_since(&servers[0], said, why), "{}", servers[0].log());
    servers[0].become_another(&new);
    servers[0].restart().await;

    // Down: first the cluster, then each member.
    let enable = DowngradeRequest { action: DowngradeAction::Enable as i32, version: "3.7".into() };
    let answer =
        servers[1].client().await.maintenance.downgrade(enable).await.expect("it begins").into_inner();
    assert_eq!(answer.version, "3.8");
    all_are_of(&servers, "3.7.0").await;
    let said: Vec<usize> = servers.iter().map(|server| server.log().len()).collect();
    for server in &mut servers {
        replace(server, &old).await;
        assert_eq!(status(server).await.version, "3.7.1");
        more(&count, 50).await;
    }
    for server in &servers {
        let begin = Instant::now();
        while status(server).await.downgrade_info.expect("always there").enabled {
            assert!(begin.elapsed() < PATIENCE, "the downgrade never ends\n{}", server.log());
            tokio::time::sleep(POLL).await;
        }
        assert_eq!(cluster_of(server).await, "3.7.0");
    }
    for (server, said) in servers.iter().zip(said) {
        assert!(!says_since(server, said, LATER), "{}", server.log());
    }
    let ended = servers.iter().any(|server| server.log().contains("the cluster has been downgraded"));
    assert!(ended, "the leader says so");

    stop.store(true, Ordering::Relaxed);
    let mut written = Written::new();
    for writer in writers {
        written.append(&mut writer.await.expect("it does not panic"));
    }
    let mut hashes = BTreeSet::new();
    for server in &servers {
        let mut client = server.client().await;
        let all = RangeRequest { key: "w".into(), range_end: "x".into(), ..RangeRequest::default() };
        let kvs = client.kv.range(all).await.expect("read").into_inner().kvs;
        let found: BTreeSet<(String, i64)> =
            kvs.iter().map(|kv| (String::from_utf8_lossy(&kv.key).into_owned(), kv.mod_revision)).collect();
        let lost: Vec<&(String, i64)> = written.iter().filter(|write| !found.contains(*write)).collect();
        assert!(lost.is_empty(), "{} of {} are lost: {lost:?}", lost.len(), written.len());
        let hash =
            client.maintenance.hash_kv(HashKvRequest { revision: 0 }).await.expect("a hash").into_inner();
        hashes.insert((hash.hash, hash.hash_revision));
    }
    assert_eq!(hashes.len(), 1, "{hashes:?}");
    println!("{} writes were acknowledged", written.len());
}
