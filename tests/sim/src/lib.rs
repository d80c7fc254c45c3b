// SPDX-License-Identifier: Apache-2.0
//! The deterministic simulator of the server core: members, their disks, network and clients on one thread.
//!
//! Owns      the order of everything: which thread of which member goes next, what clients ask, when messages
//!           arrive, when a disk fails and the power goes, all drawn from one seed.
//! Holds     the same seed gives the same run, byte for byte; see [`world::World`] for what is checked.
//! Never     starts a thread, reads a clock, or looks into a machine that it drives.

pub mod model;
pub mod net;
pub mod node;
pub mod stats;
pub mod swarm;
pub mod traffic;
pub mod watcher;
pub mod world;

use stats::Stats;
use world::{Violation, World};

/// Runs one seed and gives what was done, and the digest of the run.
///
/// # Errors
/// The first broken rule.
pub fn run(seed: u64, members: usize, trace: bool) -> Result<(Stats, u64), Violation> {
    let mut world = World::new(seed, members, trace);
    let digest = world.run()?;
    Ok((world.stats, digest))
}

/// Runs seeds from `first` on; one in a hundred twice, to see that the runs agree.
///
/// # Errors
/// The first broken rule, or a seed whose two runs differ.
pub fn run_seeds(first: u64, count: u64, members: usize) -> Result<Stats, Violation> {
    let mut all = Stats::default();
    for seed in first..first + count {
        let (stats, digest) = run(seed, members, false)?;
        if seed.is_multiple_of(100) && run(seed, members, false)?.1 != digest {
            let what = "two runs of one seed differ".to_owned();
            return Err(Violation { seed, members, step: 0, what });
        }
        all.add(&stats);
    }
    Ok(all)
}
