// SPDX-License-Identifier: Apache-2.0
//! Which test proves which rule of `tests/rules/semantics-kv.md`, and which one of `semantics-ops.md`, as far as it is
//! about clusters, users and TLS.
//!
//! Owns      the reading of the rules, of `exempt.tsv` and `open.tsv` beside them, and of the citations in test code.
//! Holds     1. a citation counts only inside a test: in its doc comment, in its body, in a constant that
//!              the body names, or in a data file that the body names;
//!           2. every citation is of a rule that exists, and no exempt rule has a test;
//!           3. a rule that is open is owed: it says what is missing, and is counted until it has a test.
//! Never     runs a test, or judges whether one is good.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use crate::runner::at;
use crate::{Outcome, sources};

/// The pages of rules, and the sections of each that need tests; none named is all.
const PAGES: &[(&str, &[&str])] = &[
    ("tests/rules/semantics-kv.md", &[]),
    ("tests/rules/semantics-ops.md", &["ID", "CL", "LR", "SR", "BO", "RT", "AU", "TL"]),
];
/// Rules that need no test, and why.
const EXEMPT: &str = "tests/rules/exempt.tsv";
/// Rules that have no test yet, and what is missing.
const OPEN: &str = "tests/rules/open.tsv";

/// Who proves what.
pub struct Report {
    /// Rules in the order of the page.
    rules: Vec<String>,
    /// Rule → tests, as `file::test`.
    tests: BTreeMap<String, BTreeSet<String>>,
    /// Rule → why it has none.
    exempt: BTreeMap<String, String>,
    /// Rule → what is missing.
    open: BTreeMap<String, String>,
    bad_lines: Vec<String>,
}

impl Report {
    /// Reads the rules and the sources of the repository.
    pub fn read(root: &Path) -> Outcome<Report> {
        let read = |name: &str| {
            let path = root.join(name);
            fs::read(&path).map(|b| String::from_utf8_lossy(&b).into_owned()).map_err(|e| at(&path, &e))
        };
        let mut rules = Vec::new();
        for (page, sections) in PAGES {
            rules.extend(rules_of(&read(page)?, sections));
        }
        let prefixes: BTreeSet<String> =
            rules.iter().filter_map(|r| r.split_once('-')).map(|(p, _)| p.into()).collect();
        let files = sources::tracked(root)?;
        let data: Vec<(String, String)> = files
            .iter()
            .filter(|name| name.contains("/data/"))
            .map(|name| read(name).map(|text| (name.clone(), text)))
            .collect::<Outcome<_>>()?;
        let mut tests: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for name in files.iter().filter(|name| name.ends_with(".rs")) {
            for test in tests_of(&read(name)?) {
                let from_data =
                    data.iter().filter(|(path, _)| test.names_file(path)).map(|(_, text)| text.as_str());
                for rule in from_data.chain([test.text.as_str()]).flat_map(|text| citations(text, &prefixes))
                {
                    tests.entry(rule).or_default().insert(format!("{name}::{}", test.name));
                }
            }
        }
        let (exempt, mut bad_lines) = reasons(EXEMPT, &read(EXEMPT)?);
        let (open, mut bad) = reasons(OPEN, &read(OPEN)?);
        bad_lines.append(&mut bad);
        Ok(Report { rules, tests, exempt, open, bad_lines })
    }

    /// A line for each rule: its tests, or why it has none.
    pub fn table(&self) -> String {
        let mut out = String::new();
        for rule in &self.rules {
            let tests = self.tests.get(rule).map(|t| t.iter().map(String::as_str).collect::<Vec<_>>());
            let cell = match (tests, self.exempt.get(rule), self.open.get(rule)) {
                (Some(tests), ..) => tests.join(", "),
                (None, Some(reason), _) => format!("(none: {reason})"),
                (None, None, Some(missing)) => format!("(open: {missing})"),
                (None, None, None) => "NO TEST".to_owned(),
            };
            writeln!(out, "{rule}\t{cell}").expect("a string takes all that is written");
        }
        let tested = self.rules.iter().filter(|r| self.tests.contains_key(*r)).count();
        let (all, exempt, open) = (self.rules.len(), self.exempt.len(), self.open());
        write!(out, "{all} rules, {tested} with a test, {exempt} exempt, {open} open")
            .expect("a string takes all that is written");
        out
    }

    /// How many rules are owed a test.
    pub fn open(&self) -> usize {
        self.open.keys().filter(|rule| !self.tests.contains_key(*rule)).count()
    }

    /// What must not be; empty if every rule is accounted for.
    pub fn problems(&self) -> Vec<String> {
        let known: BTreeSet<&String> = self.rules.iter().collect();
        let mut problems = self.bad_lines.clone();
        for rule in &self.rules {
            match (self.tests.get(rule), self.exempt.contains_key(rule), self.open.contains_key(rule)) {
                (None, false, false) => problems.push(format!("{rule} has no test, and no file says why")),
                (Some(tests), true, _) => {
                    let test = tests.first().map_or("", String::as_str);
                    problems.push(format!("{rule} is in {EXEMPT} and has a test: {test}"));
                }
                (_, true, true) => problems.push(format!("{rule} is in {EXEMPT} and in {OPEN}")),
                _ => {}
            }
        }
        for (rule, tests) in self.tests.iter().filter(|(rule, _)| !known.contains(rule)) {
            problems.push(format!(
                "{rule} does not exist, and {} cites it",
                tests.first().map_or("", String::as_str)
            ));
        }
        for (file, lines) in [(EXEMPT, &self.exempt), (OPEN, &self.open)] {
            for rule in lines.keys().filter(|rule| !known.contains(rule)) {
                problems.push(format!("{rule} does not exist, and {file} names it"));
            }
        }
        problems
    }
}

/// The names of all test functions of the repository.
pub fn test_names(root: &Path) -> Outcome<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    for name in sources::tracked(root)?.iter().filter(|name| name.ends_with(".rs")) {
        let path = root.join(name);
        let text = fs::read_to_string(&path).map_err(|e| at(&path, &e))?;
        names.extend(tests_of(&text).into_iter().map(|test| test.name));
    }
    Ok(names)
}

/// The ids of lines `- **KV-1** …`; or, of a page of which some sections are wanted, of lines `CL-1  …`.
fn rules_of(page: &str, sections: &[&str]) -> Vec<String> {
    let id_of = |line| match sections {
        [] => str::strip_prefix(line, "- **")?.split_once("**").map(|(id, _)| id),
        _ => str::split_once(line, ' ').map(|(id, _)| id).filter(|id| {
            let section = id.split_once('-').map_or("", |(section, _)| section);
            sections.contains(&section)
        }),
    };
    page.lines().filter_map(id_of).filter(|id| is_id(id)).map(str::to_owned).collect()
}

fn is_id(id: &str) -> bool {
    id.split_once('-').is_some_and(|(prefix, number)| {
        !prefix.is_empty()
            && prefix.bytes().all(|b| b.is_ascii_uppercase())
            && !number.is_empty()
            && number.bytes().all(|b| b.is_ascii_digit())
    })
}

/// `rule<TAB>reason` lines of a file, below a head; a reason is never empty.
fn reasons(file: &str, text: &str) -> (BTreeMap<String, String>, Vec<String>) {
    let (mut reasons, mut bad) = (BTreeMap::new(), Vec::new());
    for line in text.lines().skip(1) {
        match line.split_once('\t') {
            Some((rule, reason)) if !reason.trim().is_empty() => {
                if reasons.insert(rule.to_owned(), reason.to_owned()).is_some() {
                    bad.push(format!("{rule} stands twice in {file}"));
                }
            }
            _ => bad.push(format!("{file}: a rule and a reason, not {line:?}")),
        }
    }
    (reasons, bad)
}

/// The rule ids in a text: a known prefix, a dash, digits, nothing word-like around them.
fn citations(text: &str, prefixes: &BTreeSet<String>) -> BTreeSet<String> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-' || c == '_'));
    let ids = words.filter(|w| is_id(w) && w.split_once('-').is_some_and(|(p, _)| prefixes.contains(p)));
    ids.map(str::to_owned).collect()
}

/// One test function with all the text that counts as its own.
struct Test {
    name: String,
    text: String,
}

impl Test {
    fn names_file(&self, path: &str) -> bool {
        let file = path.rsplit('/').next().unwrap_or(path);
        self.text.contains(file)
    }
}

/// The test functions of a file. Relies on the form `cargo fmt` gives: an item's last line is indented as its
/// first.
fn tests_of(source: &str) -> Vec<Test> {
    let lines: Vec<&str> = source.lines().collect();
    let constants = constants_of(&lines);
    let mut tests = Vec::new();
    for (i, line) in lines.iter().enumerate() {
        if !is_test_attribute(line) {
            continue;
        }
        let Some(offset) = lines[i..].iter().position(|l| function_name(l).is_some()) else { continue };
        let head = i + offset;
        let name = function_name(lines[head]).expect("the position was found by it").to_owned();
        let begin = i - lines[..i].iter().rev().take_while(|l| is_above_item(l)).count();
        let mut text = lines[begin..item_end(&lines, head)].join("\n");
        for (constant, body) in &constants {
            if has_word(&text, constant) {
                text.push('\n');
                text.push_str(body);
            }
        }
        tests.push(Test { name, text });
    }
    tests
}

fn is_test_attribute(line: &str) -> bool {
    let line = line.trim();
    line == "#[test]" || line.starts_with("#[tokio::test")
}

fn is_above_item(line: &str) -> bool {
    let line = line.trim_start();
    line.starts_with("//") && !line.starts_with("//!") || line.starts_with("#[")
}

fn function_name(line: &str) -> Option<&str> {
    let line = line.trim_start();
    let rest = ["fn ", "pub fn ", "async fn ", "pub async fn "].iter().find_map(|p| line.strip_prefix(p))?;
    rest.split(|c: char| !(c.is_alphanumeric() || c == '_')).next()
}

/// The index after the last line of the item that begins at `head`.
fn item_end(lines: &[&str], head: usize) -> usize {
    let indent = lines[head].len() - lines[head].trim_start().len();
    if lines[head].trim_end().ends_with(['}', ';']) {
        return head + 1;
    }
    let closes = |l: &&str| {
        let text = l.trim_start();
        l.len() - text.len() == indent
            && (text.starts_with('}') || text.starts_with(']') || text.starts_with(");"))
    };
    lines[head + 1..].iter().position(closes).map_or(lines.len(), |n| head + 1 + n + 1)
}

/// `const` and `static` items at the margin: name and text, with the comment above.
fn constants_of(lines: &[&str]) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for (i, line) in lines.iter().enumerate() {
        let line = line.strip_prefix("pub ").unwrap_or(line);
        let Some(rest) = line.strip_prefix("const ").or_else(|| line.strip_prefix("static ")) else {
            continue;
        };
        let name = rest.split(|c: char| !(c.is_alphanumeric() || c == '_')).next().unwrap_or_default();
        if name.is_empty() || name == "_" || name == "fn" {
            continue;
        }
        let begin = i - lines[..i].iter().rev().take_while(|l| is_above_item(l)).count();
        found.push((name.to_owned(), lines[begin..item_end(lines, i)].join("\n")));
    }
    found
}

fn has_word(text: &str, word: &str) -> bool {
    text.split(|c: char| !(c.is_alphanumeric() || c == '_')).any(|w| w == word)
}

#[cfg(test)]
#[path = "rules_tests.rs"]
mod tests;
