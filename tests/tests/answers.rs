// SPDX-License-Identifier: Apache-2.0
//! Cairn answers as etcd does: the same random requests to both, whole answers compared.

#[path = "answers/planted.rs"]
mod planted;

use cairn_proto::errors;
use cairn_tests::answers::{Known, Summary, run};
use cairn_tests::server::{Program, Server};
use cairn_tests::{scale, tools};

/// Requests a seed; a new pair of servers begins each.
const OF_A_SEED: usize = 5_000;

/// Refusals that every run must have met.
const MET: &[errors::WireError] = &[
    errors::EMPTY_KEY,
    errors::KEY_NOT_FOUND,
    errors::VALUE_PROVIDED,
    errors::LEASE_PROVIDED,
    errors::TOO_MANY_OPS,
    errors::DUPLICATE_KEY,
    errors::COMPACTED,
    errors::FUTURE_REV,
    errors::LEASE_NOT_FOUND,
    errors::LEASE_EXIST,
    errors::LEASE_TTL_TOO_LARGE,
    errors::REQUEST_TOO_LARGE,
];

/// Cairn against etcd 3.5.1. What may differ is listed by rule, and each entry must come up.
#[tokio::test]
async fn cairn_gives_the_same_answers_as_etcd() {
    let Some(etcd) = tools::etcd() else { return };
    let requests = scale::count(20_000, 100_000);
    let (first, mut summary, mut known) = (scale::seed(), Summary::default(), Known::of_etcd_3_5_1());
    for seed in (first..).take(requests / OF_A_SEED) {
        let (reference, cairn) =
            (Server::start(Program::etcd(&etcd)).await, Server::start(Program::cairn()).await);
        known.fresh_stores();
        let outcome =
            run(seed, OF_A_SEED, &reference.client().await, &cairn.client().await, &mut known, &mut summary)
                .await;
        if let Err(mismatch) = outcome {
            panic!("{summary}{mismatch}");
        }
    }
    println!("{summary}");
    assert_met(&summary);
    for (rule, mark, times) in known.occurrences() {
        println!("known difference {rule} {mark}: {times} times");
        assert!(times > 0, "the listed difference {rule} {mark} no longer occurs");
    }
    assert!(scale::score("answers.requests", summary.requests, requests));
}

/// The reference against itself: the masks and the generator leave nothing open.
#[tokio::test]
async fn etcd_gives_the_same_answers_as_etcd() {
    let Some(etcd) = tools::etcd() else { return };
    let seed = scale::seed();
    let (one, two) = (Server::start(Program::etcd(&etcd)).await, Server::start(Program::etcd(&etcd)).await);
    let (one, two) = (one.client().await, two.client().await);
    let mut summary = Summary::default();
    let outcome = run(seed, OF_A_SEED, &one, &two, &mut Known::nothing(), &mut summary).await;
    if let Err(mismatch) = outcome {
        panic!("{summary}{mismatch}");
    }
    println!("{summary}");
    assert_met(&summary);
    assert_eq!(summary.requests, OF_A_SEED);
}

/// A server that answers as 3.5.1 does where the rules say otherwise is found out.
#[tokio::test]
async fn etcd_3_5_1_is_not_taken_for_a_server_of_these_rules() {
    let Some(etcd) = tools::etcd() else { return };
    let seed = scale::seed();
    let (one, two) = (Server::start(Program::etcd(&etcd)).await, Server::start(Program::etcd(&etcd)).await);
    let (one, two) = (one.client().await, two.client().await);
    let outcome =
        run(seed, OF_A_SEED, &one, &two, &mut Known::of_etcd_3_5_1(), &mut Summary::default()).await;
    assert!(outcome.is_err(), "no listed difference came up in {OF_A_SEED} requests");
}

fn assert_met(summary: &Summary) {
    for error in MET {
        let met = summary.refusals.keys().any(|f| f.text == error.text && f.code as u32 == error.code);
        assert!(met, "no request was refused with {error:?}\n{summary}");
    }
}
