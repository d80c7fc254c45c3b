// SPDX-License-Identifier: Apache-2.0
//! The tasks of this repository: `cargo xtask test | full | rules | sabotage`.
//!
//! Owns      the command line.
//! Never     knows how a part works: that is the library's.

use std::process::ExitCode;

use xtask::{Outcome, full, parts, root, rules, sabotage};

const USAGE: &str = "\
cargo xtask test [PART]      format, lint, licence lines, all tests; PART is one of: licence supply fmt lint unit loom process
cargo xtask full [ROW]       the large numbers of tests/full.tsv, resumable; keeps tests/SCORECARD.md
cargo xtask rules            each rule of tests/rules on keys, clusters, users and TLS with the tests that prove it
cargo xtask sabotage [NAME]  each planted mistake in the tests that must catch it; fails if one is not caught";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let outcome = match words.as_slice() {
        ["test"] => parts::run(None),
        ["test", part] => parts::run(Some(part)),
        ["full"] => full::run(None),
        ["full", row] => full::run(Some(row)),
        ["rules"] => print_rules(),
        ["sabotage"] => sabotage::run(None),
        ["sabotage", name] => sabotage::run(Some(name)),
        _ => Err(USAGE.to_owned()),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(reason) => {
            eprintln!("{reason}");
            ExitCode::from(2)
        }
    }
}

fn print_rules() -> Outcome<bool> {
    let report = rules::Report::read(&root())?;
    println!("{}", report.table());
    let problems = report.problems();
    for problem in &problems {
        println!("{problem}");
    }
    Ok(problems.is_empty())
}
