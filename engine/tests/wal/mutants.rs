// SPDX-License-Identifier: Apache-2.0
//! The tests are tested: each planted mistake of the log must be found by the crash search.

use cairn_engine::mutants;
use cairn_engine::sim::{Explorer, Limits};

use crate::crash::{explore, explore_faults, runs};

#[test]
fn every_planted_mistake_is_found() {
    let mut missed = Vec::new();
    let mistakes: Vec<_> = mutants::ALL.iter().filter(|(name, _)| name.starts_with("wal-")).collect();
    assert!(mistakes.len() >= 5);
    for (name, what) in mistakes {
        let mut explorer = Explorer::new(1, Limits { recovery_one_in: 4, ..Limits::default() });
        let found = mutants::with(name, || {
            let workloads = (0..4 * runs()).map(|seed| (format!("workload {seed}"), Some(seed)));
            [("the failing calls".to_string(), None)].into_iter().chain(workloads).find_map(
                |(place, seed)| {
                    let done = match seed {
                        Some(seed) => explore(&mut explorer, seed),
                        None => explore_faults(&mut explorer).map(|_| ()),
                    };
                    done.err().map(|failure| (place, failure))
                },
            )
        });
        match found {
            Some((place, failure)) => {
                let first = failure.message.lines().next().unwrap_or_default().to_string();
                println!(
                    "{name} ({what}): found in {place} after {} checks: {first}",
                    explorer.report().checks
                );
            }
            None => missed.push(*name),
        }
    }
    assert!(missed.is_empty(), "not found: {missed:?}");
}
