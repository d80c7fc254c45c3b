// SPDX-License-Identifier: Apache-2.0
//! Filling an empty store with changes that have their revisions already.
//!
//! Owns      what a loaded change has to be, so that the store is one that requests could have made.
//! Holds     1. changes come in the order of their revisions, and above the compact revision each follows from the
//!              one of its key before it;
//!           2. a store that is filled to its end answers as the one that the changes are from, from its compact
//!              revision on.
//! Never     draws a revision: every change brings its own.

use bytes::Bytes;
use cairn_engine::{Db, Error, Result};

use crate::inspect::Change;
use crate::kv::KvRef;
use crate::outcome::{OpError, Revision};
use crate::store::Store;
use crate::trees::SmallTree;

/// A store while it is filled.
pub struct Loader {
    store: Store,
    compact: i64,
    last: Revision,
}

/// Why a change was not loaded. What was loaded before in the same call is not kept either.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("revision {revision}: {why}")]
    Refused { revision: Revision, why: &'static str },
    #[error(transparent)]
    Engine(#[from] Error),
}

impl From<OpError> for LoadError {
    fn from(error: OpError) -> LoadError {
        match error {
            OpError::Engine(error) => error.into(),
            _ => LoadError::Refused { revision: Revision::default(), why: "it cannot be written" },
        }
    }
}

impl Loader {
    /// Begins to fill a store that has nothing yet. Of changes up to the revision `compact` there is one a key at most.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn new(db: Db, compact: i64) -> Result<Loader> {
        Ok(Loader { store: Store::open(db)?, compact, last: Revision::default() })
    }

    /// Loads changes in one transaction.
    ///
    /// # Errors
    /// [`LoadError::Refused`] for a change that cannot follow those before it.
    pub fn load<'c>(&mut self, changes: impl IntoIterator<Item = Change<'c>>) -> Result<(), LoadError> {
        let mut batch = self.store.batch()?;
        let mut last = self.last;
        for change in changes {
            let Change { revision, delete, kv } = change;
            let refuse = |why| Err(LoadError::Refused { revision, why });
            let KvRef { create, version, modified, .. } = kv;
            if revision <= last || revision.main < 1 {
                return refuse("it does not follow the one before it");
            }
            if modified != revision.main {
                return refuse("its mod revision is another one");
            }
            let life = batch.life(kv.key)?;
            let ok = match (delete, life) {
                (true, _) if revision.main < self.compact => false,
                (true, life) => life.is_some() || revision.main == self.compact,
                (false, _) if revision.main <= self.compact => {
                    (1..=revision.main).contains(&create) && version > 0
                }
                (false, None) => (create, version) == (revision.main, 1),
                (false, Some((born, before))) => (create, version) == (born, before + 1),
            };
            if !ok {
                return refuse("it does not follow from the change of its key before it");
            }
            batch.load(change, self.compact)?;
            last = revision;
        }
        batch.commit(0, 0)?;
        self.last = last;
        Ok(())
    }

    /// Sets keys of a small tree.
    ///
    /// # Errors
    /// If they cannot be written.
    pub fn small_put(&mut self, tree: SmallTree, pairs: Vec<(Vec<u8>, Bytes)>) -> Result<(), LoadError> {
        let mut batch = self.store.batch()?;
        for (key, value) in pairs {
            batch.small_put(tree, &key, value)?;
        }
        batch.commit(0, 0)?;
        Ok(())
    }

    /// Ends the load at `revision`.
    ///
    /// # Errors
    /// [`LoadError::Refused`] if changes of later revisions were loaded, or it is below the compact revision.
    pub fn finish(mut self, revision: i64) -> Result<(), LoadError> {
        if revision < self.last.main.max(self.compact).max(1) {
            let (revision, why) = (Revision::new(revision, 0), "the store cannot end before its changes do");
            return Err(LoadError::Refused { revision, why });
        }
        let mut batch = self.store.batch()?;
        batch.end_load(revision, self.compact);
        batch.commit(0, 0)?;
        Ok(())
    }
}
