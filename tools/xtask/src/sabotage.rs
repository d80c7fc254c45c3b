// SPDX-License-Identifier: Apache-2.0
//! `cargo xtask sabotage [NAME]`: every planted mistake, in the tests that must catch it, as a table.
//!
//! Owns      the lists of mistakes as the sources have them, the reading of the lines `sabotage: …` that the
//!           tests print, and the table.
//! Holds     1. a mistake of the list that no test looked for counts as not caught;
//!           2. a list that cannot be read, or is too short, is a failure.
//! Never     plants anything itself.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use crate::runner::{self, at, cargo};
use crate::{Outcome, root};

/// Where mistakes are listed, and how many there are at least.
const LISTS: &[(&str, usize)] =
    &[("engine/src/mutants.rs", 25), ("engine/mvcc/src/mutants.rs", 3), ("server/core/src/mutants.rs", 24)];

/// The environment variable by which tests look for all, with all the seeds that it may take.
const ALL: (&str, &str) = ("CAIRN_MUTANTS", "all");

/// The environment variable by which tests look for one mistake alone.
const ONLY: &str = "CAIRN_MUTANT";

/// One search for one mistake.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Hunt {
    mistake: String,
    by: String,
    seconds: String,
    /// Where it showed; `None` if it did not.
    place: Option<String>,
}

/// What a test prints of a search that found nothing.
const NOT_CAUGHT: &str = "NOT CAUGHT";

/// Looks for all mistakes, or for the one of that name; true if each was caught wherever it was looked for.
pub fn run(only: Option<&str>) -> Outcome<bool> {
    let root = root();
    let listed = names(&root)?;
    let mut command = cargo(
        &root,
        &["test", "--package", "cairn-engine", "--package", "cairn-sim", "--tests", "--no-fail-fast"],
    );
    command.args(["--", "--nocapture", "--test-threads=1", "mistake"]);
    command.env(ALL.0, ALL.1);
    if let Some(name) = only {
        command.env(ONLY, name);
    }
    let ran = runner::tests(&root, command)?;
    let hunts = ran.sabotage.iter().map(|line| Hunt::parse(line)).collect::<Outcome<Vec<_>>>()?;
    if let (Some(name), true) = (only, hunts.is_empty()) {
        return Err(format!("no mistake is called {name:?}; there are:\n{}", listed.join("\n")));
    }
    let wanted: Vec<&str> =
        listed.iter().map(String::as_str).filter(|n| only.is_none_or(|o| o == *n)).collect();
    print!("{}", table(&wanted, &hunts));
    let missed = missed(&wanted, &hunts);
    println!("{} mistakes, {} not caught", mistakes(&wanted, &hunts).len(), missed.len());
    Ok(missed.is_empty() && ran.tally.failed == 0)
}

/// The names of all lists.
///
/// # Errors
/// If a list is not found in its source, or is shorter than it may be.
pub fn names(root: &Path) -> Outcome<Vec<String>> {
    let mut all = Vec::new();
    for (list, least) in LISTS {
        let path = root.join(list);
        let mut names = names_in(&fs::read_to_string(&path).map_err(|e| at(&path, &e))?);
        if names.len() < *least {
            return Err(format!("{list}: {} mistakes, not {least}", names.len()));
        }
        all.append(&mut names);
    }
    Ok(all)
}

/// The first text of each pair in the constant `ALL`.
fn names_in(source: &str) -> Vec<String> {
    let list = source.split_once("pub const ALL:").map_or("", |(_, rest)| rest);
    let list = list.split_once("];").map_or("", |(list, _)| list);
    let pairs = list.split('(').skip(1);
    pairs
        .filter_map(|pair| pair.trim_start().strip_prefix('"')?.split('"').next().map(str::to_owned))
        .collect()
}

impl Hunt {
    fn parse(line: &str) -> Outcome<Hunt> {
        let cells: Vec<&str> = line.split('\t').collect();
        let [mistake, by, seconds, place] = cells.as_slice() else {
            return Err(format!("four cells, not {line:?}"));
        };
        let place = (*place != NOT_CAUGHT).then(|| (*place).to_owned());
        Ok(Hunt {
            mistake: (*mistake).to_owned(),
            by: (*by).to_owned(),
            seconds: (*seconds).to_owned(),
            place,
        })
    }
}

/// Those of the list, in its order, and those that only tests know.
fn mistakes<'a>(listed: &[&'a str], hunts: &'a [Hunt]) -> Vec<&'a str> {
    let mut all = listed.to_vec();
    for hunt in hunts {
        if !all.contains(&hunt.mistake.as_str()) {
            all.push(&hunt.mistake);
        }
    }
    all
}

/// Those that a search missed, or that nobody looked for.
fn missed<'a>(listed: &[&'a str], hunts: &'a [Hunt]) -> Vec<&'a str> {
    let caught = |name: &str| {
        let mut of = hunts.iter().filter(|hunt| hunt.mistake == name).peekable();
        of.peek().is_some() && of.all(|hunt| hunt.place.is_some())
    };
    mistakes(listed, hunts).into_iter().filter(|name| !caught(name)).collect()
}

/// A line for each search, under the mistake that it was for.
fn table(listed: &[&str], hunts: &[Hunt]) -> String {
    let mut rows = vec![["mistake", "caught by", "seconds", "first seen"].map(str::to_owned)];
    for name in mistakes(listed, hunts) {
        let mut looked = false;
        for hunt in hunts.iter().filter(|hunt| hunt.mistake == name) {
            looked = true;
            let place = hunt.place.as_deref().unwrap_or(NOT_CAUGHT);
            rows.push([name, &hunt.by, &hunt.seconds, place].map(str::to_owned));
        }
        if !looked {
            rows.push([name, "-", "-", NOT_CAUGHT].map(str::to_owned));
        }
    }
    let width = |cell: usize| rows.iter().map(|row| row[cell].chars().count()).max().unwrap_or(0);
    let (name, by, seconds) = (width(0), width(1), width(2));
    let mut out = String::new();
    for [mistake, who, took, place] in &rows {
        let place: String = place.chars().take(PLACE_CHARS_MAX).collect();
        writeln!(out, "{mistake:<name$}  {who:<by$}  {took:>seconds$}  {place}")
            .expect("a string takes all that is written");
    }
    out
}

/// What is shown of a place; the test's own output has all of it.
const PLACE_CHARS_MAX: usize = 120;

#[cfg(test)]
mod tests {
    use super::*;

    fn hunts(lines: &[&str]) -> Vec<Hunt> {
        lines.iter().map(|line| Hunt::parse(line).expect("four cells")).collect()
    }

    #[test]
    fn the_list_is_read_as_it_stands_in_the_source() {
        let source = "x (\"no\", \"\")\npub const ALL: &[(&str, &str)] = &[\n    (\"a-b\", \"one\"),\n    (\n        \"c\",\n        \"two\",\n    ),\n];\n(\"d\", 1)";
        assert_eq!(names_in(source), ["a-b", "c"]);
        let names = names(&root()).expect("the list is read");
        assert!(names.contains(&"wal-sync-skipped".to_owned()), "{names:?}");
    }

    /// The features of our libraries that a package's build has on, with its `edges` of cargo's graph.
    fn features_of(package: &str, edges: &str) -> String {
        let mut tree = cargo(&root(), &["tree", "--package", package, "--prefix", "none", "--edges"]);
        let output = tree.arg(edges).output().expect("cargo runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.lines()
            .filter(|line| line.starts_with("cairn-") && line.contains(" feature "))
            .map(|l| format!("{l}\n"))
            .collect()
    }

    #[test]
    fn no_program_is_built_with_planted_mistakes_or_a_simulated_disk() {
        let of_tests = features_of("cairn-sim", "normal,dev,features");
        for name in ["cairn-engine", "cairn-mvcc", "cairn-core"] {
            assert!(of_tests.contains(&format!("{name} feature \"mutants\"")), "{of_tests}");
        }
        assert!(of_tests.contains("\"mutants\"") && of_tests.contains("\"sim\""), "{of_tests}");
        for program in ["cairn", "cairn-engine-tool", "cairn-bench"] {
            let features = features_of(program, "normal,features");
            assert!(!features.contains("mutants") && !features.contains("sim"), "{program}: {features}");
            assert!(!features.contains("feature \"next\""), "{program}: {features}");
        }
    }

    #[test]
    fn what_nobody_looked_for_and_what_one_search_missed_is_not_caught() {
        let hunts =
            hunts(&["a\tx\t1.0\tseed 1", "b\tx\t1.0\tseed 2", "b\ty\t2.0\tNOT CAUGHT", "h\tz\t0.1\tseed 3"]);
        assert_eq!(missed(&["a", "b", "c"], &hunts), ["b", "c"]);
        assert_eq!(missed(&["a"], &hunts[..1]), [""; 0]);
        Hunt::parse("a\tb").expect_err("two cells");
    }

    #[test]
    fn the_table_has_a_line_for_each_search() {
        let text = table(&["a", "c"], &hunts(&["a\tcrash\t12.5\tseed 1", "hh\tsim\t0.1\tseed 3"]));
        let lines = [
            "mistake  caught by  seconds  first seen",
            "a        crash         12.5  seed 1",
            "c        -                -  NOT CAUGHT",
            "hh       sim            0.1  seed 3",
        ];
        assert_eq!(text.lines().collect::<Vec<_>>(), lines);
    }
}
