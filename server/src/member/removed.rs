// SPDX-License-Identifier: Apache-2.0
//! Who is a member as far as this one has applied it, and whom it may tell that it was removed (CL-5).
//!
//! Owns      where in the log the removals of this run are.
//! Holds     nobody is told before the record that its removal is committed is durable here: who is told ends, and after
//!           a crash there might be nobody left who knows of it, or whose vote it takes.
//! Never     decides who is a member.

use super::shared::Shared;
use std::{
    collections::BTreeMap,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

/// See the module.
#[derive(Default)]
pub(super) struct Removals {
    /// By member. Those that are not here were applied by an earlier run, whose commit is durable.
    at: Mutex<BTreeMap<u64, u64>>,
    durable_commit: AtomicU64,
}

impl Removals {
    /// This entry removed a member.
    pub fn applied(&self, member_id: u64, index: u64) {
        self.at.lock().expect("nothing fails under this lock").insert(member_id, index);
    }

    /// A restart knows again that everything up to here is committed.
    pub fn durable(&self, commit: u64) {
        self.durable_commit.store(commit, Ordering::Release);
    }

    /// Whether the removal of a member would outlive a crash.
    fn is_durable(&self, member_id: u64) -> bool {
        let at = self.at.lock().expect("nothing fails under this lock").get(&member_id).copied();
        at.is_none_or(|index| index <= self.durable_commit.load(Ordering::Acquire))
    }
}

/// What another is to the cluster, as this member has applied it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Standing {
    /// A member, or one whose removal it may not be told of yet: it is listened to as before.
    Member,
    /// It is to be told that it is no member any more.
    Removed,
    /// It never was one, or came after what is applied here.
    Unknown,
}

impl Shared {
    pub fn standing_of(&self, member_id: u64) -> Standing {
        let cluster = self.cluster();
        if cluster.members.get(member_id).is_some() {
            Standing::Member
        } else if !cluster.members.is_removed(member_id) {
            Standing::Unknown
        } else if self.removals.is_durable(member_id) {
            Standing::Removed
        } else {
            Standing::Member
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // rule: CL-5
    #[test]
    fn a_removal_is_told_once_its_commit_is_durable_here() {
        let removals = Removals::default();
        assert!(removals.is_durable(7), "of an earlier run");
        removals.durable(11);
        removals.applied(7, 12);
        assert!(!removals.is_durable(7), "a crash now would forget that it is committed");
        assert!(removals.is_durable(8));
        removals.durable(12);
        assert!(removals.is_durable(7));
    }
}
