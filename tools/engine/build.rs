// SPDX-License-Identifier: Apache-2.0
//! Makes the manual pages and the shell completions of `engine`, beside the program: `target/PROFILE/engine-docs`.
//!
//! Owns      what is made, and where.
//! Never     knows a command: it walks what `cli.rs` declares.

use std::path::{Path, PathBuf};
use std::{env, fs, io};

use clap::{CommandFactory, ValueEnum};
use clap_complete::Shell;

#[allow(dead_code)] // the program reads the fields
#[path = "src/cli.rs"]
mod cli;

fn main() -> io::Result<()> {
    println!("cargo::rerun-if-changed=src/cli.rs");
    println!("cargo::rerun-if-changed=build.rs");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it for build scripts"));
    // OUT_DIR is target/PROFILE/build/PACKAGE/out.
    let profile = out.ancestors().nth(3).expect("three directories below the profile's");
    let docs = profile.join("engine-docs");
    fs::create_dir_all(docs.join("man1"))?;
    fs::create_dir_all(docs.join("completions"))?;
    let command = cli::Cli::command();
    clap_mangen::generate_to(command.clone(), docs.join("man1"))?;
    completions(command, &docs.join("completions"))
}

fn completions(mut command: clap::Command, dir: &Path) -> io::Result<()> {
    for shell in Shell::value_variants() {
        clap_complete::generate_to(*shell, &mut command, "engine", dir)?;
    }
    Ok(())
}
