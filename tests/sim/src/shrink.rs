// SPDX-License-Identifier: Apache-2.0
//! From a run that fails to a short one that fails too.
//!
//! Owns      the search for steps that can be left out: each step draws from a source of its own, so the others do
//!           the same without it.
//! Holds     what it gives fails.
//! Never     runs for ever: runs are counted.

use std::fmt::Write as _;

/// Runs that a search may take.
const RUNS_MAX: usize = 400;

/// Leaves out steps while the run still fails. `fails` runs with some steps alone, and gives what is wrong then.
/// `None` if it does not fail even with all of them.
pub fn shrink<V>(steps: Vec<u64>, mut fails: impl FnMut(&[u64]) -> Option<V>) -> Option<(Vec<u64>, V)> {
    let mut kept = steps;
    let mut found = fails(&kept)?;
    let mut runs = 1;
    let mut part = kept.len().div_ceil(2);
    while part > 0 && runs < RUNS_MAX {
        let mut at = 0;
        while at < kept.len() && runs < RUNS_MAX {
            let end = (at + part).min(kept.len());
            let without = [&kept[..at], &kept[end..]].concat();
            runs += 1;
            match fails(&without) {
                Some(other) => (kept, found) = (without, other),
                None => at = end,
            }
        }
        part /= 2;
    }
    Some((kept, found))
}

/// Steps as `3,7-9`.
pub fn listed(steps: &[u64]) -> String {
    let mut out = String::new();
    for run in steps.chunk_by(|a, b| a + 1 == *b) {
        let comma = if out.is_empty() { "" } else { "," };
        match run {
            [one] => write!(out, "{comma}{one}"),
            _ => write!(out, "{comma}{}-{}", run[0], run[run.len() - 1]),
        }
        .expect("a string takes all that is written");
    }
    out
}

/// Reads what [`listed`] writes.
///
/// # Errors
/// What is no number.
pub fn read(list: &str) -> Result<Vec<u64>, String> {
    let number = |text: &str| text.parse::<u64>().map_err(|e| format!("step {text:?}: {e}"));
    let mut steps = Vec::new();
    for part in list.split(',').filter(|part| !part.is_empty()) {
        match part.split_once('-') {
            None => steps.push(number(part)?),
            Some((from, to)) => steps.extend(number(from)?..=number(to)?),
        }
    }
    Ok(steps)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_what_it_takes_to_fail() {
        let fails = |steps: &[u64]| [17, 40, 41].iter().all(|s| steps.contains(s)).then_some(steps.len());
        assert_eq!(shrink((0..1000).collect(), fails), Some((vec![17, 40, 41], 3)));
        assert_eq!(shrink((0..40).collect(), fails), None);
    }

    #[test]
    fn a_list_of_steps_comes_back() {
        let steps = vec![1, 2, 3, 9, 11, 12];
        assert_eq!(listed(&steps), "1-3,9,11-12");
        assert_eq!(read("1-3,9,11-12").expect("a list"), steps);
        assert_eq!(read("").expect("none"), [0; 0]);
        read("x").expect_err("no number");
    }
}
