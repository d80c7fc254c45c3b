// SPDX-License-Identifier: Apache-2.0
//! Everything of a member's machines that takes bytes from a client, from a peer or from the log.
//!
//! Owns      the list of targets.
//! Holds     a request of the table of methods that is no target fails.
//! Never     opens a file but those of the corpus.

mod apply;
mod auth;
#[path = "../../../../tests/src/hostile/describe.rs"]
#[allow(dead_code)] // what the tests of the daemon ask of it is more
mod describe;
#[path = "../../../../engine/tests/fuzz/harness.rs"]
mod harness;
mod leases;
#[path = "../cluster/memlog.rs"]
#[allow(dead_code)] // the tests of clusters ask for more
mod memlog;
mod messages;
#[path = "../../../../engine/tests/fuzz/program.rs"]
mod program;
mod raft;
mod ranges;
mod world;

use cairn_engine::fuzz::Target;

const TARGETS: &[Target] = &[
    messages::REQUEST,
    messages::TXN,
    apply::ENTRIES,
    raft::STEP,
    leases::LESSOR,
    auth::STORE,
    ranges::GRANTED,
    ranges::WATCHED,
];

#[test]
fn every_target_takes_any_bytes() {
    messages::check_table();
    raft::check_samples();
    harness::run_all(TARGETS, "core-fuzz", 8);
}

/// The start of an input, where programs begin, and three places further on.
fn spread(input: &[u8]) -> Vec<usize> {
    (0..4).map(|quarter| input.len() * quarter / 4).collect()
}
