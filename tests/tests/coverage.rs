// SPDX-License-Identifier: Apache-2.0
//! Every rule of `semantics-kv.md`, and of `semantics-ops.md` about clusters, users and TLS, has its test, or says why
//! not; so does every case of the past.

use xtask::rules::Report;

/// Rules that may be owed a test: there are only ever fewer.
const RULES_OPEN_MAX: usize = 24;

#[test]
fn every_rule_has_a_test_or_a_reason() {
    let report = Report::read(&xtask::root()).expect("the rules and the sources are read");
    println!("{}", report.table());
    let problems = report.problems();
    assert!(problems.is_empty(), "{} problems:\n{}", problems.len(), problems.join("\n"));
    assert!(report.open() <= RULES_OPEN_MAX, "{} rules are owed a test", report.open());
}

/// Cases of the past that may be without a test.
const OPEN_MAX: usize = 6;

#[test]
fn every_case_of_the_past_names_its_tests_or_what_is_missing() {
    let root = xtask::root();
    let tests = xtask::rules::test_names(&root).expect("the sources are read");
    let text = std::fs::read_to_string(root.join("tests/rules/cases.tsv")).expect("the table is there");
    let (mut cases, mut open) = (Vec::new(), Vec::new());
    for line in text.lines().skip(1) {
        let cells: Vec<&str> = line.split('\t').collect();
        let [case, named, what] = cells.as_slice() else { panic!("three cells, not {line:?}") };
        assert!(!what.is_empty(), "{case} says nothing");
        if *named == "open" {
            open.push(format!("{case}: {what}"));
        } else {
            let missing: Vec<&str> = named.split(", ").filter(|name| !tests.contains(*name)).collect();
            assert!(missing.is_empty(), "{case}: no test is called {missing:?}");
        }
        cases.push((*case).to_owned());
    }
    let all: Vec<String> = (1..=38).map(|n| format!("R{n:02}")).collect();
    assert_eq!(cases, all);
    println!("{} cases, {} open:\n{}", cases.len(), open.len(), open.join("\n"));
    assert!(open.len() <= OPEN_MAX, "{} cases are open", open.len());
}
