// SPDX-License-Identifier: Apache-2.0
//! Any sequence of requests to a store, against the model of its tests.
//!
//! Owns      the list of targets.
//! Never     has rules of its own: the model is that of the random histories.

#[path = "../../../tests/fuzz/harness.rs"]
mod harness;
mod index;
#[path = "../mvcc/model.rs"]
#[allow(dead_code)] // the random histories ask for more
mod model;
#[path = "../../../tests/fuzz/program.rs"]
#[allow(dead_code)] // its samples are random
mod program;
mod requests;
#[path = "../mvcc/world.rs"]
#[allow(dead_code)] // the random histories do more
mod world;

use cairn_engine::fuzz::Target;

const TARGETS: &[Target] = &[requests::MODEL, index::MODEL];

#[test]
fn every_target_takes_any_bytes() {
    harness::run_all(TARGETS, "mvcc-fuzz", 2);
}

/// The start of an input, where programs begin, and three places further on.
fn spread(input: &[u8]) -> Vec<usize> {
    (0..4).map(|quarter| input.len() * quarter / 4).collect()
}

/// Random programs that get far enough, the shorter ones first.
fn random_samples(run: fn(&[u8]) -> bool, seed: u64) -> Vec<Vec<u8>> {
    let mut rng = cairn_engine::sim::SplitMix::new(seed);
    let mut len = 60;
    let mut random = || {
        len += 20;
        let mut bytes = vec![0; len];
        rng.fill(&mut bytes);
        bytes
    };
    std::iter::repeat_with(&mut random).filter(|sample| run(sample)).take(5).collect()
}
