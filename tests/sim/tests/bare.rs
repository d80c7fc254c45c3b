// SPDX-License-Identifier: Apache-2.0
//! Seeds of replicas alone.
//!
//! Owns      how many seeds a run takes: some here, many with `CAIRN_FULL=1`.
//! Holds     floors: a run in which too little was done fails.
//! Never     draws a seed: they count from one, so that every run is repeated.

use cairn_sim::bare::{self, BareStats};
use std::thread;

const SEEDS: u64 = 30_000;
const SEEDS_FULL: u64 = 100_000;
const THREADS: u64 = 2;
/// Time that passes for the members of all [`SEEDS`].
const DAYS_MIN: f64 = 7.0;
const DAY_MS: f64 = 86_400_000.0;

#[test]
fn replicas_with_crashes_partitions_and_changes_of_members_break_no_rule() {
    let full = std::env::var("CAIRN_FULL").is_ok_and(|v| v == "1");
    let seeds = if full { SEEDS_FULL } else { SEEDS };
    let each = seeds / THREADS;
    let parts: Vec<_> =
        (0..THREADS).map(|part| thread::spawn(move || bare::run_seeds(1 + part * each, each))).collect();
    let mut all = BareStats::default();
    for part in parts {
        let stats = part.join().expect("a seed panicked; its number is above");
        all.add(&stats.unwrap_or_else(|what| panic!("{what}")));
    }
    println!("seeds 1 to {seeds}: {all:?}");
    // What happens in a hundred seeds at least.
    let floors = [
        ("entries", all.entries, 18_000),
        ("answered", all.answered, 10_000),
        ("reads", all.reads, 1_000),
        ("elections", all.elections, 200),
        ("crashes", all.crashes, 500),
        ("snapshots installed", all.installs, 20),
        ("changes of members", all.changes, 100),
        ("conflicting entries replaced", all.truncations, 20),
    ];
    for (what, count, a_hundred) in floors {
        assert!(count * 100 >= a_hundred * seeds, "only {count} {what} in {seeds} seeds");
    }
    println!("score: raft-seeds {seeds} >={seeds} ok");
    let (days, days_min) = (all.simulated_ms as f64 / DAY_MS, DAYS_MIN * seeds as f64 / SEEDS as f64);
    assert!(days >= days_min, "only {days} days");
    println!("score: raft-simulated-days {days:.1} >={days_min:.1} ok");
}
