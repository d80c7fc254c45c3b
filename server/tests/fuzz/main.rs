// SPDX-License-Identifier: Apache-2.0
//! Everything of the daemon that takes bytes from a socket, a token or an operator.
//!
//! Owns      the list of targets.
//! Never     starts a daemon: each target is a function.

#[path = "../../../engine/tests/fuzz/harness.rs"]
mod harness;
mod operator;
mod peers;
mod preface;
mod token;

use cairn_engine::fuzz::Target;

const TARGETS: &[Target] =
    &[peers::FRAMES, token::JWT, operator::FLAGS, operator::URLS, operator::FILE, preface::CONNECTION];

#[test]
fn every_target_takes_any_bytes() {
    harness::run_all(TARGETS, "daemon-fuzz", 6);
}

/// The start of an input, and three places further on.
fn spread(input: &[u8]) -> Vec<usize> {
    (0..4).map(|quarter| input.len() * quarter / 4).collect()
}
