// SPDX-License-Identifier: Apache-2.0
//! The tests are tested: each planted mistake of the log must be found by the crash search.

use cairn_engine::mutants;
use cairn_engine::sim::{Explorer, Limits};

use crate::crash::{explore, explore_faults, runs};
use crate::damage;

/// Size of the log of which each byte of the newest segment is flipped.
const FLIPPED_BYTES: u64 = 64 << 10;

/// The failing calls first, then random lives of a log.
fn search() -> Result<(), String> {
    let mut explorer = Explorer::new(1, Limits { recovery_one_in: 4, ..Limits::default() });
    explore_faults(&mut explorer).map_err(|failure| format!("failing calls, {}", failure.brief()))?;
    (0..4 * runs()).try_for_each(|life| {
        let explored = explore(&mut explorer, life);
        explored.map_err(|failure| format!("life {life}, {}", failure.brief()))
    })
}

/// What no crash does: bytes of what was durable change.
fn flips() -> Result<(), String> {
    let outcomes = damage::flip_each(FLIPPED_BYTES, true, 1);
    if outcomes.contains_key("torn") {
        Err("a loss in a sealed log passed for a crash".to_owned())
    } else {
        Ok(())
    }
}

#[test]
fn every_planted_mistake_is_caught() {
    let mut missed = Vec::new();
    let mistakes: Vec<_> = mutants::ALL.iter().filter(|(name, _)| name.starts_with("wal-")).collect();
    assert!(mistakes.len() >= 5);
    for (name, what) in mistakes {
        let (by, search): (_, fn() -> Result<(), String>) = match *name {
            "wal-loss-taken-for-a-torn-tail" => ("wal::damage", flips),
            _ => ("wal::crash", search),
        };
        if mutants::is_wanted(name) && mutants::hunt_planted(name, by, search).is_none() {
            missed.push((name, what));
        }
    }
    assert!(missed.is_empty(), "not caught: {missed:?}");
}
