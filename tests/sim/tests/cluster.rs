// SPDX-License-Identifier: Apache-2.0
//! Seeds of clusters.
//!
//! Owns      how many seeds a run takes: few here, many with `CAIRN_FULL=1`.
//! Holds     floors: a run in which too little went wrong, or too little was done, fails.
//! Never     draws a seed: they count from one, so that every run is repeated.

use cairn_engine::marks;
use cairn_sim::{
    node::Sabotage,
    run, run_seeds, shrunk,
    stats::Stats,
    swarm::Founders,
    world::{Violation, World},
};
use std::thread;

const SEEDS: u64 = 4_000;
const SEEDS_FULL: u64 = 20_000;
/// Each half of the seeds runs on a thread of its own.
const THREADS: u64 = 2;
/// Time that passes for the members of all [`SEEDS`].
const DAYS_MIN: f64 = 3.0;
/// How late a lease may end while there is a leader that nothing holds up: two elections. A new leader gives it one.
const LEASE_LATE_MS_MAX: u64 = 2_000;
const DAY_MS: f64 = 86_400_000.0;

fn seeds() -> u64 {
    if std::env::var("CAIRN_FULL").is_ok_and(|v| v == "1") { SEEDS_FULL } else { SEEDS }
}

fn run_all(seeds: u64) -> Stats {
    let each = seeds / THREADS;
    let parts: Vec<_> = (0..THREADS)
        .map(|part| thread::spawn(move || run_seeds(1 + part * each, each, Founders::Drawn)))
        .collect();
    let mut all = Stats::default();
    for part in parts {
        let stats = part.join().expect("a seed panicked; its number is above");
        all.add(&stats.unwrap_or_else(|violation| failed(&violation)));
    }
    println!("seeds 1 to {seeds}: {all:?}");
    all
}

/// Says what is wrong, and in how few steps.
fn failed(violation: &Violation) -> ! {
    let small = shrunk(violation).map(|small| format!("\nin fewer steps:\n{small}"));
    panic!("{violation}{}", small.unwrap_or_default());
}

// rule: BO-7, CL-2, CL-4, LR-1
#[test]
fn clusters_with_crashes_partitions_and_failing_disks_break_no_rule() {
    let seeds = seeds();
    let stats = run_all(seeds);
    // What happens in a hundred seeds at least.
    let floors = [
        ("entries", stats.entries, 15_000),
        ("acknowledged", stats.acked, 12_000),
        ("answered by followers", stats.answered_by_followers, 6_000),
        ("unknown", stats.unknown, 500),
        ("reads", stats.reads, 4_000),
        ("events", stats.events, 5_000),
        ("watchers resumed", stats.resumed, 1_000),
        ("elections", stats.elections, 300),
        ("partitions", stats.partitions, 500),
        ("crashes", stats.crashes, 800),
        ("failed disks", stats.failures, 100),
        ("snapshots", stats.snapshots, 50),
        ("snapshots installed", stats.installs, 30),
        ("snapshots that came when their receiver was further on", stats.snapshots_late, 10),
        ("conflicting entries replaced", stats.truncations, 20),
        ("compactions", stats.compactions, 300),
        ("leases that ran out", stats.expired, 120),
        ("leases whose ends were timed", stats.leases_timed, 60),
        ("members that joined", stats.joined, 40),
        ("leases whose ids were given to others while they ended", stats.leases_anew, 10),
        ("learners promoted", stats.promoted, 10),
        ("members removed", stats.removed, 30),
        ("machines lost", stats.lost, 14),
        ("pauses", stats.pauses, 300),
        ("installs cut by a failed call", stats.installs_cut, 4),
        ("entries held against other logs", stats.matched, 15_000),
        ("hashes", stats.hashes, 1_000),
        ("runs that were the same again", stats.repeated, 1),
    ];
    for (what, count, a_hundred) in floors {
        assert!(count * 100 >= a_hundred * seeds, "only {count} {what} in {seeds} seeds");
    }
    println!("score: cluster-seeds {seeds} >={seeds} ok");
    let (days, days_min) = (stats.simulated_ms as f64 / DAY_MS, DAYS_MIN * seeds as f64 / SEEDS as f64);
    assert!(days >= days_min, "only {days} days");
    println!("score: cluster-simulated-days {days:.1} >={days_min:.1} ok");
    println!("score: cluster-runs-that-were-the-same-again {} >={} ok", stats.repeated, seeds / 100);
    // Each of them is held against the time that it was given.
    println!("score: leases-that-ended-and-not-early {} >={} ok", stats.expired, seeds * 120 / 100);
    let Stats { leases_timed, lease_late_ms, .. } = stats;
    println!("{leases_timed} leases were timed: the latest ended {lease_late_ms} ms after its time");
    assert!(lease_late_ms <= LEASE_LATE_MS_MAX, "a lease ended {lease_late_ms} ms late");
    println!("score: lease-late-ms {lease_late_ms} <={LEASE_LATE_MS_MAX} ok");
    every_branch_was_taken();
}

/// Every branch of recovery is taken in one run or another.
fn every_branch_was_taken() {
    let (all, taken) = (marks::ALL.iter().chain(cairn_core::marks::ALL), marks::taken());
    println!("branches of recovery: {taken:?}");
    let missed: Vec<_> =
        all.clone().map(|(name, _)| *name).filter(|name| !taken.contains_key(name)).collect();
    assert!(missed.is_empty(), "no run took {missed:?}");
    println!("score: branches-of-recovery-taken {} >={} ok", taken.len(), all.count());
}

#[test]
fn two_runs_of_one_seed_of_a_cluster_are_the_same() {
    for seed in [1, 7, 23] {
        let once = || {
            run(World::new(seed, Founders::Drawn, false)).unwrap_or_else(|violation| panic!("{violation}"))
        };
        assert_eq!(once(), once(), "seed {seed}");
    }
}

#[test]
fn a_run_that_fails_is_made_short_and_fails_again() {
    let broken = |seed| World::sabotaged(seed, Founders::Drawn, Sabotage::ReadBeforeLead);
    let violation = (1..100).find_map(|seed| run(broken(seed)).err()).expect("the mistake is found at once");
    let all: Vec<u64> = (0..=violation.step).collect();
    let fails = |steps: &[u64]| run(broken(violation.seed).with_steps(steps.to_vec())).err();
    let (steps, small) = cairn_sim::shrink::shrink(all, fails).expect("it fails with the same steps");
    assert!(steps.len() < 200, "{} steps", steps.len());
    let again = fails(&steps).expect("it fails again");
    assert_eq!((again.to_string(), again.taken), (small.to_string(), Some(steps)));
}

/// Those of the runs in which clients are users, and change users.
const SEEDS_OF_USERS: u64 = 200;
/// Those in which stores of a minority rot.
const SEEDS_OF_ROT: u64 = 200;
/// Stores that are found damaged in them, and have to be whole again.
const REPAIRS: u64 = 200;
/// Those in which logs of a minority rot.
const SEEDS_OF_LOG_ROT: u64 = 300;
/// Members that do not start over theirs, and have to be replaced.
const REPLACEMENTS: u64 = 200;

// rule: AU-4, AU-20, AU-21
#[test]
fn r03_users_rights_and_the_auth_revision_are_the_same_on_all_members() {
    let mut all = Stats::default();
    let seeds = (1..).filter(|seed| World::new(*seed, Founders::Drawn, false).has_users());
    for seed in seeds.take(SEEDS_OF_USERS as usize) {
        let (stats, _) = run(World::new(seed, Founders::Drawn, false)).unwrap_or_else(|v| failed(&v));
        all.add(&stats);
    }
    println!("{SEEDS_OF_USERS} seeds with users: {all:?}");
    // What happens in a hundred seeds at least.
    let floors = [
        ("changes of users", all.users_changed, 500),
        ("requests without rights", all.without_rights, 200),
        ("members compared while authentication is on", all.users_held, 500),
        ("crashes", all.crashes, 800),
        ("snapshots installed", all.installs, 30),
        ("leases that ran out", all.expired, 60),
    ];
    for (what, count, a_hundred) in floors {
        assert!(count * 100 >= a_hundred * SEEDS_OF_USERS, "only {count} {what} in {SEEDS_OF_USERS} seeds");
    }
}

// R30 of the test plan.
#[test]
fn r30_a_minority_whose_stores_rot_is_whole_again_without_an_operator() {
    let mut all = Stats::default();
    let seeds = (1..).filter(|seed| World::new(*seed, Founders::Drawn, false).has_rot());
    for seed in seeds.take(SEEDS_OF_ROT as usize) {
        let (stats, _) = run(World::new(seed, Founders::Drawn, false)).unwrap_or_else(|v| failed(&v));
        all.add(&stats);
    }
    println!("{SEEDS_OF_ROT} seeds with rot: {all:?}");
    let Stats { rotted, rot_unmet, rot_found, repaired, .. } = all;
    println!("{rotted} stores rotted: {rot_found} were found, {rot_unmet} where nothing is");
    assert!(repaired >= rot_found, "{rot_found} stores were damaged, {repaired} were replaced");
    println!("score: minority damage repaired {repaired} >={REPAIRS} ok");
    assert!(repaired >= REPAIRS, "only {repaired} of {rotted}");
}

// R30 of the test plan.
#[test]
fn r30_a_minority_whose_logs_rot_forgets_nothing_or_is_replaced() {
    let mut all = Stats::default();
    let seeds = (1..).filter(|seed| World::new(*seed, Founders::Drawn, false).has_log_rot());
    for seed in seeds.take(SEEDS_OF_LOG_ROT as usize) {
        let (stats, _) = run(World::new(seed, Founders::Drawn, false)).unwrap_or_else(|v| failed(&v));
        all.add(&stats);
    }
    println!("{SEEDS_OF_LOG_ROT} seeds with logs that rot: {all:?}");
    let floors = [
        ("sealed segments", all.logs_rotted_sealed, 50),
        ("newest segments", all.logs_rotted_newest, 50),
        ("newest batches", all.logs_rotted_last, 50),
        ("logs that were whole where they are needed", all.logs_unharmed, 50),
    ];
    for (what, count, floor) in floors {
        assert!(count >= floor, "only {count} {what} in {SEEDS_OF_LOG_ROT} seeds");
    }
    let Stats { logs_lost, logs_replaced, .. } = all;
    assert_eq!(logs_lost, logs_replaced);
    println!("score: members-replaced-for-a-damaged-log {logs_replaced} >={REPLACEMENTS} ok");
    assert!(logs_replaced >= REPLACEMENTS, "only {logs_replaced}");
}
