// SPDX-License-Identifier: Apache-2.0
//! How much a random test does, and from which seed.
//!
//! Owns      the choice between CI's numbers and the large ones of `cargo xtask full`, and the seeds.
//! Holds     a seed is printed before it is used; `CAIRN_SEED` replays it.
//! Never     lowers a number because a machine is slow.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Whether it runs for `cargo xtask full`, under `CAIRN_FULL=1`.
pub fn is_full() -> bool {
    std::env::var_os("CAIRN_FULL").is_some_and(|v| v == "1")
}

/// CI's number, or the large one.
pub fn count(ci: usize, full: usize) -> usize {
    if is_full() { full } else { ci }
}

/// A seed nobody chose, or that of `CAIRN_SEED`; printed either way.
pub fn seed() -> u64 {
    let seed = match std::env::var("CAIRN_SEED") {
        Ok(text) => text.parse().expect("CAIRN_SEED is a number"),
        Err(_) => {
            SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos() as u64) % 1_000_000_000
        }
    };
    println!("seed: CAIRN_SEED={seed}");
    seed
}

/// Prints a figure of the scorecard and says whether it meets its floor.
pub fn score(name: &str, value: usize, floor: usize) -> bool {
    let ok = value >= floor;
    println!("score: {name} {value} >={floor} {}", if ok { "ok" } else { "miss" });
    ok
}

/// Prints a time of the scorecard, and whether it meets its target. It fails nothing: the machine may be shared.
pub fn time(name: &str, value: Duration, target: Duration) {
    let verdict = if value <= target { "ok" } else { "miss" };
    println!("score: {name} {} ms <={} ms {verdict}", value.as_millis(), target.as_millis());
}
