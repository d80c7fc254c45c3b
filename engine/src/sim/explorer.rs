// SPDX-License-Identifier: Apache-2.0
//! The search: run a workload once, then check what a crash at each of its moments may leave.
//!
//! Owns      the order of the search, the set of images already seen, and the report.
//! Holds     1. an image is checked again only if more was acknowledged than when it was checked first;
//!           2. a sample of the images is crashed again inside the check, at every change that it makes;
//!           3. a panic of the check is a failure of that image, not of the search.
//! Never     decides what a right image is: the check does.

use std::any::Any;
use std::collections::hash_map::{Entry, HashMap};
use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::crash::{Fate, Point, Selection, cause};
use super::fault::Fault;
use super::rng::SplitMix;
use super::vfs::SimVfs;

/// The phase under which images of a crash during the check's own recovery are counted.
const IN_RECOVERY: &str = "in-recovery";

/// Bounds of the search.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Images built at one crash point.
    pub images_per_point: usize,
    /// With at most this many pending changes, every subset of them is tried.
    pub subsets_up_to: usize,
    /// One image in so many is crashed again during its recovery; 0 = none.
    pub recovery_one_in: u64,
    /// Images built at one crash point of a recovery.
    pub images_per_recovery_point: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { images_per_point: 300, subsets_up_to: 7, recovery_one_in: 16, images_per_recovery_point: 24 }
    }
}

/// What a search did.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Moments at which the power was cut.
    pub points: u64,
    /// Images built.
    pub images: u64,
    /// Images that were checked, twice if more was acknowledged the second time.
    pub checks: u64,
    /// Different images, by what is on them.
    pub distinct: u64,
    /// The different images by cause (torn, dropped, reordered, whole) and by the phase they came from. One
    /// that can come about in several ways counts under each of them.
    pub by_cause: BTreeMap<&'static str, u64>,
}

impl Report {
    /// The different images counted under `cause`.
    pub fn of(&self, cause: &str) -> u64 {
        self.by_cause.get(cause).copied().unwrap_or(0)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} crash points, {} images, {} distinct, {} checks:",
            self.points, self.images, self.distinct, self.checks
        )?;
        for (cause, count) in &self.by_cause {
            write!(f, " {cause} {count}")?;
        }
        Ok(())
    }
}

/// An image that failed its check, with all that is needed to build it again.
#[derive(Clone, Debug)]
pub struct Failure {
    /// What the check said, or the message of its panic.
    pub message: String,
    /// The seed of the explorer.
    pub seed: u64,
    /// Where and how the image came about: phase, marks, and the fate of each pending change.
    pub image: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\nseed {}\n{}", self.message, self.seed, self.image)
    }
}

impl std::error::Error for Failure {}

impl Failure {
    /// Where and what, on one line.
    pub fn brief(&self) -> String {
        let line = |text: &str| text.lines().next().unwrap_or_default().to_owned();
        format!("seed {}, {}: {}", self.seed, line(&self.image), line(&self.message))
    }
}

/// A search through crash images. One explorer can run many workloads, and counts over all of them.
#[derive(Debug)]
pub struct Explorer {
    seed: u64,
    rng: SplitMix,
    limits: Limits,
    /// By hash of the image: the largest `acked` and the smallest `submitted` it was checked with.
    seen: HashMap<u64, (u64, u64)>,
    distinct: HashSet<u64>,
    by_cause: HashSet<(&'static str, u64)>,
    report: Report,
}

impl Explorer {
    /// A search whose choices follow from `seed`.
    pub fn new(seed: u64, limits: Limits) -> Explorer {
        Explorer {
            seed,
            rng: SplitMix::new(seed),
            limits,
            seen: HashMap::new(),
            distinct: HashSet::new(),
            by_cause: HashSet::new(),
            report: Report::default(),
        }
    }

    /// What was done so far.
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// Runs `workload` on an empty disk, then `check` on the images of a crash at each of its moments.
    /// The check gets the image, and the newest steps acknowledged and submitted at that moment. It should
    /// call [`SimVfs::recovered`] once it has opened the image, so that a second crash must show that step
    /// too; it may go on with further steps, and calls [`SimVfs::stop_recording`] before anything that no
    /// recovery would do.
    pub fn run(
        &mut self,
        workload: impl FnOnce(&SimVfs),
        check: impl Fn(&SimVfs, u64, u64) -> Result<(), String>,
    ) -> Result<(), Failure> {
        self.seen.clear();
        let disk = SimVfs::new();
        disk.start_recording();
        workload(&disk);
        for point in disk.take_points() {
            self.explore(&point, &check)?;
        }
        Ok(())
    }

    /// Runs `scenario` once for each call in it and each fault that can hit that call. The scenario stops
    /// at its first error. Afterwards `check` must hold for the same machine under a new process, and for
    /// a power loss; and no sync may have followed a failed one.
    pub fn run_faults(
        &mut self,
        scenario: impl Fn(&SimVfs),
        check: impl Fn(&SimVfs, u64, u64) -> Result<(), String>,
    ) -> Result<u64, Failure> {
        let whole = SimVfs::new();
        scenario(&whole);
        let mut runs = 0;
        for fault in Fault::ALL {
            for nth in 1..=whole.calls_for(fault) {
                self.seen.clear();
                let disk = SimVfs::new();
                disk.arm(fault, nth);
                scenario(&disk);
                let place = format!("{fault:?} at call {nth}");
                assert!(disk.fault_fired(), "{place}: the scenario is the same each time");
                if disk.counters().syncs_after_failure > 0 {
                    return Err(self.failure("a sync was called after one had failed".into(), place));
                }
                let restarted = disk.restarted();
                restarted.start_recording();
                self.check_disk(&restarted, &check)
                    .map_err(|m| self.failure(m, format!("{place}, restart")))?;
                for point in restarted.take_points() {
                    self.explore(&point, &check).map_err(|f| within(&place, f))?;
                }
                self.explore(&disk.point(), &check).map_err(|f| within(&place, f))?;
                runs += 1;
            }
        }
        Ok(runs)
    }

    fn explore(
        &mut self,
        point: &Point,
        check: &impl Fn(&SimVfs, u64, u64) -> Result<(), String>,
    ) -> Result<(), Failure> {
        let max = self.limits.images_per_point;
        for selection in self.new_images(point, max) {
            let disk = SimVfs::booted(point.image(&selection), IN_RECOVERY, point.acked, point.submitted);
            self.check_disk(&disk, check).map_err(|m| self.failure(m, describe(point, &selection)))?;
            if self.limits.recovery_one_in == 0 || !self.rng.one_in(self.limits.recovery_one_in) {
                continue;
            }
            for second in disk.take_points() {
                for again in self.new_images(&second, self.limits.images_per_recovery_point) {
                    let disk =
                        SimVfs::booted(second.image(&again), IN_RECOVERY, second.acked, second.submitted);
                    self.check_disk(&disk, check).map_err(|m| {
                        let first = describe(point, &selection);
                        self.failure(
                            m,
                            format!("{first}then, in its recovery\n{}", describe(&second, &again)),
                        )
                    })?;
                }
            }
        }
        Ok(())
    }

    /// The selections of `point` whose image has to be checked, counted.
    fn new_images(&mut self, point: &Point, max: usize) -> Vec<Selection> {
        self.report.points += 1;
        let mut selections = point.selections(&mut self.rng, max, self.limits.subsets_up_to);
        selections.retain(|selection| {
            self.report.images += 1;
            let hash = point.image(selection).hash();
            self.distinct.insert(hash);
            for cause in [cause(selection), point.phase] {
                if !cause.is_empty() && self.by_cause.insert((cause, hash)) {
                    *self.report.by_cause.entry(cause).or_default() += 1;
                }
            }
            match self.seen.entry(hash) {
                Entry::Vacant(slot) => {
                    slot.insert((point.acked, point.submitted));
                    true
                }
                Entry::Occupied(mut slot) => {
                    let (acked, submitted) = *slot.get();
                    let stricter = point.acked > acked || point.submitted < submitted;
                    slot.insert((acked.max(point.acked), submitted.min(point.submitted)));
                    stricter
                }
            }
        });
        self.report.distinct = self.distinct.len() as u64;
        selections
    }

    fn check_disk(
        &mut self,
        disk: &SimVfs,
        check: &impl Fn(&SimVfs, u64, u64) -> Result<(), String>,
    ) -> Result<(), String> {
        self.report.checks += 1;
        let (acked, submitted) = disk.marks();
        catch_unwind(AssertUnwindSafe(|| check(disk, acked, submitted)))
            .unwrap_or_else(|panic| Err(format!("panic: {}", panic_text(&*panic))))
    }

    fn failure(&self, message: String, image: String) -> Failure {
        Failure { message, seed: self.seed, image }
    }
}

fn within(place: &str, failure: Failure) -> Failure {
    Failure { image: format!("after {place}\n{}", failure.image), ..failure }
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("not a text")
}

fn describe(point: &Point, selection: &[Fate]) -> String {
    let mut out = format!(
        "{} image, phase {:?}, acknowledged {}, submitted {}\n",
        cause(selection),
        point.phase,
        point.acked,
        point.submitted
    );
    for (change, fate) in point.pending.iter().zip(selection) {
        let fate = match fate {
            Fate::Kept => "kept",
            Fate::Dropped => "dropped",
            Fate::Torn(_) => "torn",
        };
        out.push_str(&format!("  {fate:7} {change}\n"));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::{OpenHow, Vfs};
    use std::path::Path;

    const DIR: &str = "/d";

    /// Replaces the file `f` three times, by way of a temporary name. `sabotage` leaves one call out.
    fn replace_thrice(disk: &SimVfs, sabotage: &str) {
        let (dir, temp, name) = (Path::new(DIR), Path::new("/d/t"), Path::new("/d/f"));
        if disk.create_dir(dir).is_err() {
            return;
        }
        for n in 1..=3_u8 {
            disk.phase(if n == 1 { "first" } else { "later" });
            disk.submit(n.into());
            let Ok(file) = disk.open(temp, OpenHow::Create) else { return };
            if file.write_all_at(&[n; 2000], 0).is_err() {
                return;
            }
            if sabotage != "no file sync" && file.sync_data().is_err() {
                return;
            }
            if disk.rename(temp, name).is_err() {
                return;
            }
            if sabotage != "no directory sync" && disk.sync_dir(dir).is_err() {
                return;
            }
            disk.ack(n.into());
        }
    }

    fn is_one_of_the_steps(disk: &SimVfs, acked: u64, submitted: u64) -> Result<(), String> {
        let found = match disk.contents(Path::new("/d/f")) {
            Err(_) => 0,
            Ok(bytes) if bytes.len() == 2000 && bytes.iter().all(|b| *b == bytes[0]) => bytes[0].into(),
            Ok(bytes) => return Err(format!("neither old nor new: {} bytes", bytes.len())),
        };
        if (acked..=submitted).contains(&found) {
            Ok(())
        } else {
            Err(format!("found {found}, want {acked} to {submitted}"))
        }
    }

    #[test]
    fn the_right_way_to_replace_a_file_survives_every_crash() {
        let mut explorer = Explorer::new(1, Limits::default());
        explorer.run(|disk| replace_thrice(disk, ""), is_one_of_the_steps).unwrap_or_else(|f| panic!("{f}"));
        let report = explorer.report();
        println!("{report}");
        for cause in ["torn", "dropped", "first", "later"] {
            assert!(report.of(cause) > 0, "{cause}: {report}");
        }
    }

    #[test]
    fn a_missing_sync_is_found() {
        for sabotage in ["no file sync", "no directory sync"] {
            let mut explorer = Explorer::new(1, Limits::default());
            let failure =
                explorer.run(|disk| replace_thrice(disk, sabotage), is_one_of_the_steps).expect_err(sabotage);
            assert!(failure.image.contains("phase"), "{failure}");
        }
    }

    #[test]
    fn a_panic_of_the_check_is_a_failure_with_its_text() {
        let mut explorer = Explorer::new(1, Limits::default());
        let failure = explorer
            .run(|disk| replace_thrice(disk, ""), |_, _, _| panic!("out of {}", "order"))
            .expect_err("the check panics");
        assert_eq!(failure.message, "panic: out of order");
    }

    #[test]
    fn every_call_of_a_scenario_is_made_to_fail_once() {
        let mut explorer = Explorer::new(1, Limits::default());
        let runs = explorer
            .run_faults(|disk| replace_thrice(disk, ""), is_one_of_the_steps)
            .unwrap_or_else(|f| panic!("{f}"));
        // Three rounds: 1 write (by write, short write and no space), 2 names, 2 syncs in 3 flavours; and
        // one call that makes the directory.
        assert_eq!(runs, 3 * (3 + 2 + 6) + 1);
    }
}
