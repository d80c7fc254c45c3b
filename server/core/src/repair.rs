// SPDX-License-Identifier: Apache-2.0
//! A store that is damaged, and the one of a peer that takes its place.
//!
//! Owns      where a damaged store is put, what the log beside it holds, and which other store that log goes on from.
//! Holds     1. the log stays: what this member promised and acknowledged, it has promised and acknowledged afterwards,
//!              so it never votes twice, and nothing that was committed with its help is lost;
//!           2. a store is taken only if the log goes on from it, or if it has all that the log has;
//!           3. the damaged file is kept under another name until the next one is damaged, and never served from.
//! Never     asks a peer, or says whether what came is whole: the receiver of a snapshot does.

use crate::{marks::reach, mutants::planted, state::members::REMOVED};
use cairn_engine::{
    Error, InstallId, Result,
    inspect::Store,
    io::Vfs,
    wal::{LogLook, LogRecord},
};
use cairn_mvcc::{SCHEMA, SmallTree, Stored};
use cairn_proto::membershippb::Member;
use prost::Message as _;
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

const STORE: &str = "engine.db";
const ASIDE: &str = "engine.db.damaged";

/// Where the store of a member is.
pub fn store_file(dir: &Path) -> PathBuf {
    dir.join(STORE)
}

/// Where a damaged one is put.
pub fn aside_file(dir: &Path) -> PathBuf {
    dir.join(ASIDE)
}

/// Whether the error is about damage of the store itself, and not of the log or of anything that is to become a store.
pub fn is_of_store(error: &Error) -> bool {
    matches!(error, Error::Corrupt(damage) if damage.file.file_name().is_some_and(|name| name == STORE))
}

/// Whether the store in `dir` was set aside, and no other has taken its place.
///
/// # Errors
/// If the directory cannot be looked at.
pub fn is_aside(vfs: &dyn Vfs, dir: &Path) -> Result<bool> {
    let exists = |path: PathBuf| vfs.exists(&path).map_err(|e| Error::io("look for", &path, None, e));
    Ok(!exists(store_file(dir))? && exists(aside_file(dir))?)
}

/// Puts the store in `dir` aside; one that was put there before is replaced. Nobody may have it open. Gives the file.
///
/// # Errors
/// A failed rename or sync: whichever name it has then, the next start finds it.
pub fn set_aside(vfs: &dyn Vfs, dir: &Path) -> Result<PathBuf> {
    let (store, aside) = (store_file(dir), aside_file(dir));
    vfs.rename(&store, &aside).map_err(|e| Error::io("rename", &store, None, e))?;
    vfs.sync_dir(dir).map_err(|e| Error::io("sync", dir, None, e))?;
    Ok(aside)
}

/// The members that the store in `dir`, damaged or aside, can still name; none where it cannot be read.
pub fn members_named(vfs: &Arc<dyn Vfs>, dir: &Path) -> Vec<Member> {
    let read = |path: PathBuf| {
        let store = Store::open_file(vfs, path, SCHEMA).ok()?;
        Stored::new(store.view()).ok()?.small_scan(SmallTree::Member).ok()
    };
    let records = read(store_file(dir)).or_else(|| read(aside_file(dir))).unwrap_or_default();
    let living = records.into_iter().filter(|(_, value)| value != REMOVED);
    living.filter_map(|(_, value)| Member::decode(value).ok()).collect()
}

/// The log of a member that has no store.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KnownLog {
    pub member_id: u64,
    /// Of which filling of the directory its entries are.
    install: InstallId,
    /// The first index that has an entry; `last + 1` if there is none.
    first: u64,
    last: u64,
    commit: u64,
    /// From which index on its entries have which term, ascending.
    terms: Vec<(u64, u64)>,
}

/// What a store of a peer is to this member.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fit {
    /// It is to be installed under this number. With the log's own the entries behind it count; with another the log
    /// begins behind it, and its term and vote stay.
    Install(InstallId),
    /// The log begins later: one is wanted that holds this entry.
    TooOld { wanted: u64 },
    /// This member knows another entry to be committed where that store ends.
    Foreign,
}

impl KnownLog {
    /// Reads the whole log in `wal_dir`.
    ///
    /// # Errors
    /// Damage: then this member cannot know what it promised.
    pub fn read(vfs: &dyn Vfs, wal_dir: &Path) -> Result<KnownLog> {
        let look = LogLook::open(vfs, wal_dir, || Ok(None))?;
        let mut terms: Vec<(u64, u64)> = vec![(look.base.index, look.base.term)];
        look.batches::<Error>(|_, batch| {
            for record in &batch.records {
                match record {
                    LogRecord::Entry(entry) => {
                        terms.retain(|(from, _)| *from < entry.index);
                        if terms.last().is_none_or(|(_, term)| *term != entry.term) {
                            terms.push((entry.index, entry.term));
                        }
                    }
                    LogRecord::Base(base) => terms = vec![(base.index, base.term)],
                    LogRecord::Carry(carry) if terms.last().is_none_or(|last| last.0 < carry.last_index) => {
                        terms.push((carry.last_index, carry.last_term));
                    }
                    LogRecord::HardState(_) | LogRecord::Carry(_) => {}
                }
            }
            Ok(())
        })?;
        Ok(KnownLog {
            member_id: look.member_id,
            install: look.base.install,
            first: look.first_index,
            last: look.last_index,
            commit: look.hard_state.commit,
            terms,
        })
    }

    /// The entry that a store must hold, so that the log goes on from it.
    pub fn wanted(&self) -> u64 {
        self.first - 1
    }

    fn term(&self, index: u64) -> Option<u64> {
        let run = self.terms.iter().rev().find(|(from, _)| *from <= index);
        run.filter(|_| index <= self.last).map(|(_, term)| *term)
    }

    /// What a store is to this member whose last entry is `applied` of this term. `other` is a number that no store of
    /// this member has had.
    pub fn fit(&self, applied: u64, term: u64, other: InstallId) -> Fit {
        if applied < self.wanted() && !planted("repair-takes-an-old-store") {
            return Fit::TooOld { wanted: self.wanted() };
        }
        if planted("repair-drops-the-log") {
            return Fit::Install(other);
        }
        match self.term(applied) {
            Some(ours) if ours == term => {
                reach("repair-under-the-log");
                Fit::Install(self.install)
            }
            // What follows here was never committed: what is there is.
            Some(_) if applied > self.commit => Fit::Install(other),
            Some(_) => Fit::Foreign,
            None => {
                reach("repair-behind-the-log");
                Fit::Install(other)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: InstallId = InstallId(1);
    const OTHER: InstallId = InstallId(2);

    fn log() -> KnownLog {
        // Entries 11 to 20; of term 2 up to 15, then of term 4; committed up to 17.
        KnownLog {
            member_id: 7,
            install: OURS,
            first: 11,
            last: 20,
            commit: 17,
            terms: vec![(10, 2), (16, 4)],
        }
    }

    #[test]
    fn the_log_goes_on_from_every_store_that_it_reaches_and_matches() {
        for (applied, term, fit) in [
            (9, 2, Fit::TooOld { wanted: 10 }),
            (10, 2, Fit::Install(OURS)),
            (15, 2, Fit::Install(OURS)),
            (16, 4, Fit::Install(OURS)),
            (20, 4, Fit::Install(OURS)),
            (21, 4, Fit::Install(OTHER)),
            (500, 9, Fit::Install(OTHER)),
        ] {
            assert_eq!(log().fit(applied, term, OTHER), fit, "{applied} of term {term}");
        }
    }

    #[test]
    fn another_entry_where_one_is_committed_is_of_another_history() {
        assert_eq!(log().fit(15, 4, OTHER), Fit::Foreign);
        assert_eq!(log().fit(17, 5, OTHER), Fit::Foreign);
        assert_eq!(log().fit(18, 5, OTHER), Fit::Install(OTHER), "only what is committed is sure");
    }
}
