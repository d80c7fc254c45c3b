// SPDX-License-Identifier: Apache-2.0
//! The deterministic simulator of the server core: members, their disks, network and clients on one thread.
//!
//! Owns      the order of everything: which thread of which member goes next, what clients ask, when messages
//!           arrive, when a disk fails and the power goes, all drawn from one seed.
//! Holds     the same seed gives the same run, byte for byte; see [`world::World`] for what is checked.
//! Never     starts a thread, reads a clock, or looks into a machine that it drives.

pub mod bare;
pub mod digest;
pub mod model;
pub mod net;
pub mod node;
pub mod shrink;
pub mod stats;
pub mod swarm;
pub mod traffic;
pub mod users;
pub mod watcher;
pub mod world;

use stats::Stats;
use std::panic::{AssertUnwindSafe, catch_unwind};
use swarm::Founders;
use world::{Violation, World};

/// Runs one seed and gives what was done, and the digest of the run. A panic is a broken rule too.
///
/// # Errors
/// The first broken rule.
pub fn run(mut world: World) -> Result<(Stats, u64), Violation> {
    let ran = catch_unwind(AssertUnwindSafe(|| world.run()));
    let digest = ran.unwrap_or_else(|panic| Err(world.violation(format!("panic: {}", text_of(&*panic)))))?;
    Ok((world.stats, digest))
}

/// What a panic says.
pub fn text_of(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("without a text")
}

/// Runs seeds from `first` on; one in a hundred twice, to see that the runs agree.
///
/// # Errors
/// The first broken rule, or a seed whose two runs differ.
pub fn run_seeds(first: u64, count: u64, founders: Founders) -> Result<Stats, Violation> {
    let mut all = Stats::default();
    for seed in first..first + count {
        let once = || run(World::new(seed, founders, false));
        let (stats, digest) = once()?;
        if seed.is_multiple_of(100) {
            if once()?.1 != digest {
                let what = "two runs of one seed differ".to_owned();
                return Err(Violation { seed, founders, step: 0, taken: None, what });
            }
            all.repeated += 1;
        }
        all.add(&stats);
    }
    Ok(all)
}

/// The same failure in as few steps as can be found; `None` if it does not come again.
pub fn shrunk(violation: &Violation) -> Option<Violation> {
    let Violation { seed, founders, step, ref taken, .. } = *violation;
    let world = || World::new(seed, founders, false);
    let fails = |steps: &[u64]| run(world().with_steps(steps.to_vec())).err();
    let all = taken.clone().unwrap_or_else(|| (0..world().steps()).collect());
    let until: Vec<u64> = all.iter().copied().filter(|one| *one <= step).collect();
    let found = shrink::shrink(until, fails).or_else(|| shrink::shrink(all, fails));
    found.map(|(_, violation)| violation)
}
