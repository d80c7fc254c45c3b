// SPDX-License-Identifier: Apache-2.0
//! Runs commands, shows their output and counts the tests in it.
//!
//! Owns      the reading of libtest's result lines and of what failed tests said, of the log of skipped tests, and of
//!           score lines.
//! Holds     a command that fails without naming a failed test still counts as one failure.
//! Never     decides which commands to run.

use std::collections::VecDeque;
use std::fs;
use std::io::{BufRead, BufReader};
use std::ops::AddAssign;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::Outcome;

/// Tests append a line here when they cannot run; libtest itself calls such a test passed.
pub const SKIP_LOG: &str = "CAIRN_SKIP_LOG";

/// A line `score: NAME VALUE TARGET ok|miss` in a test's output is a figure of the scorecard.
pub const SCORE: &str = "score: ";

/// What follows it in a line of a test's output is a search for a planted mistake.
pub const SABOTAGE: &str = "sabotage: ";

#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Tally {
    pub passed: u64,
    pub failed: u64,
    pub skipped: u64,
}

impl Tally {
    /// One check that has no tests inside.
    pub fn one(passed: bool) -> Tally {
        Tally { passed: u64::from(passed), failed: u64::from(!passed), skipped: 0 }
    }

    /// The counts of a line `test result: ok. 15 passed; 0 failed; 0 ignored; …`.
    pub fn of_result_line(line: &str) -> Option<Tally> {
        let (_, counts) = line.strip_prefix("test result: ")?.split_once(". ")?;
        let count = |what: &str| {
            counts
                .split("; ")
                .find_map(|part| part.strip_suffix(what))
                .and_then(|n| n.trim().parse::<u64>().ok())
        };
        Some(Tally { passed: count("passed")?, failed: count("failed")?, skipped: count("ignored")? })
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Tally) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

/// What came of one command.
#[derive(Default, Debug)]
pub struct Ran {
    pub tally: Tally,
    /// What follows [`SCORE`] in its output.
    pub scores: Vec<String>,
    /// What follows [`SABOTAGE`] in it.
    pub sabotage: Vec<String>,
    /// Why tests did not run.
    pub skips: Vec<String>,
    /// The tests that failed.
    pub failures: Vec<Failure>,
}

/// A test that failed.
#[derive(PartialEq, Eq, Debug)]
pub struct Failure {
    pub name: String,
    /// Its first panic and what follows it.
    pub panicked: Vec<String>,
    /// The end of what it printed, if that is not among `panicked`.
    pub said: VecDeque<String>,
}

/// Of what a failed test printed so many lines are kept from its panic on, which logs of servers follow.
const PANIC_LINES: usize = 40;
/// And so many at its end.
const SAID_LINES: usize = 20;

impl Failure {
    fn take(&mut self, line: &str) {
        let panics = line.starts_with("thread '") && line.contains(" panicked at ");
        if (panics || !self.panicked.is_empty()) && self.panicked.len() < PANIC_LINES {
            self.panicked.push(line.to_owned());
            return;
        }
        if self.said.len() == SAID_LINES {
            self.said.pop_front();
        }
        self.said.push_back(line.to_owned());
    }
}

/// Reads libtest's lines: a test that failed is named first, and what it printed follows after all have run.
#[derive(Default)]
struct Failures {
    found: Vec<Failure>,
    /// Whose output is being read.
    speaks: Option<usize>,
}

impl Failures {
    fn take(&mut self, line: &str) {
        if let Some(name) = line.strip_prefix("test ").and_then(|l| l.strip_suffix(" ... FAILED")) {
            self.found.push(Failure { name: name.to_owned(), panicked: Vec::new(), said: VecDeque::new() });
        } else if let Some(name) = line.strip_prefix("---- ").and_then(|l| l.strip_suffix(" stdout ----")) {
            self.speaks = self.found.iter().rposition(|f| f.name == name);
        } else if line == "failures:" || line == "successes:" {
            self.speaks = None;
        } else if let Some(failure) = self.speaks.map(|at| &mut self.found[at]) {
            failure.take(line);
        }
    }
}

/// `cargo` with these arguments, at the top of the repository.
pub fn cargo(root: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(args).current_dir(root);
    command
}

/// Runs a command that is one check: it passes if it ends well.
pub fn check(mut command: Command) -> Outcome<Ran> {
    let status = command.status().map_err(|e| format!("{command:?}: {e}"))?;
    Ok(Ran { tally: Tally::one(status.success()), ..Ran::default() })
}

/// Runs a `cargo test` command: shows what it prints, and counts its tests.
pub fn tests(root: &Path, command: Command) -> Outcome<Ran> {
    count(root, command, |line| println!("{line}"))
}

/// The same, and `show` gets each line.
fn count(root: &Path, mut command: Command, show: impl Fn(&str)) -> Outcome<Ran> {
    let skip_log = SkipLog::begin(root)?;
    command.env(SKIP_LOG, &skip_log.path).stdout(Stdio::piped());
    let mut child = command.spawn().map_err(|e| format!("{command:?}: {e}"))?;
    let output = child.stdout.take().expect("stdout is piped");
    let mut ran = Ran::default();
    let mut failures = Failures::default();
    for line in BufReader::new(output).lines() {
        let line = line.map_err(|e| format!("output of {command:?}: {e}"))?;
        show(&line);
        failures.take(&line);
        if let Some(tally) = Tally::of_result_line(&line) {
            ran.tally += tally;
        } else if let Some(score) = line.strip_prefix(SCORE) {
            ran.scores.push(score.to_owned());
        } else if let Some((_, hunt)) = line.split_once(SABOTAGE) {
            ran.sabotage.push(hunt.to_owned());
        }
    }
    let status = child.wait().map_err(|e| format!("{command:?}: {e}"))?;
    if !status.success() && ran.tally.failed == 0 {
        ran.tally.failed = 1;
    }
    ran.failures = failures.found;
    ran.skips = skip_log.end()?;
    let skipped = ran.skips.len() as u64;
    ran.tally.passed = ran.tally.passed.saturating_sub(skipped);
    ran.tally.skipped += skipped;
    Ok(ran)
}

struct SkipLog {
    path: PathBuf,
}

impl SkipLog {
    fn begin(root: &Path) -> Outcome<SkipLog> {
        let path = root.join("target").join("skipped.log");
        fs::create_dir_all(root.join("target"))
            .and_then(|()| fs::write(&path, ""))
            .map_err(|e| at(&path, &e))?;
        Ok(SkipLog { path })
    }

    fn end(self) -> Outcome<Vec<String>> {
        let text = fs::read_to_string(&self.path).map_err(|e| at(&self.path, &e))?;
        Ok(text.lines().map(str::to_owned).collect())
    }
}

/// An I/O error with its file.
pub fn at(path: &Path, error: &std::io::Error) -> String {
    format!("{}: {error}", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_line_is_counted_and_other_lines_are_not() {
        let line = "test result: FAILED. 14 passed; 1 failed; 2 ignored; 0 measured; 3 filtered out; finished in 0.0s";
        assert_eq!(Tally::of_result_line(line), Some(Tally { passed: 14, failed: 1, skipped: 2 }));
        for other in ["test result: ", "test a::b ... ok", "", "passed; failed; ignored"] {
            assert_eq!(Tally::of_result_line(other), None, "{other}");
        }
    }

    #[test]
    fn a_command_that_fails_before_any_test_is_one_failure() {
        let dir = std::env::temp_dir().join(format!("xtask-{}", std::process::id()));
        let mut command = Command::new("sh");
        command.args([
            "-c",
            "echo 'test result: ok. 2 passed; 0 failed; 0 ignored'; echo 'score: x 1 2 miss'; exit 1",
        ]);
        let ran = count(&dir, command, |_| ()).expect("sh runs");
        fs::remove_dir_all(&dir).expect("the test made it");
        assert_eq!(ran.tally, Tally { passed: 2, failed: 1, skipped: 0 });
        assert_eq!(ran.scores, ["x 1 2 miss"]);
    }

    #[test]
    fn a_test_that_says_it_was_skipped_does_not_count_as_passed() {
        let dir = std::env::temp_dir().join(format!("xtask-skip-{}", std::process::id()));
        let mut command = Command::new("sh");
        let script =
            format!("echo no etcd >> \"${SKIP_LOG}\"; echo 'test result: ok. 2 passed; 0 failed; 0 ignored'");
        command.args(["-c", &script]);
        let ran = count(&dir, command, |_| ()).expect("sh runs");
        fs::remove_dir_all(&dir).expect("the test made it");
        assert_eq!(ran.tally, Tally { passed: 1, failed: 0, skipped: 1 });
        assert_eq!(ran.skips, ["no etcd"]);
    }

    #[test]
    fn a_test_that_failed_is_kept_with_its_panic_and_the_end_of_what_it_said() {
        let script = "test a::good ... ok\ntest a::bad ... FAILED\n\nsuccesses:\n\n---- a::good stdout ----\nfine\n\n\
                      successes:\n    a::good\n\nfailures:\n\n---- a::bad stdout ----\n\
                      before\nthread 'a::bad' (7) panicked at a.rs:1:2:\nleft: 1\nfailures:\n    a::bad\n";
        let mut failures = Failures::default();
        script.lines().for_each(|line| failures.take(line));
        let lines = |lines: &[&str]| lines.iter().map(|&line| line.to_owned()).collect::<Vec<_>>();
        let panicked = lines(&["thread 'a::bad' (7) panicked at a.rs:1:2:", "left: 1"]);
        let bad = Failure { name: "a::bad".to_owned(), panicked, said: lines(&["before"]).into() };
        assert_eq!(failures.found, [bad]);

        let mut failures = Failures::default();
        failures.take("test b ... FAILED");
        failures.take("---- b stdout ----");
        failures.take("thread 'b' (7) panicked at b.rs:1:2:");
        (1..PANIC_LINES + SAID_LINES + 5).for_each(|n| failures.take(&n.to_string()));
        let kept = &failures.found[0];
        assert_eq!(
            (kept.panicked.len(), kept.said.len()),
            (PANIC_LINES, SAID_LINES),
            "the log is cut between"
        );
        assert_eq!(kept.said[0], (PANIC_LINES + 5).to_string());
    }
}
