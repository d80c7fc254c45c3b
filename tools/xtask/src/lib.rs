// SPDX-License-Identifier: Apache-2.0
//! What `cargo xtask` does, as a library, so that tests can ask for it too.
//!
//! Owns      the order of the checks and the sum of their results; the scan for cited rules.
//! Never     needs a dependency: the first thing a fresh checkout builds should be small.

pub mod full;
pub mod json;
pub mod parts;
pub mod rules;
pub mod runner;
pub mod sabotage;
pub mod sources;
pub mod supply;

use std::path::{Path, PathBuf};

/// A task either ran, or says in one line why it could not.
pub type Outcome<T> = Result<T, String>;

/// The top of the repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("the crate is at tools/xtask").to_owned()
}
