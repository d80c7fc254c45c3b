// SPDX-License-Identifier: Apache-2.0
//! The tests of the tests: each mistake planted in the store is caught by one of them.

use std::panic::{AssertUnwindSafe, catch_unwind};

use cairn_engine::mutants;
use cairn_engine::sim::{Explorer, Limits};

use crate::{crash, faults, random, rot};

/// A search that finds nothing in sound code; what it found otherwise.
type Search = fn() -> Result<(), String>;

/// Each mistake with the search that must find it.
const CAUGHT_BY: &[(&str, Search)] = &[
    ("slot-before-data", power_loss),
    ("checkpoint-without-sync", power_loss),
    ("extent-reused-one-checkpoint-early", power_loss_and_rot),
    ("readers-not-asked", histories),
    ("punch-early", power_loss_and_rot),
    ("hole-not-reserved", full_disk),
    ("relocated-not-released", power_loss),
    ("truncate-early", power_loss_and_rot),
    ("bitmap-in-place", power_loss_and_rot),
    ("rejected-slot-kept", refused_slot),
    ("log-released-one-checkpoint-early", power_loss_and_rot),
    ("log-released-to-the-unconfirmed", power_loss),
    ("name-not-synced", power_loss),
    ("created-in-place", power_loss),
    ("meta-from-newest-commit", power_loss),
    ("write-after-failed-sync", failing_calls),
];

fn explorer(images_per_point: usize) -> Explorer {
    Explorer::new(0x5ab0, Limits { images_per_point, recovery_one_in: 0, ..crash::limits() })
}

fn power_loss() -> Result<(), String> {
    let mut explorer = explorer(16);
    for script in crash::SCRIPTS {
        crash::explore(&mut explorer, 1, script).map_err(|failure| failure.to_string())?;
    }
    Ok(())
}

fn power_loss_and_rot() -> Result<(), String> {
    let mut explorer = explorer(8);
    for script in crash::SCRIPTS {
        crash::explore_with_a_bad_slot(&mut explorer, 2, script).map_err(|failure| failure.to_string())?;
    }
    Ok(())
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
    rot::a_refused_slot_stays_refused(&mut Explorer::new(5, limits)).map_err(|failure| failure.to_string())
}

fn histories() -> Result<(), String> {
    for seed in 1..20 {
        random::history(seed, 150);
    }
    Ok(())
}

#[test]
fn every_planted_mistake_is_caught() {
    for (name, what) in mutants::ALL.iter().filter(|(name, _)| !name.starts_with("wal-")) {
        let search = CAUGHT_BY.iter().find(|(known, _)| known == name).map(|(_, search)| search);
        let search = search.unwrap_or_else(|| panic!("{name}: no test is named that catches it"));
        let found = mutants::with(name, || catch_unwind(AssertUnwindSafe(search)));
        match found {
            Ok(Ok(())) => panic!("{name}: nobody noticed that {what}"),
            Ok(Err(failure)) => println!("{name}: {}", failure.lines().next().unwrap_or_default()),
            Err(_) => println!("{name}: an assertion"),
        }
    }
}
