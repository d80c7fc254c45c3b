// SPDX-License-Identifier: Apache-2.0
//! The README's tour: every line is typed, and answers what the page says.
//!
//! Holds     1. the lines are those of the page, in its order, against one server; none is left out;
//!           2. they are typed where the server was started: its data is in `default.etcd`.
//! Never     changes what a line prints before it is compared.

use std::process::{Command, Stdio};

use cairn_tests::server::{Program, Server};
use cairn_tests::tools;

const README: &str = include_str!("../../README.md");

/// The longest that one line may take.
const LINE_S: &str = "30";

/// A line of the page and what stands below it.
struct Line {
    typed: String,
    answer: String,
}

fn tour() -> Vec<Line> {
    let mut lines: Vec<Line> = Vec::new();
    for block in README.split("```console\n").skip(1) {
        let block = block.split("```").next().expect("a first part");
        for text in block.lines() {
            match text.strip_prefix("$ ") {
                Some(typed) => lines.push(Line { typed: typed.to_owned(), answer: String::new() }),
                None => {
                    let line = lines.last_mut().expect("a block begins with a line to type");
                    line.answer += text;
                    line.answer += "\n";
                }
            }
        }
    }
    lines
}

#[tokio::test]
async fn every_line_of_the_tour_answers_as_the_page_says() {
    let Some(etcd) = tools::etcd() else { return };
    let server = Server::start(Program::cairn()).await;
    let lines = tour();
    assert!(lines.len() >= 19, "the tour has shrunk to {} lines", lines.len());
    let programs = [etcd.etcdctl, tools::engine()];
    let dirs = programs.iter().map(|program| program.parent().expect("a directory").display().to_string());
    let path = dirs.chain(std::env::var("PATH")).collect::<Vec<_>>().join(":");
    let here = tempfile::tempdir().expect("a temporary directory");
    std::os::unix::fs::symlink(server.data_dir(), here.path().join("default.etcd")).expect("a link");
    for line in &lines {
        let output = Command::new("timeout")
            .args([LINE_S, "bash", "-c", &line.typed])
            .env("PATH", &path)
            .current_dir(&here)
            .env("ETCDCTL_API", "3")
            .env("ETCDCTL_ENDPOINTS", server.url())
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .output()
            .expect("bash runs");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(String::from_utf8_lossy(&output.stdout), line.answer, "$ {}\n{errors}", line.typed);
    }
    println!("{} lines typed", lines.len());
}
