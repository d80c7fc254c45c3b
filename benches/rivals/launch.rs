// SPDX-License-Identifier: Apache-2.0
//! `cargo bench -p cairn-rivals`: builds the comparison in `peers`, and runs it.
//!
//! Owns      the way from the root of the repository to a workspace beside it.
//! Holds     what follows `--` reaches the comparison as it is; its exit code is this one's.
//! Never     builds a rival as part of the workspace: a hundred crates and a C library stay out of its lock
//!           file, of its lint and of its tests.

use std::path::Path;
use std::process::{Command, ExitCode};

fn main() -> ExitCode {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let target = here.join("../../target/rivals");
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .args(["run", "--release", "--locked", "--quiet", "--manifest-path"])
        .arg(here.join("peers/Cargo.toml"));
    cargo.arg("--target-dir").arg(target.join("build")).arg("--");
    // Cargo says `--bench` to whatever it runs as one.
    cargo.args(std::env::args_os().skip(1).filter(|arg| arg != "--bench"));
    match cargo.status() {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("rivals: cargo does not start: {error}");
            ExitCode::FAILURE
        }
    }
}
