// SPDX-License-Identifier: Apache-2.0
//! A contest from begin to end, small: workers, rounds, kill -9, the report, and going on with a run.
//!
//! Owns      a contest of the engine alone; with `CAIRN_FULL=1` one of all rivals, which are built for it.
//! Holds     each table has a line for each store.
//! Never     looks at how fast anything is.

use std::path::Path;
use std::process::Command;

const TITLES: [&str; 9] = [
    "Insert, 100 a durable commit",
    "Scan by revision, the first after the inserts",
    "Scan by revision, warm",
    "Point read by chance",
    "Delete the oldest 90 %",
    "Insert half again",
    "Files after the churn",
    "Open after kill -9",
    "Goals, of a quick run: no verdict",
];

/// The program, and the stores that it compares.
fn program(out: &Path) -> (Command, Vec<&'static str>) {
    if std::env::var_os("CAIRN_FULL").is_none() {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cairn-rivals"));
        command.args(["--only", "cairn"]);
        return (command.args_small(out), vec!["cairn"]);
    }
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(["run", "--release", "--locked", "--quiet", "--manifest-path"]);
    command
        .arg(here.join("peers/Cargo.toml"))
        .arg("--target-dir")
        .arg(here.join("../../target/rivals/build"));
    command.arg("--");
    (command.args_small(out), vec!["cairn", "lmdb", "redb", "sled", "fjall", "bbolt"])
}

trait Small {
    fn args_small(self, out: &Path) -> Command;
}

impl Small for Command {
    /// Sizes for a second.
    fn args_small(mut self, out: &Path) -> Command {
        let sizes = ["--quick", "--keys=2000", "--rounds=1", "--rounds-max=1", "--large=2000", "--idle-s=0"];
        self.args(sizes).arg("--out").arg(out);
        self
    }
}

fn run(out: &Path) -> (String, Vec<&'static str>) {
    let (mut command, stores) = program(out);
    let output = command.output().expect("the contest starts");
    let (text, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{text}\n{errors}");
    (text.into_owned(), stores)
}

#[test]
fn a_small_contest_ends_with_every_table_and_is_not_run_twice() {
    let out = tempfile::tempdir().expect("a temporary directory");
    let (text, stores) = run(out.path());
    let tables = text.split_once(TITLES[0]).expect("the first table").1;
    for title in TITLES {
        assert!(text.contains(title), "no table {title:?} in\n{text}");
    }
    for store in stores {
        // The goals name stores, but do not begin lines with them.
        let lines = tables.lines().filter(|line| line.trim_start().starts_with(&format!("{store} "))).count();
        assert_eq!(lines, TITLES.len() - 1, "lines of {store} in\n{tables}");
    }
    let page = std::fs::read_to_string(out.path().join("report-512-quick.html")).expect("plots");
    assert!(page.contains("<svg") && page.contains(TITLES[0]));

    let (again, _) = run(out.path());
    assert!(again.contains("goes on after 1 rounds"), "{again}");
    assert!(!again.contains("round 2"), "{again}");
    assert_eq!(again.split_once(TITLES[0]).map(|(_, tables)| tables), Some(tables), "the same results");
}
