// SPDX-License-Identifier: Apache-2.0
//! `cargo xtask full`: the tests of `tests/full.tsv` with the large numbers, one row after another.
//!
//! Owns      `target/full/ROW`, what came of a row, and `tests/SCORECARD.md`, made of all of them.
//! Holds     1. a row that passed at this commit is not run again unless it is named;
//!           2. a row whose filter matches no test fails.
//! Never     counts a row as done that ran on changes no commit holds.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::runner::{self, Ran, Tally, at, cargo};
use crate::{Outcome, parts, root};

/// One line of `tests/full.tsv`.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Row {
    name: String,
    package: String,
    /// What libtest is asked to run.
    filter: String,
    /// Whether the tests start the release daemon.
    daemon: bool,
    what: String,
}

/// What came of a row the last time.
#[derive(Clone, PartialEq, Eq, Debug)]
struct State {
    commit: String,
    date: String,
    seconds: u64,
    tally: Tally,
    scores: Vec<String>,
}

/// Runs one row, or all that are not done; true if every row that has run passed.
pub fn run(only: Option<&str>) -> Outcome<bool> {
    let root = root();
    let rows = rows(&root)?;
    if let Some(name) = only
        && !rows.iter().any(|row| row.name == name)
    {
        let names: Vec<&str> = rows.iter().map(|row| row.name.as_str()).collect();
        return Err(format!("no row {name:?} in tests/full.tsv; there are: {}", names.join(" ")));
    }
    let (commit, clean) = commit(&root)?;
    let mut all_passed = true;
    for row in &rows {
        let named = only == Some(&row.name);
        let done = load(&root, row)?.is_some_and(|s| clean && s.commit == commit && passed(s.tally));
        if !named && (only.is_some() || done) {
            continue;
        }
        println!("==== {}: {}", row.name, row.what);
        let state = run_row(&root, row, &commit)?;
        println!("==== {}: {} in {} s", row.name, state.tally, state.seconds);
        all_passed &= passed(state.tally);
        save(&root, row, &state)?;
        write_scorecard(&root, &rows)?;
    }
    Ok(all_passed)
}

fn passed(tally: Tally) -> bool {
    tally.failed == 0 && tally.skipped == 0 && tally.passed > 0
}

fn run_row(root: &Path, row: &Row, commit: &str) -> Outcome<State> {
    let begin = Instant::now();
    let mut ran = Ran::default();
    if row.daemon {
        ran.tally.failed += parts::build_daemon(root)?.tally.failed;
    }
    if ran.tally.failed == 0 {
        let mut command = cargo(
            root,
            &[
                "test",
                "--release",
                "--package",
                &row.package,
                "--no-fail-fast",
                "--",
                "--show-output",
                &row.filter,
            ],
        );
        command.env("CAIRN_FULL", "1");
        ran = runner::tests(root, command)?;
    }
    if ran.tally == Tally::default() {
        println!("no test of {} matches {:?}", row.package, row.filter);
        ran.tally.failed = 1;
    }
    Ok(State {
        commit: commit.to_owned(),
        date: today(),
        seconds: begin.elapsed().as_secs(),
        tally: ran.tally,
        scores: ran.scores,
    })
}

fn rows(root: &Path) -> Outcome<Vec<Row>> {
    let path = root.join("tests/full.tsv");
    let text = fs::read_to_string(&path).map_err(|e| at(&path, &e))?;
    text.lines()
        .skip(1)
        .map(|line| {
            let cells: Vec<&str> = line.split('\t').collect();
            let [name, package, filter, daemon, what] = cells.as_slice() else {
                return Err(format!("{}: five cells, not {line:?}", path.display()));
            };
            Ok(Row {
                name: (*name).to_owned(),
                package: (*package).to_owned(),
                filter: (*filter).to_owned(),
                daemon: *daemon == "daemon",
                what: (*what).to_owned(),
            })
        })
        .collect()
}

/// The commit, and whether the tree is exactly it; a `+` marks one that is not.
fn commit(root: &Path) -> Outcome<(String, bool)> {
    let git = |args: &[&str]| {
        let output =
            Command::new("git").args(args).current_dir(root).output().map_err(|e| format!("git: {e}"))?;
        String::from_utf8(output.stdout).map(|s| s.trim().to_owned()).map_err(|e| format!("git: {e}"))
    };
    let head = git(&["rev-parse", "--short=10", "HEAD"])?;
    let changes = git(&["status", "--porcelain"])?;
    let clean = changes.lines().all(|line| line.ends_with(SCORECARD));
    Ok(if clean { (head, true) } else { (format!("{head}+"), false) })
}

const SCORECARD: &str = "tests/SCORECARD.md";

fn state_path(root: &Path, row: &Row) -> PathBuf {
    root.join("target/full").join(&row.name)
}

fn load(root: &Path, row: &Row) -> Outcome<Option<State>> {
    let path = state_path(root, row);
    match fs::read_to_string(&path) {
        Ok(text) => Ok(State::parse(&text)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(at(&path, &e)),
    }
}

fn save(root: &Path, row: &Row, state: &State) -> Outcome<()> {
    let path = state_path(root, row);
    let dir = path.parent().expect("a state file is in a directory");
    fs::create_dir_all(dir).and_then(|()| fs::write(&path, state.text())).map_err(|e| at(&path, &e))
}

impl State {
    fn text(&self) -> String {
        let Tally { passed, failed, skipped } = self.tally;
        let mut text =
            format!("{}\t{}\t{}\t{passed}\t{failed}\t{skipped}\n", self.commit, self.date, self.seconds);
        for score in &self.scores {
            text.push_str(score);
            text.push('\n');
        }
        text
    }

    /// `None` for a file of another layout: the row is then simply not done.
    fn parse(text: &str) -> Option<State> {
        let mut lines = text.lines();
        let head: Vec<&str> = lines.next()?.split('\t').collect();
        let [commit, date, seconds, passed, failed, skipped] = head.as_slice() else { return None };
        let tally = Tally {
            passed: passed.parse().ok()?,
            failed: failed.parse().ok()?,
            skipped: skipped.parse().ok()?,
        };
        Some(State {
            commit: (*commit).to_owned(),
            date: (*date).to_owned(),
            seconds: seconds.parse().ok()?,
            tally,
            scores: lines.map(str::to_owned).collect(),
        })
    }
}

/// The table of every row's last run, whole each time. A row that was last run elsewhere keeps the line it has.
fn write_scorecard(root: &Path, rows: &[Row]) -> Outcome<()> {
    let states = rows.iter().map(|row| load(root, row)).collect::<Outcome<Vec<_>>>()?;
    let path = root.join(SCORECARD);
    let before = fs::read_to_string(&path).map_err(|e| at(&path, &e))?;
    fs::write(&path, scorecard(rows, &states, &before)).map_err(|e| at(&path, &e))
}

fn scorecard(rows: &[Row], states: &[Option<State>], before: &str) -> String {
    let mut out = String::from(
        "# Scorecard\n\nWritten by `cargo xtask full`. A figure is the test's own: name, value, target, ok or miss.\n\n\
         | row | what | result | figures | commit | date | seconds |\n|---|---|---|---|---|---|---|\n",
    );
    for (row, state) in rows.iter().zip(states) {
        let name = &row.name;
        let what = &row.what;
        let line = || before.lines().find(|line| line.starts_with(&format!("| {name} | ")));
        match state {
            None if line().is_some() => writeln!(out, "{}", line().unwrap_or_default()),
            None => writeln!(out, "| {name} | {what} | not run | | | | |"),
            Some(s) => {
                let result = if passed(s.tally) { "ok".to_owned() } else { s.tally.to_string() };
                let figures = s.scores.join("<br>");
                writeln!(
                    out,
                    "| {name} | {what} | {result} | {figures} | {} | {} | {} |",
                    s.commit, s.date, s.seconds
                )
            }
        }
        .expect("a string takes all that is written");
    }
    out
}

fn today() -> String {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    date_of_day(seconds / 86_400)
}

/// The Gregorian date of a day counted from 1970-01-01.
fn date_of_day(day: u64) -> String {
    const DAYS_OF_400_YEARS: u64 = 146_097;
    let from_march_of_0 = day + 719_468;
    let (era, day_of_era) = (from_march_of_0 / DAYS_OF_400_YEARS, from_march_of_0 % DAYS_OF_400_YEARS);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_have_their_dates() {
        for (day, date) in
            [(0, "1970-01-01"), (59, "1970-03-01"), (11_016, "2000-02-29"), (20_781, "2026-11-24")]
        {
            assert_eq!(date_of_day(day), date);
        }
    }

    #[test]
    fn a_state_is_read_back_as_it_was_written_and_rubbish_is_not_a_state() {
        let state = State {
            commit: "0123456789".into(),
            date: "2026-11-24".into(),
            seconds: 90,
            tally: Tally { passed: 2, failed: 0, skipped: 0 },
            scores: vec!["requests 100000 100000 ok".into()],
        };
        assert_eq!(State::parse(&state.text()), Some(state));
        for rubbish in ["", "a\tb\n", "c\td\tx\t1\t2\t3\n"] {
            assert_eq!(State::parse(rubbish), None, "{rubbish:?}");
        }
    }

    #[test]
    fn the_scorecard_has_a_line_for_each_row_run_or_not() {
        let row = |name: &str| Row {
            name: name.into(),
            package: "p".into(),
            filter: "f".into(),
            daemon: false,
            what: "w".into(),
        };
        let failed = State {
            commit: "c".into(),
            date: "d".into(),
            seconds: 1,
            tally: Tally { passed: 1, failed: 1, skipped: 0 },
            scores: vec!["x 1 2 miss".into()],
        };
        let text = scorecard(&[row("a"), row("b")], &[Some(failed), None], "");
        assert!(
            text.contains("| a | w | 1 passed, 1 failed, 0 skipped | x 1 2 miss | c | d | 1 |\n"),
            "{text}"
        );
        assert!(text.ends_with("| b | w | not run | | | | |\n"), "{text}");
        let again = scorecard(&[row("a"), row("b"), row("c")], &[None, None, None], &text);
        assert_eq!(again, text + "| c | w | not run | | | | |\n", "what was run elsewhere stays");
    }

    #[test]
    fn the_rows_of_the_table_are_whole_and_each_stands_once() {
        let rows = rows(&root()).expect("tests/full.tsv is read");
        let mut names: Vec<&str> = rows.iter().map(|row| row.name.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), rows.len());
        assert!(!rows.is_empty());
    }

    #[test]
    fn every_row_names_a_test_that_exists() {
        let tests = crate::rules::test_names(&root()).expect("the sources are read");
        for row in rows(&root()).expect("tests/full.tsv is read") {
            assert!(tests.iter().any(|test| test.contains(&row.filter)), "no test is called {}", row.filter);
        }
    }
}
