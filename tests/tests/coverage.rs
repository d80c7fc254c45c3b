// SPDX-License-Identifier: Apache-2.0
//! Every rule of `semantics-kv.md` has its test, or says why not.

use xtask::rules::Report;

#[test]
fn every_rule_has_a_test_or_a_reason() {
    let report = Report::read(&xtask::root()).expect("the rules and the sources are read");
    println!("{}", report.table());
    let problems = report.problems();
    assert!(problems.is_empty(), "{} problems:\n{}", problems.len(), problems.join("\n"));
}
