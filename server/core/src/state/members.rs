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

/// Whether a record is that of a learner.
pub fn is_learner(member: &Member) -> bool {
    member.raft_attributes.as_ref().is_some_and(|attributes| attributes.is_learner)
}

fn urls(member: &Member) -> Vec<String> {
    member.raft_attributes.as_ref().map(|attributes| attributes.peer_urls.clone()).unwrap_or_default()
}

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

    /// Whether a member of this id was removed: it never comes back.
    pub fn is_removed(&self, id: u64) -> bool {
        self.removed.contains(&id)
    }

    pub fn restore(&mut self, member: Member) {
        self.by_id.insert(member.id, member);
    }

    pub fn restore_removed(&mut self, id: u64) {
        self.removed.insert(id);
    }

    /// Voters and learners, by id.
    pub fn voters_and_learners(&self) -> (Vec<u64>, Vec<u64>) {
        let ids = |learners: bool| self.iter().filter(|m| is_learner(m) == learners).map(|m| m.id).collect();
        (ids(false), ids(true))
    }

    /// Whether a change may be applied (CL-2). Every member asks the same records, so all agree.
    pub fn check(&self, change: &ConfChange) -> Result<(), Refusal> {
        let id = change.member_id;
        if self.removed.contains(&id) {
            return Err(errors::MEMBER_NOT_FOUND);
        }
        let known = self.by_id.get(&id);
        match change.kind {
            Kind::Remove | Kind::Update | Kind::Promote if known.is_none() => Err(errors::MEMBER_NOT_FOUND),
            Kind::Remove if self.is_last_voter(id) => Err(errors::MEMBER_NOT_ENOUGH_STARTED),
            Kind::Promote if !known.is_some_and(is_learner) => Err(errors::MEMBER_NOT_LEARNER),
            Kind::Remove | Kind::Promote => Ok(()),
            Kind::AddVoter | Kind::AddLearner if known.is_some() => Err(errors::MEMBER_EXIST),
            Kind::AddVoter | Kind::AddLearner | Kind::Update => self.check_record(change),
        }
    }

    fn check_record(&self, change: &ConfChange) -> Result<(), Refusal> {
        // A record that names another would come back as that one's after a restart.
        let new = change.member.as_ref().filter(|new| new.id == change.member_id);
        let new = new.ok_or(errors::MEMBER_NOT_FOUND)?;
        let wanted = urls(new);
        let others = self.iter().filter(|member| member.id != change.member_id);
        if others.flat_map(urls).any(|url| wanted.contains(&url)) {
            return Err(errors::PEER_URL_EXIST);
        }
        let learners = self.iter().filter(|member| is_learner(member)).count() as u64;
        let limited = change.kind == Kind::AddLearner && change.learners_max > 0;
        if limited && learners >= change.learners_max.into() {
            return Err(errors::TOO_MANY_LEARNERS);
        }
        Ok(())
    }

    /// Raft has no cluster without a voter.
    fn is_last_voter(&self, id: u64) -> bool {
        self.voters_and_learners().0 == [id]
    }

    /// Applies a change that was checked, and gives back the record to store; `None` for a removal.
    pub fn apply(&mut self, change: &ConfChange) -> Option<&Member> {
        let id = change.member_id;
        match change.kind {
            Kind::Remove => {
                self.by_id.remove(&id);
                self.removed.insert(id);
            }
            Kind::AddVoter | Kind::AddLearner => {
                let mut member = change.member.clone().expect("an addition was checked to bring its record");
                member.raft_attributes.get_or_insert_default().is_learner = change.kind == Kind::AddLearner;
                self.by_id.insert(id, member);
            }
            Kind::Update | Kind::Promote => {
                let member = self.by_id.get_mut(&id).expect("the change was checked to name a member");
                let attributes = member.raft_attributes.get_or_insert_default();
                // Other URLs make no voter, and a promotion moves nobody (CL-6).
                match change.kind {
                    Kind::Promote => attributes.is_learner = false,
                    _ => attributes.peer_urls = change.member.as_ref().map(urls).unwrap_or_default(),
                }
            }
        }
        self.by_id.get(&id)
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

    fn change(kind: Kind, id: u64, url: &str) -> ConfChange {
        let raft_attributes = RaftAttributes { peer_urls: vec![url.to_owned()], is_learner: false };
        let member = Member { id, raft_attributes: Some(raft_attributes), member_attributes: None };
        ConfChange {
            request_id: 0,
            kind,
            member_id: id,
            cluster_id: 0,
            member: Some(member),
            learners_max: 1,
        }
    }

    /// Each line is a change and what comes of it.
    fn script(lines: &[(Kind, u64, &str, Result<(), Refusal>)]) -> Members {
        let mut members = Members::default();
        for (kind, id, url, expected) in lines {
            let change = change(*kind, *id, url);
            assert_eq!(members.check(&change), *expected, "{kind:?} of {id} with {url}");
            if expected.is_ok() {
                assert_eq!(members.apply(&change).is_none(), *kind == Kind::Remove);
            }
        }
        members
    }

    #[test]
    fn a_record_of_another_member_is_refused() {
        let members = script(&[(Kind::AddVoter, 1, "http://a:1", Ok(()))]);
        for kind in [Kind::AddVoter, Kind::AddLearner] {
            let other = ConfChange { member_id: 2, ..change(kind, 3, "http://b:1") };
            assert_eq!(members.check(&other), Err(errors::MEMBER_NOT_FOUND), "{kind:?}");
        }
        let other = ConfChange { member_id: 1, ..change(Kind::Update, 3, "http://b:1") };
        assert_eq!(members.check(&other), Err(errors::MEMBER_NOT_FOUND));
    }

    // rule: CL-2, CL-14, ID-6
    #[test]
    fn changes_are_checked_against_what_is_recorded() {
        use Kind::*;
        let mut members = script(&[
            (AddVoter, 1, "http://a", Ok(())),
            (AddVoter, 1, "http://b", Err(errors::MEMBER_EXIST)),
            (AddLearner, 1, "http://b", Err(errors::MEMBER_EXIST)),
            (AddVoter, 2, "http://a", Err(errors::PEER_URL_EXIST)),
            (Remove, 2, "", Err(errors::MEMBER_NOT_FOUND)),
            (Update, 2, "http://b", Err(errors::MEMBER_NOT_FOUND)),
            (Promote, 2, "", Err(errors::MEMBER_NOT_FOUND)),
            (Remove, 1, "", Err(errors::MEMBER_NOT_ENOUGH_STARTED)),
            (AddVoter, 2, "http://b", Ok(())),
            (Update, 2, "http://a", Err(errors::PEER_URL_EXIST)),
            (Update, 2, "http://b", Ok(())),
            (Remove, 1, "", Ok(())),
            (AddVoter, 1, "http://c", Err(errors::MEMBER_NOT_FOUND)),
        ]);
        assert_eq!(members.voters_and_learners(), (vec![2], vec![]));
        assert!(members.is_removed(1) && !members.is_removed(2));
        assert!(members.set_attributes(1, Default::default()).is_none());
    }

    // rule: CL-3
    #[test]
    fn urls_are_compared_as_texts() {
        use Kind::*;
        script(&[
            (AddVoter, 1, "http://localhost:2380", Ok(())),
            // The same place by another name is another URL, and so is one with other letters.
            (AddVoter, 2, "http://127.0.0.1:2380", Ok(())),
            (AddVoter, 3, "http://LOCALHOST:2380", Ok(())),
            (AddVoter, 4, "https://localhost:2380", Ok(())),
            (AddVoter, 5, "http://localhost:2380", Err(errors::PEER_URL_EXIST)),
            (Update, 4, "http://127.0.0.1:2380", Err(errors::PEER_URL_EXIST)),
        ]);
    }

    // rule: CL-2, CL-6, LR-1
    #[test]
    fn a_learner_is_promoted_once_and_another_has_to_wait() {
        use Kind::*;
        let members = script(&[
            (AddVoter, 1, "http://a", Ok(())),
            (AddLearner, 2, "http://b", Ok(())),
            (AddLearner, 3, "http://c", Err(errors::TOO_MANY_LEARNERS)),
            (Promote, 1, "", Err(errors::MEMBER_NOT_LEARNER)),
            (Update, 2, "http://d", Ok(())),
            (AddVoter, 4, "http://d", Err(errors::PEER_URL_EXIST)),
            (Remove, 1, "", Err(errors::MEMBER_NOT_ENOUGH_STARTED)),
            (Promote, 2, "", Ok(())),
            (Promote, 2, "", Err(errors::MEMBER_NOT_LEARNER)),
            (AddLearner, 3, "http://c", Ok(())),
        ]);
        assert_eq!(members.voters_and_learners(), (vec![1, 2], vec![3]));
        assert_eq!(urls(members.get(2).expect("it is there")), ["http://d"], "a promotion moves nobody");
    }
}
