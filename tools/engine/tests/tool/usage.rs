// SPDX-License-Identifier: Apache-2.0
//! The command line: wrong usage is 64, help is for people, pages and completions are made at build.

use std::path::Path;

use expect_test::expect_file;

use crate::world::engine;

fn run(args: &[&str]) -> crate::world::Ran {
    engine(Path::new("."), args)
}

#[test]
fn wrong_usage_is_64_and_says_what_is_wrong() {
    for args in [
        &["chekc", "x"][..],
        &["check"][..],
        &["check", "--deeep", "x"],
        &["check", "x", "y"],
        &["info", "x", "--wal-dir"],
    ] {
        let ran = run(args);
        assert_eq!((ran.code, ran.out.as_str()), (64, ""), "{args:?}: {}", ran.err);
        assert!(ran.err.contains("--help"), "{args:?}: {}", ran.err);
    }
    assert!(run(&["chekc", "x"]).err.contains("'check'"), "a hint");
    let ran = run(&[]);
    assert_eq!((ran.code, ran.out.as_str()), (64, ""));
    assert!(ran.err.contains("Usage: engine [OPTIONS] <COMMAND>"), "{}", ran.err);
}

#[test]
fn help_and_version_are_answers() {
    expect_file!["../data/help.txt"].assert_eq(&run(&["--help"]).with(0));
    expect_file!["../data/help-check.txt"].assert_eq(&run(&["check", "--help"]).with(0));
    assert!(run(&["--version"]).with(0).starts_with("engine "));
}

#[test]
fn every_command_has_a_manual_page_and_is_completed_in_every_shell() {
    let program = Path::new(env!("CARGO_BIN_EXE_engine"));
    let docs = program.parent().expect("a directory").join("engine-docs");
    let help = run(&["--help"]).with(0);
    let commands =
        help.split("Commands:\n").nth(1).and_then(|rest| rest.split("\n\n").next()).expect("a list");
    let commands: Vec<&str> = commands.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert!(commands.len() >= 17, "{help}");
    let below =
        ["wal-dump", "wal-verify", "surgery-previous-slot", "surgery-rebuild-space-map", "surgery-cut-wal"];
    for command in commands.into_iter().chain(below) {
        let page = docs.join(format!("man1/engine-{command}.1"));
        let page = std::fs::read_to_string(&page).unwrap_or_else(|e| panic!("{}: {e}", page.display()));
        assert!(page.contains(".SH SYNOPSIS"), "{command}");
        for shell in ["engine.bash", "_engine", "engine.fish", "engine.elv", "_engine.ps1"] {
            let script = std::fs::read_to_string(docs.join("completions").join(shell)).expect("is made");
            let word = command.split_once('-').map_or(command, |(_, word)| word);
            assert!(script.contains(word), "{command} in {shell}");
        }
    }
}
