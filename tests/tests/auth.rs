// SPDX-License-Identifier: Apache-2.0
//! Cairn refuses and answers as etcd does, whoever asks: the same random users, roles and logins on both, and
//! the same requests of each.

use cairn_proto::errors;
use cairn_tests::auth::{Differences, Side, Summary, run};
use cairn_tests::server::{Program, Server};
use cairn_tests::{scale, tools};

/// Requests a seed; a new pair of servers begins each.
const OF_A_SEED: usize = 2_500;

/// Refusals that every run must have met.
const MET: &[errors::WireError] = &[
    errors::USER_EMPTY,
    errors::USER_NOT_FOUND,
    errors::USER_ALREADY_EXIST,
    errors::ROLE_EMPTY,
    errors::ROLE_NOT_FOUND,
    errors::ROLE_ALREADY_EXIST,
    errors::ROLE_NOT_GRANTED,
    errors::PERMISSION_DENIED,
    errors::PERMISSION_NOT_GRANTED,
    errors::AUTH_FAILED,
    errors::NO_PASSWORD_USER,
    errors::INVALID_AUTH_TOKEN,
    errors::INVALID_AUTH_MGMT,
    errors::AUTH_NOT_ENABLED,
];

fn etcd(etcd: &tools::Etcd) -> Program {
    Program::etcd(etcd).arg("--bcrypt-cost=4")
}

/// Against etcd 3.5.1. Where that lets through what is refused since, the advisory is listed, and must come up.
#[tokio::test]
async fn cairn_refuses_as_etcd_does() {
    let Some(reference) = tools::etcd() else { return };
    let requests = scale::count(5_000, 50_000);
    let (mut summary, mut differences) = (Summary::default(), Differences::default());
    for seed in (scale::seed()..).take(requests / OF_A_SEED) {
        let theirs = Server::start(etcd(&reference)).await;
        // Failed logins are a part of the sequence, and are not to wait.
        let cairn = Program::cairn().arg("--bcrypt-cost=4").arg("--auth-failure-rate=0");
        let ours = Server::start(cairn).await;
        let (mut theirs, mut ours) = (Side::new(theirs.client().await), Side::new(ours.client().await));
        if let Err(mismatch) =
            run(seed, OF_A_SEED, &mut theirs, &mut ours, &mut differences, &mut summary).await
        {
            panic!("{summary}{mismatch}");
        }
    }
    println!("{summary}");
    assert_met(&summary);
    for (listed, times) in differences.occurrences() {
        println!("listed difference {} ({}): {times} times", listed.rule, listed.why);
        assert!(times > 0, "the listed difference {} no longer occurs", listed.rule);
    }
    assert!(scale::score("auth.requests", summary.requests, requests));
}

/// The reference against itself: the masks and the generator leave nothing open.
#[tokio::test]
async fn etcd_refuses_as_etcd_does() {
    let Some(reference) = tools::etcd() else { return };
    let (one, two) = (Server::start(etcd(&reference)).await, Server::start(etcd(&reference)).await);
    let (mut one, mut two) = (Side::new(one.client().await), Side::new(two.client().await));
    let (mut summary, mut differences) = (Summary::default(), Differences::default());
    let outcome = run(scale::seed(), OF_A_SEED, &mut one, &mut two, &mut differences, &mut summary).await;
    if let Err(mismatch) = outcome {
        panic!("{summary}{mismatch}");
    }
    assert!(differences.occurrences().all(|(_, times)| times == 0), "{differences:?}");
    assert_met(&summary);
}

fn assert_met(summary: &Summary) {
    for error in MET {
        let met = summary.refusals.keys().any(|f| f.text == error.text && f.code as u32 == error.code);
        assert!(met, "no request was refused with {error:?}\n{summary}");
    }
}
