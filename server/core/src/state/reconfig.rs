// SPDX-License-Identifier: Apache-2.0
//! Whether a change of the membership would endanger the quorum (`--strict-reconfig-check`).
//!
//! Owns      the counting of voters that have started, and of those that are connected.
//! Holds     the member that is asked decides, by what it sees now (SR-8): nothing of this is in the log.
//! Never     judges what the records say: that is done when a change is applied, on every member alike.

use super::members::{Members, is_learner};
use crate::{Refusal, replica::conf::Kind};
use cairn_proto::{errors, membershippb::Member};

/// A member counts as connected once it has been for as long.
pub const HEALTHY_MS: u64 = 5_000;

/// What a member sees of its cluster.
pub struct Seen<'a> {
    pub members: &'a Members,
    /// Who looks: it is always connected to itself.
    pub own: u64,
    /// For how long there has been a connection to another; `None` if there is none.
    pub connected_ms: &'a dyn Fn(u64) -> Option<u64>,
}

/// A member has started once it has published its name (ID-5).
pub fn is_started(member: &Member) -> bool {
    member.member_attributes.as_ref().is_some_and(|attributes| !attributes.name.is_empty())
}

impl Seen<'_> {
    /// Whether this may happen to the member of that id (SR-1 to SR-5).
    ///
    /// # Errors
    /// If the quorum would then hang on members that have not started, or are not there.
    pub fn check(&self, kind: Kind, id: u64) -> Result<(), Refusal> {
        match kind {
            Kind::AddVoter => {
                self.enough_started_with_one_more()?;
                self.healthy_to_add()
            }
            Kind::AddLearner => self.healthy_to_add(),
            Kind::Promote => enough(self.voters().count() + 1, self.started(None) + 1),
            Kind::Remove => self.may_remove(id),
            Kind::Update => Ok(()),
        }
    }

    fn voters(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(|member| !is_learner(member))
    }

    /// Voters that have started, but for one.
    fn started(&self, without: Option<u64>) -> usize {
        self.voters().filter(|member| is_started(member) && Some(member.id) != without).count()
    }

    /// SR-1. Who is alone may be joined by a second one, to be restored from.
    fn enough_started_with_one_more(&self) -> Result<(), Refusal> {
        let (all, started) = (self.voters().count() + 1, self.started(None));
        if (started, all) == (1, 2) { Ok(()) } else { enough(all, started) }
    }

    /// SR-2.
    fn healthy_to_add(&self) -> Result<(), Refusal> {
        let voters = self.voters().count();
        if voters == 1 || self.connected() > voters.div_ceil(2) {
            return Ok(());
        }
        Err(errors::UNHEALTHY)
    }

    /// SR-3, SR-4.
    fn may_remove(&self, id: u64) -> Result<(), Refusal> {
        if self.members.get(id).is_some_and(is_learner) {
            return Ok(());
        }
        let others = self.voters().filter(|member| member.id != id).count();
        enough(others, self.started(Some(id)))?;
        let is_down = id != self.own && (self.connected_ms)(id).is_none();
        let voters = self.voters().count();
        if is_down || self.connected() >= 2 + voters.saturating_sub(1) / 2 {
            return Ok(());
        }
        Err(errors::UNHEALTHY)
    }

    /// Voters that have been connected for long enough.
    fn connected(&self) -> usize {
        let is_connected = |id: u64| {
            id == self.own || (self.connected_ms)(id).is_some_and(|connected_ms| connected_ms >= HEALTHY_MS)
        };
        self.voters().filter(|member| is_connected(member.id)).count()
    }
}

/// Whether those that have started are a quorum of so many.
fn enough(all: usize, started: usize) -> Result<(), Refusal> {
    if started > all / 2 { Ok(()) } else { Err(errors::MEMBER_NOT_ENOUGH_STARTED) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cairn_proto::membershippb::{Attributes, RaftAttributes};

    /// One letter for each member, from id 1 on: `S` a voter that has started, `n` one that has not, `L` a learner.
    /// Below it how it is connected: `=` for long, `-` not for long enough, a blank not at all. Member 1 looks.
    fn check(members: &str, links: &str, kind: Kind, id: u64) -> Result<(), Refusal> {
        let mut all = Members::default();
        for (letter, id) in members.chars().zip(1..) {
            let name = if letter == 'n' { "" } else { "m" };
            let raft_attributes = RaftAttributes { is_learner: letter == 'L', ..Default::default() };
            let member_attributes = Attributes { name: name.into(), ..Default::default() };
            all.restore(Member {
                id,
                raft_attributes: Some(raft_attributes),
                member_attributes: Some(member_attributes),
            });
        }
        let connected_ms = |id: u64| match links.as_bytes()[id as usize - 1] {
            b'=' => Some(HEALTHY_MS),
            b'-' => Some(HEALTHY_MS - 1),
            _ => None,
        };
        Seen { members: &all, own: 1, connected_ms: &connected_ms }.check(kind, id)
    }

    const FEW: Result<(), Refusal> = Err(errors::MEMBER_NOT_ENOUGH_STARTED);
    const ILL: Result<(), Refusal> = Err(errors::UNHEALTHY);

    // rule: SR-1, SR-2, LR-7
    #[test]
    fn a_voter_is_added_where_a_quorum_with_it_has_started_and_is_connected() {
        use Kind::*;
        for (members, links, kind, expected) in [
            ("S", "=", AddVoter, Ok(())),
            ("Sn", "= ", AddVoter, FEW),
            ("SS", "==", AddVoter, Ok(())),
            ("SS", "=-", AddVoter, ILL),
            ("SSn", "== ", AddVoter, FEW),
            ("SSS", "===", AddVoter, Ok(())),
            ("SSS", "==-", AddVoter, ILL),
            ("SSSS", "=== ", AddVoter, Ok(())),
            ("SSSS", "==  ", AddVoter, ILL),
            ("S", "=", AddLearner, Ok(())),
            ("Sn", "= ", AddLearner, ILL),
            ("SSn", "== ", AddLearner, ILL),
            ("SSSS", "=== ", AddLearner, Ok(())),
            ("SSSSL", "===  ", AddLearner, Ok(())),
        ] {
            assert_eq!(check(members, links, kind, 9), expected, "{kind:?} to {members} seen as {links:?}");
        }
    }

    // rule: SR-3, SR-4, LR-4
    #[test]
    fn who_is_down_may_go_and_who_is_needed_may_not() {
        for (members, links, id, expected) in [
            ("S", "=", 1, FEW),
            ("SS", "==", 2, Ok(())),
            ("SS", "=-", 2, ILL),
            ("SS", "= ", 2, Ok(())),
            ("Sn", "= ", 1, FEW),
            ("SSS", "===", 3, Ok(())),
            ("SSS", "===", 1, Ok(())),
            ("SSS", "==-", 3, ILL),
            ("SSS", "== ", 3, Ok(())),
            ("SSS", "== ", 1, ILL),
            ("SSn", "== ", 2, FEW),
            ("SL", "= ", 2, Ok(())),
            ("SSS", "===", 8, Ok(())),
        ] {
            let links = format!("{links}      ");
            assert_eq!(
                check(members, &links, Kind::Remove, id),
                expected,
                "{id} of {members} seen as {links:?}"
            );
        }
    }

    // rule: SR-5, SR-6
    #[test]
    fn a_learner_is_promoted_where_a_quorum_with_it_has_started() {
        for (members, expected) in
            [("SL", Ok(())), ("SSL", Ok(())), ("SnL", Ok(())), ("SnnL", FEW), ("SSnL", Ok(()))]
        {
            assert_eq!(check(members, "      ", Kind::Promote, 9), expected, "{members}");
            assert_eq!(check(members, "      ", Kind::Update, 9), Ok(()), "URLs endanger no quorum");
        }
    }
}
