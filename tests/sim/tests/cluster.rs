// SPDX-License-Identifier: Apache-2.0
//! Seeds of clusters, and mistakes of a host that seeds of clusters must find.
//!
//! Owns      how many seeds a run takes: few here, many with `CAIRN_FULL=1`.
//! Holds     floors: a run in which too little went wrong, or too little was done, fails.
//! Never     draws a seed: they count from one, so that every run is repeated.

use cairn_engine::mutants;
use cairn_sim::{node::Sabotage, run, run_seeds, stats::Stats, world::World};
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    thread,
};

/// Seeds of three members, and of five.
const SEEDS: (u64, u64) = (600, 100);
const SEEDS_FULL: (u64, u64) = (18_000, 2_000);
/// Each half of the seeds runs on a thread of its own.
const THREADS: u64 = 2;
/// Within so many seeds a planted mistake is found.
const SEEDS_PER_MISTAKE: u64 = 300;

fn seeds() -> (u64, u64) {
    if std::env::var("CAIRN_FULL").is_ok_and(|v| v == "1") { SEEDS_FULL } else { SEEDS }
}

fn run_all(seeds: u64, members: usize) -> Stats {
    let each = seeds / THREADS;
    let parts: Vec<_> =
        (0..THREADS).map(|part| thread::spawn(move || run_seeds(1 + part * each, each, members))).collect();
    let mut all = Stats::default();
    for part in parts {
        let stats = part.join().expect("a seed panicked; its number is above");
        all.add(&stats.unwrap_or_else(|violation| panic!("{violation}")));
    }
    println!("seeds 1 to {seeds} of {members} members: {all:?}");
    all
}

#[test]
fn clusters_with_crashes_partitions_and_failing_disks_break_no_rule() {
    let (three, five) = seeds();
    let mut stats = run_all(three, 3);
    stats.add(&run_all(five, 5));
    let seeds = three + five;
    // What happens in a hundred seeds at least.
    let floors = [
        ("entries", stats.entries, 15_000),
        ("acknowledged", stats.acked, 12_000),
        ("answered by followers", stats.answered_by_followers, 6_000),
        ("unknown", stats.unknown, 500),
        ("reads", stats.reads, 4_000),
        ("events", stats.events, 8_000),
        ("watchers resumed", stats.resumed, 1_000),
        ("elections", stats.elections, 300),
        ("partitions", stats.partitions, 500),
        ("crashes", stats.crashes, 800),
        ("failed disks", stats.failures, 100),
        ("snapshots", stats.snapshots, 10),
        ("snapshots installed", stats.installs, 8),
        ("conflicting entries replaced", stats.truncations, 10),
        ("compactions", stats.compactions, 300),
        ("leases that ran out", stats.expired, 100),
        ("hashes", stats.hashes, 1_000),
    ];
    for (what, count, a_hundred) in floors {
        assert!(count * 100 >= a_hundred * seeds, "only {count} {what} in {seeds} seeds");
    }
    println!("score: cluster-seeds {seeds} >={seeds} ok");
}

#[test]
fn two_runs_of_one_seed_of_a_cluster_are_the_same() {
    for seed in [1, 7, 23] {
        let once = || run(seed, 3, false).unwrap_or_else(|violation| panic!("{violation}"));
        assert_eq!(once(), once(), "seed {seed}");
    }
}

/// Runs seeds until one breaks a rule or panics.
fn search(mistake: Sabotage) -> Result<(), String> {
    (1..=SEEDS_PER_MISTAKE).try_for_each(|seed| {
        let ran = catch_unwind(AssertUnwindSafe(|| World::sabotaged(seed, 3, mistake).run()));
        match ran.map_err(|panic| panic.downcast_ref::<String>().cloned().unwrap_or_default()) {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(violation)) => Err(violation.to_string()),
            Err(panic) => Err(format!("seed {seed}: panic: {panic}")),
        }
    })
}

#[test]
fn mistakes_of_a_host_in_a_cluster_are_found() {
    let mut missed = Vec::new();
    for (name, mistake) in Sabotage::OF_CLUSTERS {
        if mutants::is_wanted(name) && mutants::hunt(name, "cluster", || search(mistake)).is_none() {
            missed.push(name);
        }
    }
    assert!(missed.is_empty(), "not found within {SEEDS_PER_MISTAKE} seeds: {missed:?}");
}
