// SPDX-License-Identifier: Apache-2.0
//! Mistakes that seeds must find: in hosts, in the core, in the store under it.
//!
//! Owns      which seeds look for which mistake. The crash explorer of the engine finds those that are about images of
//!           a disk which no draw of a crash hits often.
//! Holds     each is found within [`SEEDS_MAX`] seeds, counted from one.
//! Never     looks for all of them unless asked with `CAIRN_MUTANTS=all` or `CAIRN_FULL=1`: every run of the tests looks for those that
//!           are found at once.

use cairn_engine::mutants::{self, hunt, hunt_planted};
use cairn_sim::{bare, node::Sabotage, run, swarm::Founders, world::World};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Seeds within which a mistake must be found.
const SEEDS_MAX: u64 = 5_000;
/// Those in which a run of all tests looks for it, if it is quick.
const SEEDS_QUICK: u64 = 60;
/// The same of replicas alone, of which a seed takes a few milliseconds.
const SEEDS_QUICK_RAFT: u64 = 150;

/// Those in which it looks for the mistakes of hosts.
const SEEDS_HOST: u64 = 300;

/// Where a mistake is looked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum In {
    /// Seeds of a single member.
    Member,
    /// Seeds of clusters.
    Cluster,
    /// Seeds of replicas alone.
    Raft,
}

impl In {
    fn name(self) -> &'static str {
        match self {
            In::Member => "sim",
            In::Cluster => "cluster",
            In::Raft => "raft",
        }
    }
}

/// Each mistake, where it is looked for, and whether it is found in a few seeds.
const MISTAKES: &[(&str, In, bool)] = &[
    ("messages-before-their-term-is-durable", In::Raft, false),
    ("messages-sent-with-the-write-before-theirs", In::Raft, false),
    ("campaign-during-a-write-of-the-log", In::Raft, true),
    ("acknowledged-before-the-sync", In::Raft, true),
    ("vote-forgotten", In::Raft, false),
    ("commit-behind-applied-at-open", In::Cluster, true),
    ("kept-request-found-by-index-alone", In::Cluster, false),
    ("proposed-again-to-the-next-leader", In::Raft, true),
    ("read-answered-by-a-new-leader", In::Raft, true),
    ("read-context-reused", In::Raft, true),
    ("read-context-of-another-boot", In::Raft, true),
    ("promotion-not-told-to-raft", In::Raft, false),
    ("learner-counted", In::Raft, true),
    ("removed-id-forgotten", In::Cluster, true),
    ("old-snapshot-installed", In::Cluster, true),
    ("announced-what-is-not-durable", In::Raft, false),
    ("deposed-leader-ends-leases", In::Cluster, true),
    ("lease-not-extended-by-a-new-leader", In::Cluster, true),
    ("end-of-any-lease-of-that-id", In::Cluster, true),
    ("ended-lease-kept-alive", In::Cluster, true),
    ("repair-drops-the-log", In::Cluster, true),
    ("repair-keeps-an-old-term", In::Cluster, false),
    ("repair-takes-an-old-store", In::Cluster, false),
    ("revoke-leaves-a-key", In::Member, true),
    ("alarm-not-stored", In::Member, true),
    ("change-of-users-not-stored", In::Cluster, true),
    ("watch-compaction-passed-over", In::Member, true),
    ("watch-progress-while-lagging", In::Member, true),
    ("watch-begins-one-revision-late", In::Cluster, true),
    ("watch-future-start-ignored", In::Member, true),
    ("watch-lagging-dropped", In::Member, false),
    ("watch-revision-in-two-responses", In::Member, true),
    ("revision-from-the-newest-record", In::Member, false),
    ("tombstone-at-the-compact-revision-purged", In::Member, false),
    ("txn-range-not-checked", In::Member, true),
    ("wal-sync-skipped", In::Member, false),
    ("wal-segment-named-before-sync", In::Member, false),
    ("wal-segment-name-not-synced", In::Member, false),
    ("wal-segment-released-early", In::Member, false),
    ("wal-recovered-tail-not-synced", In::Member, false),
    ("wal-voided-entries-revived", In::Cluster, false),
    ("wal-install-not-noticed", In::Cluster, false),
    ("wal-loss-taken-for-a-torn-tail", In::Cluster, true),
    ("checkpoint-without-sync", In::Member, false),
    ("log-released-to-the-unconfirmed", In::Member, false),
    ("log-released-beyond-the-fold", In::Member, true),
    ("name-not-synced", In::Member, false),
];

fn all() -> bool {
    let set = |name: &str, to: &str| std::env::var(name).is_ok_and(|v| v == to);
    set("CAIRN_MUTANTS", "all") || set("CAIRN_FULL", "1")
}

fn seeds(quick: u64) -> u64 {
    if all() { SEEDS_MAX } else { quick }
}

/// Runs seeds until one breaks a rule or panics.
fn search(seeds: u64, mut one: impl FnMut(u64) -> Result<(), String>) -> Result<(), String> {
    (1..=seeds).try_for_each(|seed| {
        let ran = catch_unwind(AssertUnwindSafe(|| one(seed)));
        ran.unwrap_or_else(|panic| Err(format!("seed {seed}: panic: {}", cairn_sim::text_of(&*panic))))
    })
}

fn whole(world: World) -> Result<(), String> {
    run(world).map(drop).map_err(|violation| violation.to_string())
}

fn look(place: In) -> Result<(), String> {
    let quick = if place == In::Raft { SEEDS_QUICK_RAFT } else { SEEDS_QUICK };
    search(seeds(quick), |seed| match place {
        In::Member => whole(World::new(seed, Founders::Of(1), false)),
        In::Cluster => whole(World::new(seed, Founders::Drawn, false)),
        In::Raft => bare::run(seed).map(drop),
    })
}

/// Looks for the mistakes that are wanted, and names those that were not found.
fn missed<'a>(mistakes: impl Iterator<Item = &'a (&'static str, In, bool)>) -> Vec<&'static str> {
    // A panic is a way to find one.
    std::panic::set_hook(Box::new(|_| ()));
    let wanted = mistakes.filter(|(name, _, quick)| mutants::is_wanted(name) && (*quick || all()));
    let missed =
        wanted.filter(|(name, place, _)| hunt_planted(name, place.name(), || look(*place)).is_none());
    missed.map(|(name, ..)| *name).collect()
}

#[test]
fn mistakes_in_the_core_and_the_store_are_found() {
    let missed = missed(MISTAKES.iter());
    assert!(missed.is_empty(), "not found: {missed:?}");
    let looked = MISTAKES.iter().filter(|(.., quick)| *quick || all()).count();
    println!("score: mistakes-found {looked} >={looked} ok");
}

#[test]
fn every_mistake_of_the_core_has_seeds_that_look_for_it() {
    let listed = cairn_core::mutants::ALL.iter().chain(cairn_mvcc::mutants::ALL);
    for (name, _) in listed {
        assert!(MISTAKES.iter().any(|(known, ..)| known == name), "nobody looks for {name}");
    }
    let quick = MISTAKES.iter().filter(|(.., quick)| *quick).count();
    assert!(quick >= 8, "{quick} are looked for in every run");
}

#[test]
fn mistakes_of_a_host_are_found() {
    let clusters = Sabotage::OF_CLUSTERS.iter().map(|one| (one, Founders::Drawn, "cluster"));
    let members = Sabotage::ALL.iter().map(|one| (one, Founders::Of(1), "sim"));
    let mut missed = Vec::new();
    for ((name, mistake), founders, by) in clusters.chain(members) {
        let look = || search(seeds(SEEDS_HOST), |seed| whole(World::sabotaged(seed, founders, *mistake)));
        if mutants::is_wanted(name) && hunt(name, by, look).is_none() {
            missed.push(name);
        }
    }
    assert!(missed.is_empty(), "not found: {missed:?}");
}
