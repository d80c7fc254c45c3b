// SPDX-License-Identifier: Apache-2.0
//! Every rule of `semantics-kv.md`, and of `semantics-ops.md` about clusters, users and TLS, has its test, or says why
//! not; so does every case of the past. What takes bytes has its fuzz target, and what is unsafe its place.

use cairn_tests::scale;
use xtask::rules::Report;

#[test]
fn every_rule_has_a_test_or_a_reason() {
    let report = Report::read(&xtask::root()).expect("the rules and the sources are read");
    println!("{}", report.table());
    let problems = report.problems();
    assert!(problems.is_empty(), "{} problems:\n{}", problems.len(), problems.join("\n"));
    assert_eq!(report.open(), 0, "rules are owed a test");
}

/// How many cases of each kind there are: of correctness, and of security.
const CASES: [(char, usize); 2] = [('R', 38), ('S', 28)];

#[test]
fn every_case_of_the_past_names_its_tests_or_what_is_missing() {
    let root = xtask::root();
    let tests = xtask::rules::test_names(&root).expect("the sources are read");
    let text = std::fs::read_to_string(root.join("tests/rules/cases.tsv")).expect("the table is there");
    let (mut cases, mut open, mut waiting) = (Vec::new(), Vec::new(), Vec::new());
    for line in text.lines().skip(1) {
        let cells: Vec<&str> = line.split('\t').collect();
        let [case, named, what] = cells.as_slice() else { panic!("three cells, not {line:?}") };
        assert!(!what.is_empty(), "{case} says nothing");
        match *named {
            "open" => open.push(format!("{case}: {what}")),
            // It has no subject yet.
            "waiting for the JSON gateway" => waiting.push(format!("{case}: {what}")),
            named => {
                let missing: Vec<&str> = named.split(", ").filter(|name| !tests.contains(*name)).collect();
                assert!(missing.is_empty(), "{case}: no test is called {missing:?}");
            }
        }
        cases.push((*case).to_owned());
    }
    let of = |(kind, count)| (1..=count).map(move |n| format!("{kind}{n:02}"));
    let all: Vec<String> = CASES.into_iter().flat_map(of).collect();
    assert_eq!(cases, all);
    let (open_count, waiting_count) = (open.len(), waiting.len());
    println!(
        "{} cases, {open_count} open, {waiting_count} waiting:\n{}",
        cases.len(),
        [open, waiting].concat().join("\n")
    );
    assert_eq!(open_count, 0, "cases are open");
    let (with_tests, floor) = (cases.len() - waiting_count, cases.len() - WAITING_MAX);
    assert!(scale::score("cases-of-the-past-with-tests", with_tests, floor));
    assert!(waiting_count <= WAITING_MAX, "{waiting_count} cases wait for the JSON gateway");
}

/// Cases whose whole subject is the JSON gateway.
const WAITING_MAX: usize = 5;

/// Where targets of fuzz runs keep their corpora, one directory each.
const CORPORA: [&str; 4] = ["engine", "engine/mvcc", "server/core", "server"];
const FUZZ_TARGETS_MIN: usize = 30;

#[test]
fn there_are_fuzz_targets_for_all_that_takes_bytes() {
    let root = xtask::root();
    let mut targets = Vec::new();
    for of in CORPORA {
        let dir = root.join(of).join("tests/fuzz/corpus");
        for entry in std::fs::read_dir(&dir).expect("a directory of corpora") {
            let path = entry.expect("an entry").path();
            assert!(
                std::fs::read_dir(&path).expect("a corpus").next().is_some(),
                "{} is empty",
                path.display()
            );
            targets.push(path.file_name().expect("it has a name").to_string_lossy().into_owned());
        }
    }
    targets.sort();
    println!("{}", targets.join(" "));
    assert!(scale::score("fuzz-targets", targets.len(), FUZZ_TARGETS_MIN));
}

/// Files of what is shipped that may be unsafe, and those of tests and comparisons.
const UNSAFE: [&str; 2] = ["engine/src/io/map.rs", "engine/src/io/sys.rs"];
const UNSAFE_BESIDE: [&str; 2] = ["benches/rivals/peers/src/lmdb.rs", "engine/mvcc/tests/counted/alloc.rs"];

#[test]
fn unsafe_code_is_in_the_mapping_and_the_signal_handler_alone() {
    let root = xtask::root();
    let found = xtask::sources::with_unsafe(&root).expect("the sources are read");
    let mut files: Vec<&str> = found.keys().map(String::as_str).collect();
    files.retain(|file| !UNSAFE_BESIDE.contains(file));
    for (file, count) in &found {
        println!("{count:3} {file}");
    }
    assert_eq!(files, UNSAFE);
    let manifest = std::fs::read_to_string(root.join("Cargo.toml")).expect("the manifest");
    for lint in ["unsafe_code = \"deny\"", "undocumented_unsafe_blocks = \"deny\""] {
        assert!(manifest.contains(lint), "{lint} is gone");
    }
    println!("score: unsafe-files {} <={} ok", files.len(), UNSAFE.len());
}
