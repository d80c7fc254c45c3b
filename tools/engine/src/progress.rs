// SPDX-License-Identifier: Apache-2.0
//! The progress of long work: a bar with rate and time left, for whoever waits at a terminal.
//!
//! Written by hand: one line that is redrawn does not earn a crate with a drawing thread.
//!
//! Owns      one line of standard error, and what it says.
//! Holds     1. nothing is shown during the first second, and never where standard error is no terminal;
//!           2. the line is gone before anything else is said.
//! Never     slows the work: the clock is asked once in many ticks.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use crate::bytes::size;

const BAR_CELLS: u64 = 24;
const QUIET: Duration = Duration::from_secs(1);
const REDRAWN_EVERY: Duration = Duration::from_millis(100);
/// Ticks between two looks at the clock, but for those of much work.
const TICKS: u32 = 64;
const MUCH: u64 = 256 << 10;

/// What is counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unit {
    Bytes,
    Things(&'static str),
}

impl Unit {
    fn show(self, n: u64) -> String {
        match self {
            Unit::Bytes => size(n),
            Unit::Things(noun) => format!("{} {noun}", crate::bytes::grouped(n)),
        }
    }
}

pub struct Progress {
    what: &'static str,
    unit: Unit,
    total: u64,
    done: u64,
    ticks: u32,
    began: Instant,
    drawn: Option<Instant>,
    shown: bool,
}

impl Progress {
    /// Work of `total` units; 0 if that is not known.
    pub fn new(what: &'static str, unit: Unit, total: u64) -> Progress {
        let shown = io::stderr().is_terminal();
        Progress { what, unit, total, done: 0, ticks: 0, began: Instant::now(), drawn: None, shown }
    }

    pub fn tick(&mut self, units: u64) {
        self.done += units;
        self.ticks += 1;
        if !self.shown || !(units >= MUCH || self.ticks.is_multiple_of(TICKS)) {
            return;
        }
        let now = Instant::now();
        let elapsed = now - self.began;
        let due = self.drawn.is_none_or(|drawn| now - drawn >= REDRAWN_EVERY);
        if elapsed >= QUIET && due {
            self.drawn = Some(now);
            draw(&format!("\r{}\x1b[K", line(self.what, self.unit, self.done, self.total, elapsed)));
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.drawn.is_some() {
            draw("\r\x1b[K");
        }
    }
}

/// A terminal that has gone away ends no work.
fn draw(text: &str) {
    let mut stderr = io::stderr().lock();
    stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush()).unwrap_or_default();
}

fn line(what: &str, unit: Unit, done: u64, total: u64, elapsed: Duration) -> String {
    let seconds = elapsed.as_secs_f64().max(1e-9);
    let rate = (done as f64 / seconds) as u64;
    if total == 0 || done > total {
        return format!("{what}: {}, {}/s", unit.show(done), unit.show(rate));
    }
    let share = done as f64 / total as f64;
    let full = (share * BAR_CELLS as f64) as usize;
    let bar = "#".repeat(full) + &"-".repeat(BAR_CELLS as usize - full);
    let left = if done == 0 { "?".into() } else { time(seconds * (1.0 - share) / share) };
    let percent = share * 100.0;
    format!("{what} [{bar}] {percent:3.0} % of {}, {}/s, {left} left", unit.show(total), unit.show(rate))
}

fn time(seconds: f64) -> String {
    let seconds = seconds.round() as u64;
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, s) => format!("{s} s"),
        (0, m, s) => format!("{m} min {s:02} s"),
        (h, m, _) => format!("{h} h {m:02} min"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_share_rate_and_time_left() {
        let after = |s| Duration::from_secs(s);
        let bytes = |done, total, s| line("checking", Unit::Bytes, done, total, after(s));
        assert_eq!(
            bytes(1 << 30, 4 << 30, 10),
            "checking [######------------------]  25 % of 4.0 GiB, 102.4 MiB/s, 30 s left"
        );
        assert_eq!(
            bytes(0, 4 << 30, 2),
            "checking [------------------------]   0 % of 4.0 GiB, 0 B/s, ? left"
        );
        assert_eq!(
            line("dumping", Unit::Things("keys"), 5000, 0, after(2)),
            "dumping: 5,000 keys, 2,500 keys/s"
        );
        assert_eq!([59.6, 3599.0, 7260.0].map(time), ["1 min 00 s", "59 min 59 s", "2 h 01 min"]);
    }
}
