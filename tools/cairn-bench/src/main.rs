// SPDX-License-Identifier: Apache-2.0
//! The program `cairn-bench`: its words go to the library.
//!
//! Owns      nothing.
//! Never     reads a flag.

use std::process::ExitCode;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    cairn_bench::commands::run(&words)
}
