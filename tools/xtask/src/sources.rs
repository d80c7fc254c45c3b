// SPDX-License-Identifier: Apache-2.0
//! The files of the repository, and the licence line each source file must have.
//!
//! Owns      which files count as source.
//! Never     reads what is not tracked, except new files that are not ignored.

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
    fn code_needs_the_line_and_pages_do_not() {
        for name in ["engine/src/lib.rs", "proto/proto/mvccpb.proto", ".ci/run", "a/b.py"] {
            assert!(is_source(name), "{name}");
        }
        for name in ["README.md", "Cargo.lock", "tests/rules/wire.tsv", "LICENSE"] {
            assert!(!is_source(name), "{name}");
        }
    }
}
