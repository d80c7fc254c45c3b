// SPDX-License-Identifier: Apache-2.0
//! Auto-compaction: when to compact, and at which revision.
//!
//! Owns      the samples of the revision that the periodic mode compares.
//! Holds     1. a revision is asked for at most once (AUTOC-6, AUTOC-7);
//!           2. a member that does not lead goes on sampling and asks for nothing (AUTOC-3).
//! Never     reads a clock: milliseconds come in with each call.

use std::collections::VecDeque;

const HOUR_MS: u64 = 3_600_000;
/// How often the revision mode looks (AUTOC-7).
pub const REVISION_INTERVAL_MS: u64 = 300_000;
/// Samples in one interval of the periodic mode (AUTOC-4).
const SAMPLES_PER_INTERVAL: u64 = 10;

/// What `--auto-compaction-mode` and `--auto-compaction-retention` ask for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AutoCompaction {
    Off,
    /// Keep this many milliseconds of history.
    Periodic {
        period_ms: u64,
    },
    /// Keep this many revisions.
    Revision {
        retention: i64,
    },
}

/// Decides when the history is to be cut. See the module.
#[derive(Debug)]
pub struct Compactor {
    mode: Mode,
    /// The last revision for which a compaction succeeded, or was found done.
    done: Option<i64>,
}

#[derive(Debug)]
enum Mode {
    Off,
    Periodic(Periodic),
    Revision { retention: i64, next_ms: u64 },
}

#[derive(Debug)]
struct Periodic {
    /// Time between two compactions: min(period, 1 h).
    interval_ms: u64,
    sample_ms: u64,
    /// Samples that span one period.
    window: usize,
    period_ms: u64,
    samples: VecDeque<i64>,
    next_sample_ms: u64,
    /// When the last compaction succeeded; at first so that one falls due after a whole period.
    last_ms: u64,
    started_ms: u64,
    compacted_once: bool,
}

impl Compactor {
    /// A compactor that starts at `now_ms`, when the store is at `revision`.
    pub fn new(mode: AutoCompaction, now_ms: u64, revision: i64) -> Compactor {
        let mode = match mode {
            AutoCompaction::Off => Mode::Off,
            AutoCompaction::Periodic { period_ms: 0 } => Mode::Off,
            AutoCompaction::Periodic { period_ms } => {
                let interval_ms = period_ms.min(HOUR_MS);
                let sample_ms = (interval_ms / SAMPLES_PER_INTERVAL).max(1);
                Mode::Periodic(Periodic {
                    interval_ms,
                    sample_ms,
                    window: usize::try_from(period_ms / sample_ms).unwrap_or(usize::MAX - 1) + 1,
                    period_ms,
                    samples: VecDeque::from([revision]),
                    next_sample_ms: now_ms + sample_ms,
                    last_ms: now_ms,
                    started_ms: now_ms,
                    compacted_once: false,
                })
            }
            AutoCompaction::Revision { retention: 0 } => Mode::Off,
            AutoCompaction::Revision { retention } => {
                Mode::Revision { retention, next_ms: now_ms + REVISION_INTERVAL_MS }
            }
        };
        Compactor { mode, done: None }
    }

    /// When [`Compactor::tick`] has something to do next.
    pub fn next_ms(&self) -> Option<u64> {
        match &self.mode {
            Mode::Off => None,
            Mode::Periodic(p) => Some(p.next_sample_ms),
            Mode::Revision { next_ms, .. } => Some(*next_ms),
        }
    }

    /// The revision to compact now, if it is time. Tell [`Compactor::succeeded`] how it went.
    pub fn tick(&mut self, now_ms: u64, revision: i64, leads: bool) -> Option<i64> {
        let candidate = match &mut self.mode {
            Mode::Off => None,
            Mode::Periodic(p) => p.tick(now_ms, revision),
            Mode::Revision { retention, next_ms } => {
                if now_ms < *next_ms {
                    return None;
                }
                *next_ms = now_ms + REVISION_INTERVAL_MS;
                Some(revision.saturating_sub(*retention)).filter(|r| *r > 0)
            }
        }?;
        (leads && Some(candidate) != self.done).then_some(candidate)
    }

    /// The compaction at `revision` is done, or had been done before (AUTOC-6).
    pub fn succeeded(&mut self, now_ms: u64, revision: i64) {
        self.done = Some(revision);
        if let Mode::Periodic(p) = &mut self.mode {
            p.last_ms = now_ms;
            p.compacted_once = true;
        }
    }
}

impl Periodic {
    fn tick(&mut self, now_ms: u64, revision: i64) -> Option<i64> {
        if now_ms < self.next_sample_ms {
            return None;
        }
        self.next_sample_ms = now_ms + self.sample_ms;
        self.samples.push_back(revision);
        while self.samples.len() > self.window {
            self.samples.pop_front();
        }
        let due = if self.compacted_once {
            now_ms - self.last_ms >= self.interval_ms
        } else {
            now_ms - self.started_ms >= self.period_ms
        };
        if due && self.samples.len() == self.window { self.samples.front().copied() } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: u64 = 60_000;

    /// Ticks once a minute and lists (minute, revision asked for); the store grows by one each minute.
    fn run(mode: AutoCompaction, minutes: u64, leads: impl Fn(u64) -> bool) -> Vec<(u64, i64)> {
        let mut compactor = Compactor::new(mode, 0, 0);
        let mut asked = Vec::new();
        for minute in 1..=minutes {
            if let Some(rev) = compactor.tick(minute * MINUTE, minute as i64, leads(minute)) {
                asked.push((minute, rev));
                compactor.succeeded(minute * MINUTE, rev);
            }
        }
        asked
    }

    // rule: AUTOC-4, AUTOC-5
    #[test]
    fn ten_hours_compact_first_after_ten_hours_and_then_each_hour() {
        let asked = run(AutoCompaction::Periodic { period_ms: 10 * HOUR_MS }, 13 * 60, |_| true);
        assert_eq!(asked, [(600, 0), (660, 60), (720, 120), (780, 180)]);
    }

    // rule: AUTOC-4, AUTOC-5
    #[test]
    fn a_short_period_is_its_own_interval() {
        let asked = run(AutoCompaction::Periodic { period_ms: 10 * MINUTE }, 31, |_| true);
        assert_eq!(asked, [(10, 0), (20, 10), (30, 20)]);
    }

    // rule: AUTOC-7
    #[test]
    fn revision_mode_looks_every_five_minutes_and_never_asks_twice() {
        let mut compactor = Compactor::new(AutoCompaction::Revision { retention: 10 }, 0, 1);
        assert_eq!(compactor.tick(4 * MINUTE, 100, true), None);
        assert_eq!(compactor.tick(5 * MINUTE, 10, true), None, "10 - 10 is not above 0");
        assert_eq!(compactor.tick(10 * MINUTE, 100, true), Some(90));
        compactor.succeeded(10 * MINUTE, 90);
        assert_eq!(compactor.tick(15 * MINUTE, 100, true), None, "90 is done");
        assert_eq!(compactor.tick(20 * MINUTE, 101, true), Some(91));
    }

    // rule: AUTOC-3, AUTOC-8
    #[test]
    fn a_member_that_does_not_lead_samples_and_asks_as_soon_as_it_leads() {
        let asked = run(AutoCompaction::Periodic { period_ms: 10 * MINUTE }, 18, |m| m >= 17);
        assert_eq!(asked, [(17, 7)]);
    }

    // rule: AUTOC-6
    #[test]
    fn a_failed_compaction_is_tried_at_the_next_sample_and_an_unchanged_one_is_skipped() {
        let mut compactor = Compactor::new(AutoCompaction::Periodic { period_ms: 10 * MINUTE }, 0, 5);
        for minute in 1..10 {
            assert_eq!(compactor.tick(minute * MINUTE, 5, true), None);
        }
        assert_eq!(compactor.tick(10 * MINUTE, 6, true), Some(5));
        assert_eq!(compactor.tick(11 * MINUTE, 7, true), Some(5), "the first try failed");
        compactor.succeeded(11 * MINUTE, 5);
        for minute in 12..21 {
            assert_eq!(compactor.tick(minute * MINUTE, 7, true), None);
        }
        assert_eq!(compactor.tick(21 * MINUTE, 7, true), Some(7));
    }

    // rule: AUTOC-1
    #[test]
    fn retention_zero_is_off() {
        assert_eq!(Compactor::new(AutoCompaction::Periodic { period_ms: 0 }, 0, 1).next_ms(), None);
        assert_eq!(Compactor::new(AutoCompaction::Revision { retention: 0 }, 0, 1).next_ms(), None);
    }
}
