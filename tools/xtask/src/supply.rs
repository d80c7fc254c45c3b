// SPDX-License-Identifier: Apache-2.0
//! What the dependencies are: their licences, where they come from, which of them are there twice, and what is
//! known to be wrong with them.
//!
//! Owns      the carrying out of `deny.toml` from `cargo metadata`, for machines without `cargo deny`.
//! Holds     advisories are never said to be fine without having been looked at.
//! Never     asks the network.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Outcome;
use crate::json::Json;
use crate::runner::{Ran, Tally, at, cargo, check};

/// Of all targets of `deny.toml` the one that the most is compiled for.
const TARGET: &str = "x86_64-unknown-linux-gnu";
const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// One package that is compiled in.
#[derive(Clone, Debug, PartialEq)]
pub struct Package {
    pub name: String,
    pub version: String,
    /// Empty where it says none.
    pub licence: String,
    /// `None` for our own.
    pub source: Option<String>,
}

/// What `deny.toml` says.
#[derive(Debug, Default)]
pub struct Policy {
    licences: BTreeSet<String>,
    /// Name → the packages that may bring it.
    banned: BTreeMap<String, Vec<String>>,
    /// `name@version` that may stand beside another version.
    twice: BTreeSet<String>,
}

impl Policy {
    /// Reads the lists of the file, which are written one way: quoted items between brackets.
    pub fn read(text: &str) -> Policy {
        let text: String = text
            .lines()
            .filter(|line| !line.trim_start().starts_with('#'))
            .map(|l| format!("{l}\n"))
            .collect();
        let list = |key: &str| {
            let from = text.find(&format!("\n{key} = [")).map_or(text.len(), |at| at + 1);
            let rest = &text[from..];
            let mut depth = 0;
            let end = rest.char_indices().find(|(_, c)| {
                depth += i32::from(*c == '[') - i32::from(*c == ']');
                *c == ']' && depth == 0
            });
            rest[..end.map_or(0, |(at, _)| at)].to_owned()
        };
        let quoted =
            |text: &str| -> Vec<String> { text.split('"').skip(1).step_by(2).map(str::to_owned).collect() };
        let banned = list("deny");
        let banned = banned.split('{').skip(1).filter_map(|entry| {
            let mut names = quoted(entry).into_iter();
            Some((names.next()?, names.collect()))
        });
        let twice = list("skip");
        let twice = twice.split('{').skip(1).filter_map(|entry| quoted(entry).into_iter().next());
        Policy {
            licences: quoted(&list("allow")).into_iter().collect(),
            banned: banned.collect(),
            twice: twice.collect(),
        }
    }

    /// Whether an expression can be met by licences that are allowed.
    pub fn allows(&self, expression: &str) -> bool {
        let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
        let words: Vec<&str> = spaced.split_whitespace().collect();
        let mut at = 0;
        let met = self.any(&words, &mut at);
        met && at == words.len()
    }

    fn any(&self, words: &[&str], at: &mut usize) -> bool {
        let mut met = self.all(words, at);
        while words.get(*at) == Some(&"OR") {
            *at += 1;
            met |= self.all(words, at);
        }
        met
    }

    fn all(&self, words: &[&str], at: &mut usize) -> bool {
        let mut met = self.one(words, at);
        while words.get(*at) == Some(&"AND") {
            *at += 1;
            met &= self.one(words, at);
        }
        met
    }

    fn one(&self, words: &[&str], at: &mut usize) -> bool {
        let Some(word) = words.get(*at) else { return false };
        *at += 1;
        if *word == "(" {
            let met = self.any(words, at);
            let closed = words.get(*at) == Some(&")");
            *at += 1;
            return met && closed;
        }
        let mut name = (*word).to_owned();
        if words.get(*at) == Some(&"WITH") {
            name = format!("{name} WITH {}", words.get(*at + 1).unwrap_or(&""));
            *at += 2;
        }
        self.licences.contains(&name)
    }

    /// What is wrong with the packages. `brings` are pairs of names: the first depends on the second.
    pub fn problems(&self, packages: &[Package], brings: &[(String, String)]) -> Vec<String> {
        let mut problems = Vec::new();
        let mut versions: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for package in packages {
            let Package { name, version, licence, source } = package;
            versions.entry(name).or_default().push(version);
            let Some(source) = source else { continue };
            if source != REGISTRY {
                problems.push(format!("{name} {version} comes from {source}"));
            }
            if !self.allows(licence) {
                problems.push(format!("{name} {version}: the licence {licence:?} is not allowed"));
            }
            if let Some(wrappers) = self.banned.get(name) {
                let by = brings.iter().filter(|(_, brought)| brought == name).map(|(by, _)| by);
                for by in by.filter(|by| !wrappers.contains(by)) {
                    problems.push(format!("{name} is banned, and {by} brings it"));
                }
            }
        }
        for (name, mut versions) in versions {
            let allowed = |version: &&str| self.twice.contains(&format!("{name}@{version}"));
            versions.retain(|version| !allowed(version));
            if versions.len() > 1 {
                problems.push(format!("{name} is there as {}", versions.join(" and as ")));
            }
        }
        problems
    }
}

/// The part `supply` of `cargo xtask test`.
pub fn run(root: &Path) -> Outcome<Ran> {
    let path = root.join("deny.toml");
    let policy = Policy::read(&std::fs::read_to_string(&path).map_err(|e| at(&path, &e))?);
    let (packages, brings) = packages(root)?;
    let problems = policy.problems(&packages, &brings);
    for problem in &problems {
        println!("{problem}");
    }
    println!("licences, sources, bans, duplicates: {} packages, {} problems", packages.len(), problems.len());
    let mut ran = Ran { tally: Tally::one(problems.is_empty() && packages.len() > 50), ..Ran::default() };
    match advisories(root) {
        Some(command) => {
            let looked = check(command)?;
            println!("advisories: {}", if looked.tally.failed == 0 { "ok" } else { "miss" });
            ran.tally += looked.tally;
        }
        None => {
            let why = "advisories: not run, there is no `cargo deny` with a database here";
            println!("{why}");
            ran.skips.push(why.into());
            ran.tally.skipped += 1;
        }
    }
    Ok(ran)
}

/// Who brings whom, by name.
type Brings = Vec<(String, String)>;

/// The packages that are compiled on [`TARGET`], and who brings whom.
fn packages(root: &Path) -> Outcome<(Vec<Package>, Brings)> {
    let mut command =
        cargo(root, &["metadata", "--format-version=1", "--locked", "--offline", "--all-features"]);
    command.args(["--filter-platform", TARGET]);
    let output = command.output().map_err(|e| format!("cargo metadata: {e}"))?;
    if !output.status.success() {
        return Err(format!("cargo metadata: {}", String::from_utf8_lossy(&output.stderr).trim()));
    }
    let metadata = Json::read(&String::from_utf8_lossy(&output.stdout))?;
    let field = |json: &Json, name: &str| json.get(name).text().unwrap_or_default().to_owned();
    let mut by_id = BTreeMap::new();
    for package in metadata.get("packages").list() {
        let read = Package {
            name: field(package, "name"),
            version: field(package, "version"),
            licence: field(package, "license"),
            source: package.get("source").text().map(str::to_owned),
        };
        by_id.insert(field(package, "id"), read);
    }
    // Packages that no feature asks for are listed too; the graph starts at our own.
    let nodes = metadata.get("resolve").get("nodes").list();
    let needs: BTreeMap<String, Vec<String>> = nodes
        .iter()
        .map(|node| {
            let deps = node.get("deps").list().iter().map(|dep| field(dep, "pkg"));
            (field(node, "id"), deps.collect())
        })
        .collect();
    let mut found = BTreeSet::new();
    let mut open: Vec<String> = metadata
        .get("workspace_members")
        .list()
        .iter()
        .filter_map(|id| id.text().map(str::to_owned))
        .collect();
    let mut brings = Vec::new();
    while let Some(id) = open.pop() {
        if !found.insert(id.clone()) {
            continue;
        }
        for need in needs.get(&id).into_iter().flatten() {
            if let (Some(by), Some(brought)) = (by_id.get(&id), by_id.get(need)) {
                brings.push((by.name.clone(), brought.name.clone()));
            }
            open.push(need.clone());
        }
    }
    Ok((found.iter().filter_map(|id| by_id.get(id).cloned()).collect(), brings))
}

/// The command that looks at advisories, where there is one, and a database for it.
fn advisories(root: &Path) -> Option<Command> {
    let home = std::env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo")))?;
    let database = ["advisory-dbs", "advisory-db"].iter().any(|name| home.join(name).is_dir());
    let tool = cargo(root, &["deny", "--version"]).output().is_ok_and(|output| output.status.success());
    (database && tool).then(|| cargo(root, &["deny", "--offline", "check", "advisories"]))
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: &str = r#"
[licenses]
allow = [
    "MIT",
    # A comment with "quotes".
    "Apache-2.0 WITH LLVM-exception",
    "ISC",
]
[bans]
skip = [{ crate = "twice@1.0.0", reason = "old" }]
deny = [{ name = "cmake", wrappers = ["sys"] }, { name = "bad" }]
"#;

    fn package(name: &str, version: &str, licence: &str) -> Package {
        Package {
            name: name.into(),
            version: version.into(),
            licence: licence.into(),
            source: Some(REGISTRY.into()),
        }
    }

    #[test]
    fn a_licence_is_an_expression() {
        let policy = Policy::read(POLICY);
        for (expression, allowed) in [
            ("MIT", true),
            ("MIT OR GPL-3.0", true),
            ("GPL-3.0/MIT", true),
            ("MIT AND ISC", true),
            ("MIT AND GPL-3.0", false),
            ("ISC AND (GPL-3.0 OR MIT)", true),
            ("ISC AND (GPL-3.0 OR LGPL-2.1)", false),
            ("Apache-2.0 WITH LLVM-exception OR GPL-3.0", true),
            ("Apache-2.0", false),
            ("", false),
            ("MIT)", false),
        ] {
            assert_eq!(policy.allows(expression), allowed, "{expression}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        let policy = Policy::read(POLICY);
        let own = Package { source: None, ..package("own", "0.1.0", "") };
        let foreign = Package { source: Some("git+https://x".into()), ..package("forked", "1.0.0", "MIT") };
        let packages = [
            own,
            foreign,
            package("twice", "1.0.0", "MIT"),
            package("twice", "2.0.0", "MIT"),
            package("more", "1.0.0", "MIT"),
            package("more", "2.0.0", "MIT"),
            package("copyleft", "1.0.0", "GPL-3.0"),
            package("cmake", "0.1.0", "MIT"),
            package("bad", "1.0.0", "MIT"),
        ];
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        let brings = [pair("sys", "cmake"), pair("own", "cmake"), pair("own", "bad")];
        assert_eq!(
            policy.problems(&packages, &brings),
            [
                "forked 1.0.0 comes from git+https://x",
                "copyleft 1.0.0: the licence \"GPL-3.0\" is not allowed",
                "cmake is banned, and own brings it",
                "bad is banned, and own brings it",
                "more is there as 1.0.0 and as 2.0.0",
            ]
        );
        assert_eq!(policy.problems(&[package("cmake", "1.0.0", "MIT")], &brings[..1]), Vec::<String>::new());
    }
}
