// SPDX-License-Identifier: Apache-2.0
//! Who takes part: the engine, the rivals that were built in, and bbolt where Go is.
//!
//! Owns      the list, in the order of the report, and the program of bbolt.
//! Holds     names are unique: goals and figures go by them.
//! Never     runs a store in this process, unless this is its worker.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cairn::Cairn;
use crate::store::{Answer, Store, serve};

pub const CAIRN: &str = "cairn";
pub const LMDB: &str = "lmdb";
pub const BBOLT: &str = "bbolt";

/// A store that takes part.
#[derive(Clone)]
pub struct Entrant {
    pub name: &'static str,
    /// What exactly, and how it is set.
    pub what: &'static str,
    pub(crate) serve: fn(PathBuf, usize) -> Answer<()>,
    /// A program that is its worker; `None` if this one is.
    pub(crate) program: Option<PathBuf>,
}

impl Entrant {
    /// A store of type `S`, which this program has built in.
    pub const fn new<S: Store>(name: &'static str, what: &'static str) -> Entrant {
        Entrant { name, what, serve: serve::<S>, program: None }
    }
}

/// The engine and `rivals`.
pub(crate) fn all(rivals: &[Entrant]) -> Vec<Entrant> {
    let cairn = Entrant::new::<Cairn>(
        CAIRN,
        "this engine: log, apply and checkpoints, options as the daemon has them",
    );
    std::iter::once(cairn).chain(rivals.iter().cloned()).collect()
}

/// bbolt, built with Go, or why it is not.
pub(crate) fn bbolt(target: &Path) -> Result<Entrant, String> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("bbolt");
    let program = target.join("bbolt");
    let mut go = Command::new("go");
    go.args(["build", "-trimpath", "-o"]).arg(&program).arg(".").current_dir(source);
    match go.output() {
        Ok(output) if output.status.success() => Ok(Entrant {
            name: BBOLT,
            what: "bbolt 1.5.0 as etcd sets it (NoFreelistSync, free list as a map), fill 0.9, in Go",
            serve: |_, _| Err("bbolt has a program of its own".into()),
            program: Some(program),
        }),
        Ok(output) => Err(format!("go build failed: {}", String::from_utf8_lossy(&output.stderr).trim())),
        Err(error) => Err(format!("go does not start: {error}")),
    }
}
