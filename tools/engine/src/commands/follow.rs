// SPDX-License-Identifier: Apache-2.0
//! Following a store that is written: reading on at its newest checkpoint whenever the one before is overtaken.
//!
//! Owns      the loop, and the three ways in which a step of it ends.
//! Holds     a step that is overtaken is called again over a newer checkpoint, and goes on from where it was.
//! Never     takes what an overtaken step met for damage.

use std::cell::Cell;
use std::path::Path;

use cairn_engine::Error;
use cairn_engine::inspect::Store;
use cairn_mvcc::{OpError, SCHEMA, Stored};

use super::vfs;
use crate::outcome::{Failure, Outcome};

/// How often a step may be overtaken without having come any further.
const IDLE_MAX: u32 = 20;

/// Why a step ended early.
pub enum Stop {
    /// What the store answered; it may come of being overtaken.
    Store(Error),
    /// Anything else.
    Failure(Failure),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Stop {
        Stop::Store(error)
    }
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Stop {
        Stop::Failure(failure)
    }
}

impl From<OpError> for Stop {
    fn from(error: OpError) -> Stop {
        match error {
            OpError::Engine(error) => Stop::Store(error),
            other => Stop::Failure(Failure::Unable(other.to_string())),
        }
    }
}

/// Whether the store can still, and already, be read at `revision`.
pub fn readable(stored: &Stored, revision: i64) -> Result<(), Stop> {
    let (oldest, newest) = (stored.compact_revision().max(1), stored.revision());
    if (oldest..=newest).contains(&revision) {
        return Ok(());
    }
    let has = match newest - oldest {
        0 => format!("revision {newest} alone"),
        _ => format!("revisions {oldest} to {newest}"),
    };
    let text = format!("revision {revision} cannot be read: the store has {has}");
    Err(Stop::Failure(Failure::Unable(text)))
}

/// Calls `step` over the newest checkpoint of the store in `dir`, until it ends other than by being overtaken. It
/// counts in `moved` whatever need not be done again.
pub fn follow<T>(
    dir: &Path,
    moved: &Cell<u64>,
    mut step: impl FnMut(&Stored) -> Result<T, Stop>,
) -> Outcome<T> {
    let vfs = vfs();
    let (mut idle, mut at) = (0, moved.get());
    loop {
        let store = Store::open(&vfs, dir, SCHEMA)?;
        let done = Stored::new(store.view()).map_err(Stop::from).and_then(|stored| step(&stored));
        let error = match done {
            Ok(done) => return Ok(done),
            Err(Stop::Failure(failure)) => return Err(failure),
            Err(Stop::Store(error)) => store.judge(error),
        };
        idle = if moved.get() > at { 0 } else { idle + 1 };
        at = moved.get();
        if !matches!(error, Error::Overtaken { .. }) || idle == IDLE_MAX {
            return Err(error.into());
        }
    }
}
