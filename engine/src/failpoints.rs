// SPDX-License-Identifier: Apache-2.0
//! Failpoints: moments at which a test has a process wait, end, or do what it would not, in builds with the feature
//! `failpoints`. The crates above have theirs here too.
//!
//! Owns      the points by name, the terms that are set for each, and how often one of them was carried out.
//! Holds     1. without the feature, `reach` and `returned` are nothing, and no name is in the program;
//!           2. a point without terms does nothing;
//!           3. an end that a term asks for waits for the answer to who asked for it.
//! Never     is part of a release, or reads terms: that is for who serves them.

/// Whether there are any.
pub const ON: bool = cfg!(feature = "failpoints");

/// The moment `name` is there.
#[cfg(not(feature = "failpoints"))]
#[inline(always)]
pub const fn reach(_name: &'static str) {}

/// What is to be done instead of what follows the moment `name`: the value of its term `return`.
#[cfg(not(feature = "failpoints"))]
#[inline(always)]
pub const fn returned(_name: &'static str) -> Option<String> {
    None
}

#[cfg(feature = "failpoints")]
pub use there::*;

#[cfg(feature = "failpoints")]
mod there {
    use std::collections::BTreeMap;
    use std::sync::{Mutex, MutexGuard, PoisonError};
    use std::time::Duration;

    /// Every point, in order of names: etcd's, where Cairn has such a moment (`tests/rules/failpoints.tsv`).
    pub const ALL: &[&str] = &[
        "afterCommit",
        "afterStartDBTxn",
        "afterWritebackBuf",
        "applyAfterOpenSnapshot",
        "applyBeforeOpenSnapshot",
        "beforeApplyOneConfChange",
        "beforeApplyOneEntryNormal",
        "beforeCheckpointInLeaseRenew",
        "beforeCommit",
        "beforeLookupWhenForwardLeaseTimeToLive",
        "beforeLookupWhenLeaseTimeToLive",
        "beforePublishing",
        "beforeSendWatchResponse",
        "beforeStartDBTxn",
        "beforeWritebackBuf",
        "compactAfterAcquiredBatchTxLock",
        "compactAfterCommitBatch",
        "compactAfterCommitScheduledCompact",
        "compactAfterSetFinishedCompact",
        "compactBeforeCommitBatch",
        "compactBeforeCommitScheduledCompact",
        "compactBeforeSetFinishedCompact",
        "defragBeforeCopy",
        "defragBeforeRename",
        "defragOpenFileError",
        "defragdbFail",
        "raftAfterApplySnap",
        "raftAfterSave",
        "raftAfterSaveSnap",
        "raftAfterWALRelease",
        "raftBeforeAdvance",
        "raftBeforeApplySnap",
        "raftBeforeFollowerSend",
        "raftBeforeLeaderSend",
        "raftBeforeSave",
        "raftBeforeSaveSnap",
        "raftDropHeartbeat",
        "walAfterSync",
        "walBeforeSync",
    ];

    /// The status of a process that a term ended: a Go program's that panics.
    const PANICKED: i32 = 2;

    /// One of a chain of terms: what is done, and when.
    #[derive(Clone, PartialEq, Debug)]
    pub struct Term {
        /// In how many of a hundred cases; always if there is none.
        pub percent: Option<f32>,
        /// How often at most; without an end if there is none.
        pub times: Option<u64>,
        pub act: Act,
    }

    #[derive(Clone, PartialEq, Debug)]
    pub enum Act {
        Off,
        Return(String),
        Sleep(Duration),
        /// The process ends at once, with this as its last word.
        Panic(Option<String>),
        Print,
    }

    /// Why there is nothing to tell of a point.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
    pub enum Missing {
        #[error("failpoint: failpoint does not exist")]
        Point,
        #[error("failpoint: failpoint is disabled")]
        Terms,
    }

    /// What is set for a point.
    struct Set {
        terms: String,
        chain: Vec<Act>,
        carried_out: u64,
    }

    static SET: Mutex<BTreeMap<&'static str, Set>> = Mutex::new(BTreeMap::new());
    static ENDS: Mutex<()> = Mutex::new(());

    fn set_now() -> MutexGuard<'static, BTreeMap<&'static str, Set>> {
        SET.lock().expect("nothing fails under this lock")
    }

    fn known(name: &str) -> Result<&'static str, Missing> {
        ALL.iter().find(|known| **known == name).copied().ok_or(Missing::Point)
    }

    /// Sets the terms of a point: `chain`, which was written as `terms`. Which one of them is due is up to `fail`, that
    /// counts and draws; each is known to it by its place.
    ///
    /// # Errors
    /// [`Missing::Point`].
    pub fn set(name: &str, terms: &str, chain: Vec<Term>) -> Result<(), Missing> {
        let name = known(name)?;
        let due = chain.iter().enumerate().map(|(place, term)| {
            let percent = term.percent.map(|percent| format!("{percent}%")).unwrap_or_default();
            let times = term.times.map(|times| format!("{times}*")).unwrap_or_default();
            format!("{percent}{times}return({place})")
        });
        let due = due.collect::<Vec<_>>().join("->");
        let mut set = set_now();
        fail::cfg(name, &due).expect("terms of its own syntax");
        let chain = chain.into_iter().map(|term| term.act).collect();
        set.insert(name, Set { terms: terms.to_owned(), chain, carried_out: 0 });
        Ok(())
    }

    /// Clears a point's terms.
    ///
    /// # Errors
    /// If there is no such point, or it has none.
    pub fn clear(name: &str) -> Result<(), Missing> {
        let name = known(name)?;
        let mut set = set_now();
        set.remove(name).ok_or(Missing::Terms)?;
        fail::remove(name);
        Ok(())
    }

    /// A point's terms as they were written, and how often one of them was carried out since.
    ///
    /// # Errors
    /// If there is no such point, or it has none.
    pub fn terms(name: &str) -> Result<(String, u64), Missing> {
        let name = known(name)?;
        set_now().get(name).map(|set| (set.terms.clone(), set.carried_out)).ok_or(Missing::Terms)
    }

    /// While this is held, no term ends the process.
    pub struct EndsWait(#[expect(dead_code, reason = "it is held")] MutexGuard<'static, ()>);

    pub fn ends_wait() -> EndsWait {
        EndsWait(ENDS.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The moment `name` is there.
    pub fn reach(name: &'static str) {
        returned(name);
    }

    /// What is to be done instead of what follows the moment `name`: the value of its term `return`.
    pub fn returned(name: &'static str) -> Option<String> {
        debug_assert!(ALL.contains(&name), "{name} is not in the list");
        let act = {
            let mut set = set_now();
            let set = set.get_mut(name)?;
            let act = set.chain[due(name)?].clone();
            set.carried_out += 1;
            act
        };
        match act {
            Act::Off => None,
            Act::Return(value) => Some(value),
            Act::Sleep(duration) => {
                std::thread::sleep(duration);
                None
            }
            Act::Panic(text) => end(&text.unwrap_or_else(|| name.to_owned())),
            Act::Print => {
                println!("failpoint print: {name}");
                None
            }
        }
    }

    /// The place of the term that is due.
    fn due(name: &'static str) -> Option<usize> {
        fail::fail_point!(name, |place| place.and_then(|place| place.parse().ok()));
        None
    }

    fn end(text: &str) -> ! {
        let _waited = ends_wait();
        eprintln!("panic: failpoint panic: {text}");
        std::process::exit(PANICKED)
    }
}
