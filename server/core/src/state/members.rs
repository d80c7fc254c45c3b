// SPDX-License-Identifier: Apache-2.0
//! The members of the cluster as this member has applied them.
//!
//! Owns      the records of members, and the ids of those that were removed.
//! Holds     1. a removed id never comes back (ID-6);
//!           2. one source for Raft's voters and for what MemberList says: these records.
//! Never     checks a quorum or a caller's rights.

use crate::{
    Refusal,
    replica::conf::{ConfChange, Kind},
};
use cairn_proto::{errors, membershippb::Member};
use std::collections::{BTreeMap, BTreeSet};

/// See the module.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Members {
    by_id: BTreeMap<u64, Member>,
    removed: BTreeSet<u64>,
}

/// What is stored in place of a removed member.
pub const REMOVED: &[u8] = b"removed";

impl Members {
    pub fn get(&self, id: u64) -> Option<&Member> {
        self.by_id.get(&id)
    }

    /// All of them, by id.
    pub fn iter(&self) -> impl Iterator<Item = &Member> {
        self.by_id.values()
    }

    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    pub fn restore(&mut self, member: Member) {
        self.by_id.insert(member.id, member);
    }

    pub fn restore_removed(&mut self, id: u64) {
        self.removed.insert(id);
    }

    /// Voters and learners, by id.
    pub fn voters_and_learners(&self) -> (Vec<u64>, Vec<u64>) {
        let learner = |m: &Member| m.raft_attributes.as_ref().is_some_and(|r| r.is_learner);
        let ids = |learners: bool| self.iter().filter(|m| learner(m) == learners).map(|m| m.id).collect();
        (ids(false), ids(true))
    }

    /// Whether a change may be applied (CL-2). Every member asks the same records, so all agree.
    pub fn check(&self, change: &ConfChange) -> Result<(), Refusal> {
        let id = change.member_id;
        if self.removed.contains(&id) {
            return Err(errors::MEMBER_NOT_FOUND);
        }
        if change.kind == Kind::Remove {
            return if self.by_id.contains_key(&id) { Ok(()) } else { Err(errors::MEMBER_NOT_FOUND) };
        }
        let Some(new) = &change.member else { return Err(errors::MEMBER_NOT_FOUND) };
        if self.by_id.contains_key(&id) {
            return Err(errors::MEMBER_EXIST);
        }
        let urls = |m: &Member| m.raft_attributes.as_ref().map(|r| r.peer_urls.clone()).unwrap_or_default();
        let wanted = urls(new);
        let taken = self.iter().flat_map(urls).any(|url| wanted.contains(&url));
        if taken { Err(errors::PEER_URL_EXIST) } else { Ok(()) }
    }

    /// Applies a change that was checked, and gives back the record to store; `None` for a removal.
    pub fn apply(&mut self, change: &ConfChange) -> Option<&Member> {
        if change.kind == Kind::Remove {
            self.by_id.remove(&change.member_id);
            self.removed.insert(change.member_id);
            return None;
        }
        let member = change.member.clone().expect("an addition was checked to bring its record");
        self.by_id.insert(change.member_id, member);
        self.by_id.get(&change.member_id)
    }

    /// Sets name and client URLs, and gives back the record to store; `None` if there is no such member:
    /// it was removed meanwhile (CL-14).
    pub fn set_attributes(
        &mut self,
        id: u64,
        attributes: cairn_proto::membershippb::Attributes,
    ) -> Option<&Member> {
        let member = self.by_id.get_mut(&id)?;
        member.member_attributes = Some(attributes);
        Some(member)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cairn_proto::membershippb::RaftAttributes;

    fn add(id: u64, url: &str) -> ConfChange {
        let raft_attributes = RaftAttributes { peer_urls: vec![url.to_owned()], is_learner: false };
        let member = Member { id, raft_attributes: Some(raft_attributes), member_attributes: None };
        ConfChange { kind: Kind::AddVoter, member_id: id, cluster_id: 0, member: Some(member) }
    }

    // rule: CL-2, ID-6
    #[test]
    fn changes_are_checked_against_what_is_recorded() {
        let mut members = Members::default();
        assert_eq!(members.check(&add(1, "http://a")), Ok(()));
        assert!(members.apply(&add(1, "http://a")).is_some());
        assert_eq!(members.check(&add(1, "http://b")), Err(errors::MEMBER_EXIST));
        assert_eq!(members.check(&add(2, "http://a")), Err(errors::PEER_URL_EXIST));
        assert_eq!(members.voters_and_learners(), (vec![1], vec![]));

        let remove = |id| ConfChange { kind: Kind::Remove, member_id: id, cluster_id: 0, member: None };
        assert_eq!(members.check(&remove(2)), Err(errors::MEMBER_NOT_FOUND));
        assert_eq!(members.check(&remove(1)), Ok(()));
        assert!(members.apply(&remove(1)).is_none());
        assert_eq!(members.check(&add(1, "http://c")), Err(errors::MEMBER_NOT_FOUND), "gone for ever");
        assert!(members.set_attributes(1, Default::default()).is_none());
    }
}
