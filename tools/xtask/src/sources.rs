// SPDX-License-Identifier: Apache-2.0
//! The files of the repository, the licence line each source file must have, and which of them are `unsafe`.
//!
//! Owns      which files count as source, and what of a Rust file is code.
//! Never     reads what is not tracked, except new files that are not ignored.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::Outcome;
use crate::runner::at;

/// Files whose language has comments and whose text is ours.
const LICENSED: &[&str] = &["rs", "proto", "py", "js", "mjs", "go", "sh", "c", "h"];

/// Scripts without an extension.
const SCRIPTS: &[&str] = &[".ci/run"];

/// How far down the line may stand: below a `#!` line, at most.
const HEAD_LINES: usize = 2;

/// Paths of all files that are, or are about to be, in the repository.
pub fn tracked(root: &Path) -> Outcome<Vec<String>> {
    let mut git = Command::new("git");
    git.args(["ls-files", "--cached", "--others", "--exclude-standard"]).current_dir(root);
    let output = git.output().map_err(|e| format!("git ls-files: {e}"))?;
    if !output.status.success() {
        return Err(format!("git ls-files: {}", String::from_utf8_lossy(&output.stderr).trim()));
    }
    let names = String::from_utf8(output.stdout).map_err(|e| format!("git ls-files: {e}"))?;
    Ok(names.lines().filter(|name| root.join(name).is_file()).map(str::to_owned).collect())
}

/// Those of the files that should have a licence line and have none.
pub fn without_licence(root: &Path, files: &[String]) -> Outcome<Vec<String>> {
    let mut without = Vec::new();
    let mut looked_at = 0;
    for name in files.iter().filter(|name| is_source(name)) {
        let path = root.join(name);
        let bytes = fs::read(&path).map_err(|e| at(&path, &e))?;
        looked_at += 1;
        if !has_licence(&String::from_utf8_lossy(&bytes)) {
            without.push(name.clone());
        }
    }
    if looked_at == 0 { Err("no source file was found to look at".to_owned()) } else { Ok(without) }
}

/// The Rust files whose code has the word `unsafe`, and how often.
pub fn with_unsafe(root: &Path) -> Outcome<BTreeMap<String, usize>> {
    let mut found = BTreeMap::new();
    for name in tracked(root)?.into_iter().filter(|name| name.ends_with(".rs")) {
        let path = root.join(&name);
        let text = fs::read_to_string(&path).map_err(|e| at(&path, &e))?;
        let code = code_of(&text);
        let words = code.split(|c: char| !(c.is_alphanumeric() || c == '_'));
        let count = words.filter(|word| *word == "unsafe").count();
        if count > 0 {
            found.insert(name, count);
        }
    }
    Ok(found)
}

/// A Rust file without its comments and the insides of its texts.
fn code_of(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let raw =
            rest.strip_prefix('r').filter(|_| !code.ends_with(|c: char| c.is_alphanumeric() || c == '_'));
        let marks = raw.map_or(0, |raw| raw.len() - raw.trim_start_matches('#').len());
        let skipped = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if let Some(comment) = rest.strip_prefix("/*") {
            comment.find("*/").map_or(rest.len(), |end| end + 4)
        } else if let Some(body) = raw.and_then(|raw| raw[marks..].strip_prefix('"')) {
            let end = format!("\"{}", "#".repeat(marks));
            body.find(&end).map_or(rest.len(), |at| rest.len() - body.len() + at + end.len())
        } else if let Some(body) = rest.strip_prefix('"') {
            1 + end_of_text(body)
        } else if rest.starts_with("'\"'") || rest.starts_with("'\\") {
            // A character that would begin a text, or stand for another.
            rest[2..].find('\'').map_or(rest.len(), |end| end + 3)
        } else {
            code.push(first);
            rest = &rest[first.len_utf8()..];
            continue;
        };
        code.push(' ');
        rest = &rest[skipped..];
    }
    code
}

/// Where a text ends, behind its second quote.
fn end_of_text(body: &str) -> usize {
    let mut escaped = false;
    for (at, c) in body.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    body.len()
}

fn is_source(name: &str) -> bool {
    SCRIPTS.contains(&name)
        || name.rsplit_once('.').is_some_and(|(_, extension)| LICENSED.contains(&extension))
}

fn has_licence(text: &str) -> bool {
    text.lines().take(HEAD_LINES).any(|line| line.trim_end().ends_with("SPDX-License-Identifier: Apache-2.0"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_licence_line_is_one_of_the_first_two() {
        assert!(has_licence("// SPDX-License-Identifier: Apache-2.0\nfn main() {}"));
        assert!(has_licence("#!/bin/sh\n# SPDX-License-Identifier: Apache-2.0\n"));
        assert!(!has_licence("\n\n// SPDX-License-Identifier: Apache-2.0\n"));
        assert!(!has_licence("// SPDX-License-Identifier: MIT\n"));
        assert!(!has_licence(""));
    }

    #[test]
    fn what_is_said_of_code_is_not_code() {
        let text = r###"
// unsafe in a comment, and a "quote
/* unsafe { } */ let lifetime: &'static str = "unsafe \" {"; let quote = '"'; let other = '\'';
let raw = r#"unsafe " {"#; fn expr() {} let b = b"unsafe"; let c = r"unsafe";
unsafe { unsafe_code() } // SAFETY: unsafe
"###;
        let code = code_of(text);
        let words = code.split(|c: char| !(c.is_alphanumeric() || c == '_'));
        assert_eq!(words.clone().filter(|word| *word == "unsafe").count(), 1, "{code}");
        for word in ["lifetime", "quote", "other", "raw", "expr", "b", "c", "unsafe_code"] {
            assert!(words.clone().any(|other| other == word), "{word}: {code}");
        }
    }

    #[test]
    fn code_needs_the_line_and_pages_do_not() {
        for name in ["engine/src/lib.rs", "proto/proto/mvccpb.proto", ".ci/run", "a/b.py"] {
            assert!(is_source(name), "{name}");
        }
        for name in ["README.md", "Cargo.lock", "tests/rules/wire.tsv", "LICENSE"] {
            assert!(!is_source(name), "{name}");
        }
    }
}
