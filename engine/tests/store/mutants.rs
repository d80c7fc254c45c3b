// SPDX-License-Identifier: Apache-2.0
//! The tests of the tests: each mistake planted in the store is caught by one of them.

use cairn_engine::mutants;
use cairn_engine::sim::{Explorer, Limits};

use crate::{crash, faults, random, rot};

/// A search that finds nothing in sound code; what it found otherwise.
type Search = fn() -> Result<(), String>;

/// Each mistake with the search that must find it, and the name of that.
const CAUGHT_BY: &[(&str, &str, Search)] = &[
    ("slot-before-data", "store::crash", || power_loss("w")),
    ("checkpoint-without-sync", "store::crash", || power_loss("w")),
    ("extent-reused-one-checkpoint-early", "store::crash, bad slot", || power_loss_and_rot("w")),
    ("readers-not-asked", "store::random", histories),
    ("punch-early", "store::crash, bad slot", || power_loss_and_rot("u")),
    ("hole-not-reserved", "store::faults", full_disk),
    ("relocated-not-released", "store::crash", || power_loss("d")),
    ("truncate-early", "store::crash, bad slot", || power_loss_and_rot("d")),
    ("bitmap-in-place", "store::crash, bad slot", || power_loss_and_rot("w")),
    ("rejected-slot-kept", "store::rot", refused_slot),
    ("log-released-one-checkpoint-early", "store::crash, bad slot", || power_loss_and_rot("r")),
    ("log-released-to-the-unconfirmed", "store::crash", || power_loss("r")),
    ("log-released-beyond-the-fold", "store::crash", || power_loss("r")),
    ("name-not-synced", "store::crash", || power_loss("w")),
    ("created-in-place", "store::crash", || power_loss("w")),
    ("meta-from-newest-commit", "store::crash", || power_loss("f")),
    ("write-after-failed-sync", "store::faults", failing_calls),
];

fn explorer(images_per_point: usize) -> Explorer {
    Explorer::new(0x5ab0, Limits { images_per_point, recovery_one_in: 0, ..crash::limits() })
}

/// The lives in which `word` of the script comes up: others cannot show the mistake, and cost time.
fn lives(word: &str) -> impl Iterator<Item = &'static str> {
    crash::SCRIPTS.iter().copied().filter(move |script| script.contains(word))
}

fn power_loss(word: &str) -> Result<(), String> {
    let mut explorer = explorer(16);
    lives(word).try_for_each(|script| {
        let explored = crash::explore(&mut explorer, 1, script);
        explored.map_err(|failure| format!("script {script:?}, {}", failure.brief()))
    })
}

fn power_loss_and_rot(word: &str) -> Result<(), String> {
    let mut explorer = explorer(8);
    lives(word).try_for_each(|script| {
        let explored = crash::explore_with_a_bad_slot(&mut explorer, 2, script);
        explored.map_err(|failure| format!("script {script:?}, {}", failure.brief()))
    })
}

fn failing_calls() -> Result<(), String> {
    faults::after_a_failed_write_every_writing_call_is_refused_and_reading_goes_on();
    Ok(())
}

fn full_disk() -> Result<(), String> {
    faults::a_full_disk_shows_before_a_hole_is_written();
    Ok(())
}

fn refused_slot() -> Result<(), String> {
    let limits = Limits { images_per_point: 40, recovery_one_in: 0, ..Limits::default() };
    rot::a_refused_slot_stays_refused(&mut Explorer::new(5, limits)).map_err(|failure| failure.brief())
}

fn histories() -> Result<(), String> {
    for seed in 1..20 {
        random::history(seed, 150);
    }
    Ok(())
}

#[test]
fn every_planted_mistake_is_caught() {
    let mut missed = Vec::new();
    let elsewhere = |name: &str| name.starts_with("wal-") || name.starts_with("tree-");
    for (name, what) in mutants::ALL.iter().filter(|(name, _)| !elsewhere(name)) {
        let search = CAUGHT_BY.iter().find(|(known, ..)| known == name);
        let (_, by, search) = search.unwrap_or_else(|| panic!("{name}: no search is named that finds it"));
        if mutants::is_wanted(name) && mutants::hunt_planted(name, by, search).is_none() {
            missed.push((name, what));
        }
    }
    assert!(missed.is_empty(), "not caught: {missed:?}");
}
