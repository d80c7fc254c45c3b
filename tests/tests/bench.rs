// SPDX-License-Identifier: Apache-2.0
//! `cairn-bench` against real servers: what it prints, and that it judges one server alike on both sides.

use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::OnceLock;

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

fn run(args: &[&str]) -> (Output, String) {
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
    let (output, text) = run(&[
        "compaction",
        "--server",
        program,
        "--revisions",
        &revisions,
        "--keys",
        &keys,
        "--rounds",
        &rounds,
        "--seconds",
        &seconds,
    ]);
    assert_eq!(
        output.status.code(),
        Some(0),
        "all puts are answered, and each compaction is done in its window"
    );
    let goals = goals(&text);
    let names: Vec<&str> = goals.iter().map(|(name, ..)| name.as_str()).collect();
    assert_eq!(names, ["compaction.p99", "compaction.longest"]);
    text.lines().filter(|line| line.starts_with("compaction.")).for_each(|line| println!("score: {line}"));
}

#[test]
fn a_program_that_is_missing_or_ends_is_exit_code_2_and_a_wrong_flag_64() {
    let (output, _) = run(&["compare", "--left", "/nonexistent/etcd"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("/nonexistent/etcd"));
    assert_eq!(run(&["put", "--endpoint", "127.0.0.1:1"]).0.status.code(), Some(2), "nobody listens there");
    assert_eq!(run(&["put", "--no-such-flag"]).0.status.code(), Some(64));
}
