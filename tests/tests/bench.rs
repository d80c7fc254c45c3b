// SPDX-License-Identifier: Apache-2.0
//! `cairn-bench` against real servers: what it prints, and that it judges one server alike on both sides.

use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::{Mutex, OnceLock, PoisonError};

use cairn_tests::{scale, tools};

/// The load generator in release, as its figures want it.
fn cairn_bench() -> PathBuf {
    static BENCH: OnceLock<PathBuf> = OnceLock::new();
    let build = || {
        let args = ["build", "--release", "--quiet", "--package", "cairn-bench"];
        let status = Command::new(env!("CARGO")).args(args).current_dir(xtask::root()).status();
        assert!(status.expect("cargo runs").success(), "cairn-bench does not build");
        tools::target().join("release/cairn-bench")
    };
    BENCH.get_or_init(build).clone()
}

/// One run at a time: they would measure each other, and a cluster that gets no CPU loses its leader.
fn run(args: &[&str]) -> (Output, String) {
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let output = Command::new(cairn_bench()).args(args).output().expect("cairn-bench runs");
    let text = String::from_utf8(output.stdout.clone()).expect("it prints UTF-8");
    println!("{text}{}", String::from_utf8_lossy(&output.stderr));
    (output, text)
}

/// The goals that a run printed: name, value, verdict.
fn goals(text: &str) -> Vec<(String, f64, String)> {
    text.lines()
        .filter_map(|line| {
            let words: Vec<&str> = line.split(' ').collect();
            let [name, value, target, verdict @ ("ok" | "miss")] = words.as_slice() else { return None };
            assert!(target.starts_with(['<', '>']), "{line}");
            Some(((*name).to_owned(), value.replace(',', "").parse().ok()?, (*verdict).to_owned()))
        })
        .collect()
}

#[test]
fn one_server_on_both_sides_of_a_comparison_has_ratios_near_one() {
    let Some(etcd) = tools::etcd() else { return };
    let program = etcd.etcd.to_str().expect("a path in the build directory");
    let sides = ["--left", program, "--right", program];
    let small = ["--rounds", "1", "--seconds", "1", "--warmup", "0.2", "--keys", "2000", "--in-flight", "32"];
    let (output, text) = run(&[&["compare"], sides.as_slice(), &small].concat());
    assert_eq!(output.status.code(), Some(0), "all requests are answered");
    let goals = goals(&text);
    let names: Vec<&str> = goals.iter().map(|(name, ..)| name.as_str()).collect();
    assert_eq!(names, ["get.32.cpu", "put.32.throughput", "put.32.cpu"]);
    for (name, ratio, _) in goals {
        // Wide, for machines that do other work: what is caught is a figure of the wrong side, unit or process.
        assert!((0.2..5.0).contains(&ratio), "{name} of etcd to itself: {ratio}");
    }
}

#[test]
fn scale_restarts_a_killed_server_and_has_a_figure_for_each_goal() {
    let Some(etcd) = tools::etcd() else { return };
    let program = etcd.etcd.to_str().expect("a path in the build directory");
    let sides = ["--left", program, "--right", program];
    let small = ["--keys", "2000", "--idle", "0", "--restarts", "1", "--seconds", "0.5"];
    let (output, text) = run(&[&["scale"], sides.as_slice(), &small].concat());
    assert_eq!(output.status.code(), Some(0), "no key is lost, and all requests are answered");
    let goals = goals(&text);
    let names: Vec<&str> = goals.iter().map(|(name, ..)| name.as_str()).collect();
    assert_eq!(names, ["memory", "file", "count", "page", "restart"]);
    assert!(goals.iter().all(|(_, ratio, _)| *ratio > 0.0));
}

// One command for issue and machine alike: `cargo xtask full compaction` runs the large numbers.
#[test]
fn puts_beside_a_compaction_have_a_figure_for_each_goal() {
    let cairn = tools::cairn();
    let program = cairn.to_str().expect("a path in the build directory");
    let number = |ci: usize, full: usize| scale::count(ci, full).to_string();
    let (revisions, keys) = (number(40_000, 1_000_000), number(4000, 100_000));
    let (rounds, seconds) = (number(1, 3), number(5, 20));
    let sizes = ["--revisions", &revisions, "--keys", &keys, "--rounds", &rounds, "--seconds", &seconds];
    // Each compaction is done in its window, or the command says so by its status.
    let goals = run_row(&[["compaction", "--server", program].as_slice(), &sizes].concat());
    assert_eq!(names(&goals), ["compaction.p99", "compaction.longest"]);
}

/// Runs a command that has a row of its own, and prints its goals for the scorecard.
fn run_row(args: &[&str]) -> Vec<(String, f64, String)> {
    let (output, text) = run(args);
    assert_eq!(output.status.code(), Some(0), "all requests are answered, and each goal has a figure");
    let goals = goals(&text);
    let of_goals = |line: &&str| goals.iter().any(|(name, ..)| line.split(' ').next() == Some(name.as_str()));
    text.lines().filter(of_goals).for_each(|line| println!("score: {line}"));
    goals
}

fn names(goals: &[(String, f64, String)]) -> Vec<&str> {
    goals.iter().map(|(name, ..)| name.as_str()).collect()
}

#[test]
fn guards_are_measured_against_plain_and_each_has_a_figure() {
    let Some(etcd) = tools::etcd() else { return };
    let (left, right) =
        (format!("etcd={}", etcd.etcd.display()), format!("cairn={}", tools::cairn().display()));
    let number = |ci: usize, full: usize| scale::count(ci, full).to_string();
    let (rounds, seconds, keys) = (number(1, 5), number(1, 3), number(1000, 10_000));
    let sides = ["guards", "--left", &left, "--right", &right];
    let sizes = ["--rounds", &rounds, "--seconds", &seconds, "--warmup", "0.2", "--keys", &keys];
    // A client that deciphers on the server's CPUs takes from the server what it costs itself. CI may have one CPU.
    let apart = if scale::is_full() { &["--pinned"][..] } else { &[] };
    let goals = run_row(&[sides.as_slice(), &sizes, apart].concat());
    let wanted = ["list.tls", "list.auth", "put.tls", "put.auth"];
    let wanted: Vec<String> =
        wanted.iter().flat_map(|guard| ["throughput", "cpu"].map(|what| format!("{guard}.{what}"))).collect();
    assert_eq!(names(&goals), wanted);
    for (name, kept, _) in &goals {
        // Wide, for machines that do other work.
        assert!((0.05..5.0).contains(kept), "{name} is {kept} of plain");
    }
}

#[test]
fn three_members_are_measured_and_lose_their_leader() {
    let Some(etcd) = tools::etcd() else { return };
    let (left, right) =
        (format!("etcd={}", etcd.etcd.display()), format!("cairn={}", tools::cairn().display()));
    let number = |ci: usize, full: usize| scale::count(ci, full).to_string();
    let (rounds, strikes) = (number(1, 3), number(1, 3));
    let (seconds, after, clients) = (number(1, 10), number(1, 5), number(16, 64));
    let sides = ["cluster", "--left", &left, "--right", &right, "--rounds", &rounds, "--strikes", &strikes];
    let sizes = ["--seconds", &seconds, "--after", &after, "--clients", &clients, "--connections", &clients];
    let goals = run_row(&[sides.as_slice(), &sizes].concat());
    let wanted = ["throughput", "p99", "kill.gap", "kill.gap-max", "stop.gap", "stop.gap-max"];
    assert_eq!(names(&goals), wanted.map(|name| format!("cluster.{name}")));
}

#[test]
fn a_follower_that_missed_much_catches_up_under_load() {
    let cairn = tools::cairn();
    let program = cairn.to_str().expect("a path in the build directory");
    let number = |ci: usize, full: usize| scale::count(ci, full).to_string();
    let (mib, seconds, in_flight) = (number(48, 2048), number(1, 20), number(8, 64));
    let sizes = ["--mib", &mib, "--seconds", &seconds, "--in-flight", &in_flight];
    let goals = run_row(&[["catch-up", "--server", program].as_slice(), &sizes].concat());
    assert_eq!(names(&goals), ["catch-up.memory-mib"]);
}

#[test]
fn a_program_that_is_missing_or_ends_is_exit_code_2_and_a_wrong_flag_64() {
    let (output, _) = run(&["compare", "--left", "/nonexistent/etcd"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("/nonexistent/etcd"));
    assert_eq!(run(&["put", "--endpoint", "127.0.0.1:1"]).0.status.code(), Some(2), "nobody listens there");
    assert_eq!(run(&["put", "--no-such-flag"]).0.status.code(), Some(64));
}
