// SPDX-License-Identifier: Apache-2.0
//! `cargo xtask test`: every check of the repository, and one line that sums them up.
//!
//! Owns      the list of parts and their order: the quick ones first.
//! Holds     1. all parts run, also after one has failed;
//!           2. what each failed test said stands again at the end, where a log that was cut still has it;
//!           3. the figures of the scorecard that tests print stand together, above what each part came to;
//!           4. the last line is `N passed, N failed, N skipped` over all of them.
//! Never     runs the large numbers: that is `full`.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::runner::{self, Ran, Tally, cargo};
use crate::{Outcome, root, sources, supply};

struct Part {
    name: &'static str,
    run: fn(&Path) -> Outcome<Ran>,
}

const PARTS: &[Part] = &[
    Part { name: "licence", run: licence },
    Part { name: "supply", run: supply::run },
    Part { name: "fmt", run: |root| runner::check(cargo(root, &["fmt", "--all", "--check"])) },
    Part { name: "lint", run: lint },
    Part { name: "unit", run: unit },
    Part { name: "loom", run: loom },
    Part { name: "process", run: process },
];

/// The package whose tests start servers.
const PROCESS_TESTS: &str = "cairn-tests";

/// Runs one part or all; true if nothing failed and something passed.
pub fn run(only: Option<&str>) -> Outcome<bool> {
    let chosen: Vec<&Part> = PARTS.iter().filter(|p| only.is_none_or(|name| name == p.name)).collect();
    if chosen.is_empty() {
        let names: Vec<&str> = PARTS.iter().map(|p| p.name).collect();
        return Err(format!("no part {:?}; there are: {}", only.unwrap_or_default(), names.join(" ")));
    }
    let root = root();
    let mut sum = Tally::default();
    let (mut lines, mut scores) = (Vec::new(), Vec::new());
    for part in chosen {
        println!("==== {}", part.name);
        let begin = Instant::now();
        let ran = (part.run)(&root)?;
        lines.push(line(part.name, begin.elapsed(), &ran));
        sum += ran.tally;
        scores.extend(ran.scores);
    }
    if !scores.is_empty() {
        println!("==== scorecard\n{}", scorecard(&scores));
    }
    println!("====\n{}\n{sum}", lines.join("\n"));
    Ok(sum.failed == 0 && sum.passed > 0)
}

fn line(name: &str, took: Duration, ran: &Ran) -> String {
    let mut line = format!("{name:<8} {:>7.1} s  {}", took.as_secs_f64(), ran.tally);
    for skip in &ran.skips {
        line.push_str("\n         skipped: ");
        line.push_str(skip);
    }
    for failure in &ran.failures {
        line.push_str("\n         failed: ");
        line.push_str(&failure.name);
        for said in failure.panicked.iter().chain(&failure.said) {
            line.push_str("\n             ");
            line.push_str(said);
        }
    }
    line
}

/// Figures in columns: what is measured, its value, its target, and whether that is met.
fn scorecard(scores: &[String]) -> String {
    let rows: Vec<[String; 4]> = scores.iter().map(|score| cells(score)).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or_default();
    let (name, value, target) = (width(0), width(1), width(2));
    let line = |[a, b, c, d]: &[String; 4]| format!("{a:<name$}  {b:>value$}  {c:<target$}  {d}");
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// Name, value, target and verdict of a figure; value and target may have units: `gap 12 ms <=20 ms ok`.
fn cells(score: &str) -> [String; 4] {
    let words: Vec<&str> = score.split(' ').collect();
    let bound = words.iter().position(|word| word.starts_with(['<', '>'])).unwrap_or(words.len());
    let number = words[..bound].iter().rposition(|word| word.parse::<f64>().is_ok()).unwrap_or(bound);
    let verdict = words.len().saturating_sub(1).max(bound);
    [&words[..number], &words[number..bound], &words[bound..verdict], &words[verdict..]]
        .map(|part| part.join(" "))
}

/// Each source file says its licence.
fn licence(root: &Path) -> Outcome<Ran> {
    let files = sources::tracked(root)?;
    let without = sources::without_licence(root, &files)?;
    for file in &without {
        println!("{file}: no SPDX-License-Identifier in its first lines");
    }
    Ok(Ran { tally: Tally::one(without.is_empty()), ..Ran::default() })
}

fn lint(root: &Path) -> Outcome<Ran> {
    runner::check(cargo(root, &["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"]))
}

/// Tests inside this process: all packages but the one that starts servers.
fn unit(root: &Path) -> Outcome<Ran> {
    let args = ["test", "--workspace", "--exclude", PROCESS_TESTS, "--no-fail-fast", "--", "--show-output"];
    runner::tests(root, cargo(root, &args))
}

/// The parts of the engine without a lock, in every order of events. A build of its own: another configuration.
fn loom(root: &Path) -> Outcome<Ran> {
    let mut command = cargo(
        root,
        &["test", "--package", "cairn-engine", "--lib", "--target-dir", "target/loom", "loom_tests"],
    );
    command.env("RUSTFLAGS", "--cfg loom");
    let mut ran = runner::tests(root, command)?;
    if ran.tally == Tally::default() {
        println!("no test is called loom_tests");
        ran.tally.failed = 1;
    }
    Ok(ran)
}

/// Tests against the daemon as it is released.
fn process(root: &Path) -> Outcome<Ran> {
    let built = build_daemon(root)?;
    if built.tally.failed > 0 {
        return Ok(built);
    }
    let mut ran = runner::tests(
        root,
        cargo(root, &["test", "--package", PROCESS_TESTS, "--no-fail-fast", "--", "--show-output"]),
    )?;
    ran.tally += built.tally;
    Ok(ran)
}

/// The daemon in release, which process tests run.
pub fn build_daemon(root: &Path) -> Outcome<Ran> {
    runner::check(cargo(root, &["build", "--release", "--package", "cairn", "--bin", "cairn"]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_stand_in_columns_with_their_units() {
        let scores = ["seeds 30000 >=30000 ok", "gap after kill -9 1238 ms <=2000 ms miss", "nothing"];
        let wanted = [
            "seeds                30000  >=30000    ok",
            "gap after kill -9  1238 ms  <=2000 ms  miss",
            "nothing                                ",
        ];
        assert_eq!(scorecard(&scores.map(str::to_owned)), wanted.join("\n"));
    }
}
