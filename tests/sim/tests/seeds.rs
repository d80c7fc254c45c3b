// SPDX-License-Identifier: Apache-2.0
//! Seeds of one member.
//!
//! Owns      how many seeds a run takes: few here, many with `CAIRN_FULL=1`.
//! Holds     floors: a run that did too little fails, whatever it found.
//! Never     draws a seed: they count from one, so that every run is repeated.

use cairn_sim::{
    run, run_seeds,
    swarm::{Founders, Moment},
    world::World,
};

const SEEDS: u64 = 150;
const SEEDS_FULL: u64 = 20_000;

fn seeds() -> u64 {
    if std::env::var("CAIRN_FULL").is_ok_and(|v| v == "1") { SEEDS_FULL } else { SEEDS }
}

#[test]
fn seeded_runs_with_crashes_and_failing_disks_break_no_rule() {
    let seeds = seeds();
    let stats = run_seeds(1, seeds, Founders::Of(1)).unwrap_or_else(|violation| panic!("{violation}"));
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
        ("sorted ranges", stats.sorted, 5),
        ("alarms", stats.alarms, 1),
        ("requests that an alarm forbade", stats.forbidden, 1),
    ];
    for (what, count, a_seed) in floors {
        assert!(count >= a_seed * seeds, "only {count} {what} in {seeds} seeds");
    }
    let rare = [
        ("requests over the quota", stats.over_quota),
        ("defragmentations", stats.defragmentations),
        ("responses in pieces", stats.fragmented),
    ];
    let moments =
        Moment::ALL.iter().zip(stats.crashes_at).map(|(moment, count)| (format!("{moment:?}"), count));
    for (what, count) in rare.map(|(what, count)| (what.to_owned(), count)).into_iter().chain(moments) {
        assert!(count >= seeds / 4, "only {count} {what} in {seeds} seeds");
    }
    assert!(stats.failures > seeds / 4, "only {} failed disks", stats.failures);
    assert!(stats.cut_off > seeds / 4, "only {} watchers were cut off by compaction", stats.cut_off);
    println!("score: sim-seeds {seeds} >={seeds} ok");
}

#[test]
fn two_runs_of_one_seed_are_the_same() {
    for seed in [1, 7, 23] {
        let first =
            run(World::new(seed, Founders::Of(1), false)).unwrap_or_else(|violation| panic!("{violation}"));
        assert_eq!(
            run(World::new(seed, Founders::Of(1), false)).unwrap_or_else(|violation| panic!("{violation}")),
            first,
            "seed {seed}"
        );
    }
}
