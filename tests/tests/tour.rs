// SPDX-License-Identifier: Apache-2.0
//! The README's tour: every line is typed, and answers what the page says.
//!
//! Holds     1. the lines are those of the page, in its order, against one server; none is left out;
//!           2. they are typed where the server was started: its data is in `default.etcd`;
//!           3. ports of other members that the page names are free ones here, in what is typed and what is answered.
//! Never     changes what a line prints before it is compared.

use std::path::Path;
use std::process::{Command, Stdio};

use cairn_tests::server::{Program, Server, free_ports};
use cairn_tests::tools;
use rustix::process::{Pid, Signal, kill_process};

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

/// What puts a free port in the place of each port of the page but the first member's: of four members in clear, and of
/// three under TLS.
fn others() -> impl Fn(&str) -> String {
    let named = |(member, of): (u16, u16)| [format!("{member}{of}379"), format!("{member}{of}380")];
    let all = (1..=4).map(|member| (member, 2)).chain((1..=3).map(|member| (member, 3)));
    let pairs: Vec<([String; 2], [u16; 2])> =
        all.map(|member| (named(member), free_ports().into())).collect();
    move |text| {
        let all = pairs.iter().flat_map(|(named, free)| named.iter().zip(free));
        all.fold(text.to_owned(), |text, (named, free)| text.replace(named, &free.to_string()))
    }
}

/// The members that lines of the page start, each of which leaves its number in a file; what is left of them at the
/// end is ended.
struct Members<'a>(&'a Path);

impl Drop for Members<'_> {
    fn drop(&mut self) {
        for member in ["m1", "m2", "m3", "m4", "s1", "s2", "s3"] {
            let pid = std::fs::read_to_string(self.0.join(format!("{member}.pid"))).ok();
            let Some(pid) = pid.and_then(|pid| Pid::from_raw(pid.trim().parse().ok()?)) else { continue };
            // The number may be someone else's by now; where it runs says whose it is.
            let runs_in = std::fs::read_link(format!("/proc/{}/cwd", pid.as_raw_nonzero()));
            if runs_in.is_ok_and(|dir| dir == self.0) {
                let _gone = kill_process(pid, Signal::KILL);
            }
        }
    }
}

#[tokio::test]
async fn every_line_of_the_tour_answers_as_the_page_says() {
    let Some(etcd) = tools::etcd() else { return };
    let server = Server::start(Program::cairn()).await;
    let lines = tour();
    assert!(lines.len() >= 53, "the tour has shrunk to {} lines", lines.len());
    let programs = [etcd.etcdctl, tools::engine(), tools::cairn()];
    let dirs = programs.iter().map(|program| program.parent().expect("a directory").display().to_string());
    let path = dirs.chain(std::env::var("PATH")).collect::<Vec<_>>().join(":");
    let here = tempfile::tempdir().expect("a temporary directory");
    std::os::unix::fs::symlink(server.data_dir(), here.path().join("default.etcd")).expect("a link");
    let _members = Members(here.path());
    let ports = others();
    for line in &lines {
        let line = Line { typed: ports(&line.typed), answer: ports(&line.answer) };
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
