// SPDX-License-Identifier: Apache-2.0
//! `bench`: every phase does what it says, and nothing is left.

use std::fs;

use crate::world::{engine, json};

#[test]
fn all_phases_run_and_the_scratch_directory_goes() {
    let temp = tempfile::tempdir().expect("a temporary directory");
    let few = &["--keys", "1234", "--batch", "100", "--value-bytes", "64"][..];
    let out = engine(temp.path(), &[&["bench", "."], few].concat()).with(0);
    for phase in ["floor", "insert", "point read", "scan"] {
        assert!(out.lines().any(|line| line.starts_with(phase) && line.contains("1,234")), "{phase}: {out}");
    }
    assert!(out.contains(" of the floor"), "{out}");
    let figures = &json(&engine(temp.path(), &[&["bench", "--json", "."], few].concat()).with(0))[0];
    let phases = figures["phases"].as_array().expect("a list");
    assert_eq!(phases.len(), 4);
    for phase in phases {
        let figure = |name: &str| phase[name].as_f64().expect("a number");
        assert!(figure("seconds") > 0.0 && figure("keys_per_second") > 0.0, "{phase}");
        assert!(figure("p50_us") <= figure("p99_us") && figure("p99_us") <= figure("max_us"), "{phase}");
    }
    assert_eq!(fs::read_dir(temp.path()).expect("a directory").count(), 0);
    fs::create_dir(temp.path().join("engine-bench")).expect("makes");
    let ran = engine(temp.path(), &["bench", "."]);
    assert_eq!(ran.code, 2);
    assert!(ran.err.contains("another bench is at work, or was cut short"), "{}", ran.err);
    assert!(temp.path().join("engine-bench").is_dir());
    assert_eq!(engine(temp.path(), &["bench", ".", "--batch", "0"]).code, 64);
}
