// SPDX-License-Identifier: Apache-2.0
//! Seeds, and mistakes that seeds must find.
//!
//! Owns      how many seeds a run takes: few here, many with `CAIRN_FULL=1`.
//! Holds     floors: a run that did too little fails, whatever it found.
//! Never     draws a seed: they count from one, so that every run is repeated.

use cairn_engine::mutants;
use cairn_sim::{node::Sabotage, run, run_seeds, world::World};
use std::panic::{AssertUnwindSafe, catch_unwind};

const SEEDS: u64 = 150;
const SEEDS_FULL: u64 = 20_000;
/// Within so many seeds a planted mistake is found.
const SEEDS_PER_MISTAKE: u64 = 300;

fn seeds() -> u64 {
    if std::env::var("CAIRN_FULL").is_ok_and(|v| v == "1") { SEEDS_FULL } else { SEEDS }
}

#[test]
fn seeded_runs_with_crashes_and_failing_disks_break_no_rule() {
    let seeds = seeds();
    let stats = run_seeds(1, seeds).unwrap_or_else(|violation| panic!("{violation}"));
    println!("seeds 1 to {seeds}: {stats:?}");
    let floors = [
        ("entries", stats.entries, 150),
        ("acknowledged", stats.acked, 100),
        ("unknown", stats.unknown, 1),
        ("reads", stats.reads, 40),
        ("events", stats.events, 40),
        ("watchers resumed", stats.resumed, 4),
        ("crashes", stats.crashes, 3),
        ("checkpoints", stats.checkpoints, 10),
        ("compactions", stats.compactions, 2),
        ("purges", stats.purges, 1),
        ("leases that ran out", stats.expired, 2),
        ("hashes", stats.hashes, 5),
    ];
    for (what, count, a_seed) in floors {
        assert!(count >= a_seed * seeds, "only {count} {what} in {seeds} seeds");
    }
    assert!(stats.failures > seeds / 4, "only {} failed disks", stats.failures);
    assert!(stats.cut_off > seeds / 4, "only {} watchers were cut off by compaction", stats.cut_off);
    println!("score: sim-seeds {seeds} >={seeds} ok");
}

#[test]
fn two_runs_of_one_seed_are_the_same() {
    for seed in [1, 7, 23] {
        let first = run(seed, false).unwrap_or_else(|violation| panic!("{violation}"));
        assert_eq!(run(seed, false).unwrap_or_else(|violation| panic!("{violation}")), first, "seed {seed}");
    }
}

/// The first seed whose run fails, by a broken rule or by a panic.
fn found(run: impl Fn(u64) -> bool) -> Option<u64> {
    (1..=SEEDS_PER_MISTAKE).find(|seed| !catch_unwind(AssertUnwindSafe(|| run(*seed))).unwrap_or(false))
}

#[test]
fn mistakes_of_a_host_are_found() {
    use Sabotage::*;
    for mistake in [DurableBeforeSync, ReadBeforeLead, WatchersForgotten, ClockAhead, ProposedTwice] {
        let seed = found(|seed| World::sabotaged(seed, mistake).run().is_ok());
        println!("{mistake:?}: found by seed {seed:?}");
        assert!(seed.is_some(), "{mistake:?} is not found within {SEEDS_PER_MISTAKE} seeds");
    }
}

#[test]
fn mistakes_of_the_engine_are_found() {
    // The others need images that no draw of a crash hits often: the crash explorer finds them.
    let mistakes = [
        "wal-sync-skipped",
        "wal-segment-named-before-sync",
        "wal-segment-name-not-synced",
        "wal-segment-released-early",
        "wal-recovered-tail-not-synced",
        "checkpoint-without-sync",
        "readers-not-asked",
        "log-released-to-the-unconfirmed",
        "created-without-directory-sync",
    ];
    for mistake in mistakes {
        let seed = found(|seed| mutants::with(mistake, || World::new(seed, false).run().is_ok()));
        println!("{mistake}: found by seed {seed:?}");
        assert!(seed.is_some(), "{mistake} is not found within {SEEDS_PER_MISTAKE} seeds");
    }
}
