// SPDX-License-Identifier: Apache-2.0
//! The scan for citations, on sources made for it. The ids here are of no real rule.

use super::*;

const SOURCE: &str = r#"
//! A file about XX-1.

/// Not a test: XX-2.
fn helper() {
    // XX-3
}

/// The table of XX-4.
const CASES: &[(&str, u32)] = &[
    ("XX-5", 1),
];

/// Proves XX-6.
#[test]
fn first() {
    check("XX-7");
    // rule: XX-8
}

const UNUSED: &str = "XX-9";

mod inner {
    // Before XX-10, and not a test.
    fn between() {}

    #[tokio::test(flavor = "current_thread")]
    async fn second() {
        for case in CASES {}
        include_str!("data/third.txt");
    }
    // XX-11
}
"#;

fn cited(test: &Test) -> Vec<String> {
    citations(&test.text, &BTreeSet::from(["XX".to_owned()])).into_iter().collect()
}

#[test]
fn a_citation_counts_in_a_test_its_comment_and_the_constants_it_names() {
    let tests = tests_of(SOURCE);
    let names: Vec<&str> = tests.iter().map(|t| t.name.as_str()).collect();
    assert_eq!(names, ["first", "second"]);
    assert_eq!(cited(&tests[0]), ["XX-6", "XX-7", "XX-8"]);
    assert_eq!(cited(&tests[1]), ["XX-4", "XX-5"]);
}

#[test]
fn a_data_file_belongs_to_the_test_that_names_it() {
    let tests = tests_of(SOURCE);
    assert!(!tests[0].names_file("tests/data/third.txt"));
    assert!(tests[1].names_file("tests/data/third.txt"));
}

#[test]
fn a_word_that_only_holds_an_id_is_no_citation() {
    let prefixes = BTreeSet::from(["XX".to_owned()]);
    let found = citations("AXX-1 XX-2a XX-3_ YY-4 XX- XX-5; (XX-6) `XX-7`", &prefixes);
    assert_eq!(found.into_iter().collect::<Vec<_>>(), ["XX-5", "XX-6", "XX-7"]);
}

fn report(tests: &[(&str, &str)], exempt: &str) -> Report {
    report_of(tests, exempt, "rule\tmissing")
}

fn report_of(tests: &[(&str, &str)], exempt: &str, open: &str) -> Report {
    let (exempt, mut bad_lines) = reasons(EXEMPT, exempt);
    let (open, mut bad) = reasons(OPEN, open);
    bad_lines.append(&mut bad);
    let mut map: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (rule, test) in tests {
        map.entry((*rule).to_owned()).or_default().insert((*test).to_owned());
    }
    let rules = rules_of("- **XX-1** a\n- **XX-2** b\ntext XX-3", &[]);
    Report { rules, tests: map, exempt, open, bad_lines }
}

#[test]
fn a_page_gives_the_rules_of_the_sections_that_are_wanted() {
    let page = "XX-1  a\nYY-2  b\n      XX-3 c\nXX-4  d\nXX text";
    assert_eq!(rules_of(page, &["XX"]), ["XX-1", "XX-4"]);
    assert_eq!(rules_of(page, &[]), [""; 0]);
}

#[test]
fn a_rule_that_is_open_is_counted_until_it_has_a_test() {
    let report = report_of(&[("XX-1", "a")], "rule\treason", "rule\tmissing\nXX-2\tits test");
    assert_eq!(report.problems(), [""; 0]);
    assert!(report.table().ends_with("2 rules, 1 with a test, 0 exempt, 1 open"), "{}", report.table());
    let both = [("XX-1", "a"), ("XX-2", "b")];
    let closed = report_of(&both, "rule\treason", "rule\tmissing\nXX-2\tits test");
    assert_eq!((closed.problems().len(), closed.open()), (0, 0));
    let twice = report_of(&both[..1], "rule\treason\nXX-2\twhy", "rule\tmissing\nXX-2\tits test");
    assert_eq!(twice.problems().len(), 1);
}

#[test]
fn a_rule_is_tested_or_exempt_and_never_both() {
    assert_eq!(report(&[("XX-1", "a")], "rule\treason\nXX-2\tlater").problems(), Vec::<String>::new());
    assert_eq!(report(&[("XX-1", "a")], "rule\treason").problems().len(), 1);
    assert_eq!(report(&[("XX-1", "a"), ("XX-2", "a")], "rule\treason\nXX-2\tlater").problems().len(), 1);
}

#[test]
fn unknown_rules_and_empty_reasons_are_problems() {
    let both = [("XX-1", "a"), ("XX-2", "b")];
    assert_eq!(report(&[both[0], both[1], ("XX-9", "c")], "rule\treason").problems().len(), 1);
    assert_eq!(report(&both, "rule\treason\nXX-8\twhy").problems().len(), 1);
    assert_eq!(report(&[both[0]], "rule\treason\nXX-2\t ").problems().len(), 2);
}

#[test]
fn the_page_on_the_engines_tests_names_what_is_there() {
    let root = crate::root();
    let page = std::fs::read_to_string(root.join("engine/tests/README.md")).expect("the page is there");
    let tests = test_names(&root).expect("the sources are read");
    let mut named = 0;
    for name in page.split('`').skip(1).step_by(2) {
        if let Some((room, file)) = name.split_once("::") {
            let path = format!("engine/tests/{room}/{file}.rs");
            assert!(root.join(&path).is_file(), "{name}: there is no {path}");
        } else if name.matches('_').count() >= 3 {
            assert!(tests.contains(name), "no test is called {name}");
        } else {
            continue;
        }
        named += 1;
    }
    assert!(named >= 30, "{named} names");
}
