// SPDX-License-Identifier: Apache-2.0
//! The program `engine`: its words go to the library.
//!
//! Owns      nothing.
//! Never     reads a flag.

use std::process::ExitCode;

fn main() -> ExitCode {
    cairn_engine_tool::run(std::env::args_os())
}
