// SPDX-License-Identifier: Apache-2.0
//! The tests are tested: each mistake planted in the trees is caught.

use cairn_engine::mutants;

use crate::damage;

#[test]
fn every_planted_mistake_is_caught() {
    let searches: [fn(); 2] = [
        damage::pages_zeroed_swapped_stale_foreign_or_torn_are_found,
        damage::every_flipped_byte_is_found_or_does_not_matter,
    ];
    let mut missed = Vec::new();
    for (name, what) in mutants::ALL.iter().filter(|(name, _)| name.starts_with("tree-")) {
        if !mutants::is_wanted(name) {
            continue;
        }
        let found = mutants::hunt_planted(name, "tree::damage", || {
            searches.iter().for_each(|search| search());
            Ok(())
        });
        if found.is_none() {
            missed.push((name, what));
        }
    }
    assert!(missed.is_empty(), "not caught: {missed:?}");
}
