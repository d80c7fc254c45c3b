// SPDX-License-Identifier: Apache-2.0
//! Members that wait at a failpoint, or lose what comes there.

use std::time::{Duration, Instant};

use cairn_proto::etcdserverpb::PutRequest;
use cairn_tests::cluster::{HUNG, RETRY, leader, status};
use cairn_tests::failpoints::Failpoints;
use cairn_tests::server::{Program, Server};

const MEMBERS: usize = 3;

async fn cluster() -> (Vec<Server>, Vec<Failpoints>) {
    let mut servers: Vec<Server> = (0..MEMBERS).map(|_| Server::idle(Program::cairn_next())).collect();
    let points = servers.iter_mut().map(Server::serve_failpoints).collect();
    Server::found_cluster(&mut servers).await;
    (servers, points)
}

/// Whether it takes a write within a second.
async fn takes_a_write(server: &Server) -> bool {
    let put = PutRequest { key: "k".into(), value: "v".into(), ..PutRequest::default() };
    let mut client = server.client().await;
    matches!(tokio::time::timeout(Duration::from_secs(1), client.kv.put(put)).await, Ok(Ok(_)))
}

/// Waits until another one leads, and a write through it is taken. Gives its place.
async fn another_leads(servers: &[Server], than: usize) -> usize {
    let begin = Instant::now();
    loop {
        for other in (0..MEMBERS).filter(|other| *other != than) {
            if status(&servers[other]).await.is_some_and(|(leads, _)| leads)
                && takes_a_write(&servers[other]).await
            {
                return other;
            }
        }
        assert!(begin.elapsed() < HUNG, "nobody else leads\n{}", servers[than].log());
        tokio::time::sleep(RETRY).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_whose_disk_hangs_gives_up_and_follows_again_once_it_answers() {
    let (servers, points) = cluster().await;
    let hung = leader(&servers).await;
    // Ten times the election timeout: it is not the write's own end that has another one lead.
    points[hung].set("walBeforeSync", "1*sleep(\"10s\")").await;
    let begin = Instant::now();
    let late = tokio::spawn({
        let mut client = servers[hung].client().await;
        let put = PutRequest { key: "late".into(), value: "v".into(), ..PutRequest::default() };
        async move { client.kv.put(put).await }
    });
    another_leads(&servers, hung).await;
    let took = begin.elapsed();
    assert!(took < Duration::from_secs(9), "another one leads only after {took:?}");
    println!("another one led {took:?} after the disk of the leader hung");
    assert!(servers[hung].log().contains("a write of the log hangs"), "{}", servers[hung].log());
    let clients = Failpoints { port: servers[hung].client_port() };
    let readyz = clients.ask("GET", "/readyz", "").await.expect("an answer");
    assert_eq!(readyz.status, 503, "{readyz:?}");
    assert!(readyz.body.contains("member/wal/") && readyz.body.contains("check the disk"), "{readyz:?}");
    late.abort();
    while !takes_a_write(&servers[hung]).await {
        assert!(begin.elapsed() < HUNG, "it does not follow\n{}", servers[hung].log());
    }
    assert!(servers[hung].log().contains("a write of the log ended late"), "{}", servers[hung].log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn followers_that_lose_all_heartbeats_elect_another_leader() {
    let (servers, points) = cluster().await;
    let deaf_to = leader(&servers).await;
    for other in (0..MEMBERS).filter(|other| *other != deaf_to) {
        points[other].set("raftDropHeartbeat", "return").await;
    }
    let next = another_leads(&servers, deaf_to).await;
    for other in (0..MEMBERS).filter(|other| *other != deaf_to) {
        assert!(points[other].count("raftDropHeartbeat").await > 0);
        points[other].clear("raftDropHeartbeat").await;
    }
    println!("{deaf_to} led, and then {next}");
    let begin = Instant::now();
    while !takes_a_write(&servers[deaf_to]).await {
        assert!(begin.elapsed() < HUNG, "it does not follow\n{}", servers[deaf_to].log());
    }
}
