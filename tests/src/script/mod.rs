// SPDX-License-Identifier: Apache-2.0
//! Conformance scripts: commands, and what a server must answer to each.
//!
//! A file under `tests/data` is a list of sections. A section begins with `== RULES: what it shows`; lines
//! with `> ` are commands, the lines below one are its answer, `#` begins a remark.
//!
//! - `== fresh …` starts a new server; other sections go on with the one before.
//! - `== cairn …` is not asked of the reference, which is known to differ there.
//! - `== anyrev …` leaves open at which revision its headers are.
//! - `flags: …` above the first section are flags of the server.
//!
//! Owns      the reading of files, and the comparison as text.
//! Holds     every section is asked of Cairn, and of etcd 3.5.1 where it can be had: the scripts are right
//!           about etcd, or they fail.
//! Never     skips a line: what is not understood fails.

mod parse;
mod session;
mod show;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use crate::server::{Program, Server};
use crate::tools;
use session::Session;

/// Runs a file of `tests/data` against Cairn and against the reference.
///
/// `CAIRN_BLESS=etcd` or `CAIRN_BLESS=cairn` writes what that server answers into the file instead.
///
/// # Panics
/// At the first section with another answer.
pub async fn check(file: &str) {
    tokio::task::LocalSet::new().run_until(check_locally(file)).await;
}

async fn check_locally(file: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("data").join(file);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let script = Script::parse(&text);
    if let Ok(target) = std::env::var("CAIRN_BLESS") {
        return bless(&path, &script, &target).await;
    }
    if let Some(etcd) = tools::etcd() {
        run(&script, &Program::etcd(&etcd), true, file).await;
    }
    run(&script, &Program::cairn(), false, file).await;
}

/// A file of sections.
struct Script {
    flags: Vec<String>,
    sections: Vec<Section>,
}

struct Section {
    title: String,
    fresh: bool,
    cairn_only: bool,
    any_revision: bool,
    steps: Vec<Step>,
}

/// A command with its answer, or lines that are only to be kept.
enum Step {
    Command { line: String, answer: Vec<String> },
    Remark(String),
}

impl Script {
    fn parse(text: &str) -> Script {
        let mut script = Script { flags: Vec::new(), sections: Vec::new() };
        for line in text.lines() {
            if let Some(title) = line.strip_prefix("== ") {
                let words: Vec<&str> =
                    title.split(' ').take_while(|w| matches!(*w, "fresh" | "cairn" | "anyrev")).collect();
                script.sections.push(Section {
                    title: title.to_owned(),
                    fresh: words.contains(&"fresh"),
                    cairn_only: words.contains(&"cairn"),
                    any_revision: words.contains(&"anyrev"),
                    steps: Vec::new(),
                });
                continue;
            }
            let Some(section) = script.sections.last_mut() else {
                script.flags.extend(
                    line.strip_prefix("flags: ").into_iter().flat_map(str::split_whitespace).map(Into::into),
                );
                continue;
            };
            if let Some(command) = line.strip_prefix("> ") {
                section.steps.push(Step::Command { line: command.to_owned(), answer: Vec::new() });
            } else if line.is_empty() || line.starts_with('#') {
                section.steps.push(Step::Remark(line.to_owned()));
            } else if let Some(Step::Command { answer, .. }) = section.steps.last_mut() {
                answer.push(line.to_owned());
            } else {
                panic!("{line:?} of {:?} is no command, answer or remark", section.title);
            }
        }
        script
    }

    fn program(&self, program: &Program) -> Program {
        let mut program = program.clone();
        program.args.extend(self.flags.iter().cloned());
        program
    }
}

impl Section {
    async fn answer(&self, session: &mut Session, line: &str) -> Vec<String> {
        let lines = session.run(line).await;
        if self.any_revision { lines.into_iter().map(without_revision).collect() } else { lines }
    }
}

/// `@N` for the `@5` that a line begins with.
fn without_revision(line: String) -> String {
    match line.strip_prefix('@') {
        Some(rest) => format!("@N{}", rest.trim_start_matches(|c: char| c.is_ascii_digit())),
        None => line,
    }
}

async fn run(script: &Script, program: &Program, reference: bool, file: &str) {
    let program = script.program(program);
    let mut session: Option<Session> = None;
    for section in script.sections.iter().filter(|s| !(reference && s.cairn_only)) {
        if section.fresh {
            session = None;
        }
        let session = session.get_or_insert(Session::new(Server::start(program.clone()).await).await);
        let (mut expected, mut actual) = (String::new(), String::new());
        for step in &section.steps {
            let Step::Command { line, answer } = step else { continue };
            let answered = section.answer(session, line).await;
            for (out, lines) in [(&mut expected, answer), (&mut actual, &answered)] {
                writeln!(out, "> {line}\n{}", lines.join("\n")).expect("a string takes all that is written");
            }
        }
        let name = program.path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        assert!(
            expected == actual,
            "{file}: {name} answers otherwise in the section\n== {}\n{}",
            section.title,
            difference(&expected, &actual)
        );
    }
}

/// Both texts line by line, up to a little after the first difference.
fn difference(expected: &str, actual: &str) -> String {
    let (mut e, mut a) = (expected.lines(), actual.lines());
    let mut out = String::new();
    loop {
        match (e.next(), a.next()) {
            (Some(x), Some(y)) if x == y => writeln!(out, "  {x}"),
            (None, None) => return out,
            (x, y) => {
                let rest_e: Vec<&str> = x.into_iter().chain(e).take(AFTER).collect();
                let rest_a: Vec<&str> = y.into_iter().chain(a).take(AFTER).collect();
                writeln!(out, "expected:\n  {}\nactual:\n  {}", rest_e.join("\n  "), rest_a.join("\n  "))
                    .expect("a string takes all that is written");
                return out;
            }
        }
        .expect("a string takes all that is written");
    }
}

const AFTER: usize = 12;

/// Writes the target's answers into the file; sections that are not asked of it stay as they are.
async fn bless(path: &PathBuf, script: &Script, target: &str) {
    let (program, reference) = match target {
        "etcd" => (Program::etcd(&tools::etcd().expect("to bless with etcd, it must be had")), true),
        "cairn" => (Program::cairn(), false),
        other => panic!("CAIRN_BLESS is etcd or cairn, not {other}"),
    };
    let program = script.program(&program);
    let mut out = String::new();
    if !script.flags.is_empty() {
        writeln!(out, "flags: {}\n", script.flags.join(" ")).expect("a string takes all that is written");
    }
    let mut session: Option<Session> = None;
    for section in &script.sections {
        writeln!(out, "== {}", section.title).expect("a string takes all that is written");
        let asked = !(reference && section.cairn_only);
        if asked && section.fresh {
            session = None;
        }
        for step in &section.steps {
            let lines = match step {
                Step::Remark(line) => vec![line.clone()],
                Step::Command { line, answer } => {
                    let answer = if asked {
                        if session.is_none() {
                            session = Some(Session::new(Server::start(program.clone()).await).await);
                        }
                        section.answer(session.as_mut().expect("it was just started"), line).await
                    } else {
                        answer.clone()
                    };
                    [vec![format!("> {line}")], answer].concat()
                }
            };
            writeln!(out, "{}", lines.join("\n")).expect("a string takes all that is written");
        }
    }
    std::fs::write(path, out).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
}
