// SPDX-License-Identifier: Apache-2.0
//! Everything of the engine that takes bytes from a disk or from another member.
//!
//! Owns      how many targets there are at least.
//! Never     knows what a target decodes.

mod harness;

use cairn_engine::fuzz::TARGETS;

#[test]
fn every_target_takes_any_bytes() {
    harness::run_all(TARGETS, "engine-fuzz", 14);
}
