// SPDX-License-Identifier: Apache-2.0
//! Every RPC is sent what no client would send, and the server answers each and goes on.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use cairn_proto::{etcdserverpb as pb, methods};
use cairn_tests::client::Client;
use cairn_tests::hostile::describe::{Descriptors, Rpc};
use cairn_tests::hostile::inputs::{self, KINDS};
use cairn_tests::hostile::wire::Connection;
use cairn_tests::scale;
use cairn_tests::server::{Program, Server, anonymous_memory};
use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// Inputs of each RPC in CI, and in full.
const OF_AN_RPC: usize = 60;
const OF_AN_RPC_FULL: usize = 1_000;
/// Calls under way at once.
const AT_ONCE: usize = 32;
/// What the server may grow by.
const DRIFT_BYTES_MAX: u64 = 64 << 20;
/// And how long it may take to give memory back.
const SETTLE: Duration = Duration::from_secs(10);
/// Rounds of a few inputs each before its size is taken.
const WARM_UP: usize = KINDS.len();

#[derive(Default)]
struct Counts {
    answers: BTreeMap<u32, usize>,
    refused_by_kind: BTreeMap<usize, usize>,
}

/// Sends so many inputs of an RPC, each kind in turn, and counts how they ended.
async fn try_one(
    connection: &Arc<Connection>,
    descriptors: &Descriptors,
    rpc: &Rpc,
    seed: u64,
    inputs: usize,
) -> Counts {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let room = Arc::new(Semaphore::new(AT_ONCE));
    let mut calls = JoinSet::new();
    for n in 0..inputs {
        let input = inputs::draw(n % KINDS.len(), descriptors, rpc, &mut rng);
        let (connection, path) = (connection.clone(), rpc.path.clone());
        let permit = room.clone().acquire_owned().await.expect("it is never closed");
        calls.spawn(async move {
            let answer = connection.call(&path, &input.headers, input.body.clone()).await;
            drop(permit);
            assert!(input.allows(&answer), "{path} of seed {seed}: {answer:?} for {}", input.describe());
            (input.kind, answer.code)
        });
    }
    let mut counts = Counts::default();
    while let Some(ended) = calls.join_next().await {
        let (kind, code) = ended.expect("the call is looked at in its task");
        *counts.answers.entry(code).or_default() += 1;
        *counts.refused_by_kind.entry(kind).or_default() += usize::from(code != 0);
    }
    assert!(connection.is_open(), "{} ended the connection", rpc.path);
    counts
}

/// Alarms that were raised on the way would have all that follows refused for one reason.
async fn calm(client: &mut Client) {
    let all = client.maintenance.alarm(pb::AlarmRequest::default()).await.expect("a list").into_inner();
    for alarm in all.alarms {
        let action = pb::alarm_request::AlarmAction::Deactivate as i32;
        let off = pb::AlarmRequest { action, member_id: alarm.member_id, alarm: alarm.alarm };
        client.maintenance.alarm(off).await.expect("switched off");
    }
}

#[tokio::test]
async fn every_rpc_refuses_bad_requests_and_goes_on() {
    let server = Server::start(Program::cairn().arg("--bcrypt-cost=4")).await;
    let descriptors = Descriptors::read();
    let rpcs = descriptors.rpcs();
    assert!(methods::ALL.iter().all(|method| rpcs.iter().any(|rpc| rpc.path == method.path)));
    let (inputs, seed) = (scale::count(OF_AN_RPC, OF_AN_RPC_FULL), scale::seed());
    let address = server.url().trim_start_matches("http://").to_owned();
    let connection = Arc::new(Connection::open(&address).await);
    let mut client = server.client().await;
    for rpc in rpcs {
        try_one(&connection, &descriptors, rpc, seed, WARM_UP).await;
    }
    calm(&mut client).await;
    let before = anonymous_memory(server.pid());
    let (mut sent, mut refused_by_kind) = (usize::MAX, BTreeMap::<usize, usize>::new());
    for rpc in rpcs {
        let counts = try_one(&connection, &descriptors, rpc, seed + 1, inputs).await;
        calm(&mut client).await;
        println!("{:45} {:?}", rpc.path, counts.answers);
        sent = sent.min(counts.answers.values().sum());
        counts
            .refused_by_kind
            .into_iter()
            .for_each(|(kind, n)| *refused_by_kind.entry(kind).or_default() += n);
    }
    for (kind, refused) in &refused_by_kind {
        println!("{refused:6} refused: {}", KINDS[*kind]);
    }
    // Each kind is refused by some, else it is not what it says.
    assert_eq!(refused_by_kind.values().filter(|refused| **refused > 0).count(), KINDS.len());
    let put = pb::PutRequest { key: "after".into(), ..Default::default() };
    client.kv.put(put).await.expect("others are served");
    let begin = std::time::Instant::now();
    let mut drift = anonymous_memory(server.pid()).saturating_sub(before);
    while drift > DRIFT_BYTES_MAX && begin.elapsed() < SETTLE {
        tokio::time::sleep(Duration::from_millis(100)).await;
        drift = anonymous_memory(server.pid()).saturating_sub(before);
    }
    println!("the server grew by {drift} bytes");
    assert!(drift <= DRIFT_BYTES_MAX, "it grew by {drift} bytes");
    let log = server.log();
    assert!(!log.contains("panic"), "{log}");
    assert!(connection.is_open());
    assert!(scale::score("bad-input-rpcs", rpcs.len(), methods::ALL.len()));
    assert!(scale::score("bad-inputs-each", sent, inputs));
}
