// SPDX-License-Identifier: Apache-2.0
//! Changes of the membership as they travel in the log.
//!
//! Owns      the bytes of raft's `ConfChangeV2`, written and read with our own messages, and the record of
//!           the member that a change brings along.
//! Holds     decoding is total: bytes from the log or a peer give an error, never a panic.
//! Never     decides whether a change is allowed: the state does, at apply.

use crate::mutants::planted;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use cairn_proto::membershippb;
use prost::Message;
use raft::eraftpb;

#[derive(Clone, PartialEq, Message)]
struct SingleMessage {
    #[prost(int32, tag = "1")]
    change_type: i32,
    #[prost(uint64, tag = "2")]
    node_id: u64,
}

#[derive(Clone, PartialEq, Message)]
struct ChangeMessage {
    #[prost(int32, tag = "1")]
    transition: i32,
    #[prost(message, repeated, tag = "2")]
    changes: Vec<SingleMessage>,
    #[prost(bytes = "bytes", tag = "3")]
    context: Bytes,
    // What follows is ours: raft-rs looks at the kinds that it knows alone.
    #[prost(uint32, tag = "13")]
    learners_max: u32,
    #[prost(int32, tag = "14")]
    kind: i32,
    #[prost(uint64, tag = "15")]
    request_id: u64,
}

/// What happens to one member.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    AddVoter = 0,
    Remove = 1,
    AddLearner = 2,
    /// Other peer URLs. It is no change to Raft.
    Update = 3,
    /// A learner becomes a voter.
    Promote = 4,
}

impl Kind {
    /// What raft-rs is to take it for, by its numbers.
    fn to_raft(self) -> eraftpb::ConfChangeType {
        match self {
            Kind::AddVoter | Kind::Update | Kind::Promote => eraftpb::ConfChangeType::AddNode,
            Kind::Remove => eraftpb::ConfChangeType::RemoveNode,
            Kind::AddLearner => eraftpb::ConfChangeType::AddLearnerNode,
        }
    }
}

/// A change of the membership.
#[derive(Clone, PartialEq, Debug)]
pub struct ConfChange {
    /// The request's, in a change that a member proposed.
    pub request_id: u64,
    pub kind: Kind,
    pub member_id: u64,
    /// The cluster's id, in the changes that a cluster begins with; else 0.
    pub cluster_id: u64,
    /// What is to be recorded of the member; without it, what is known stays.
    pub member: Option<membershippb::Member>,
    /// How many learners there may be with this one, as its proposer is configured; 0 is no limit (LR-1).
    pub learners_max: u32,
}

/// Bytes that are no change of the membership.
#[derive(Debug, thiserror::Error)]
#[error("not a change of the membership: {0}")]
pub struct BadChange(String);

impl ConfChange {
    pub fn encode(&self) -> Bytes {
        let mut context = BytesMut::new();
        context.put_u64(self.cluster_id);
        if let Some(member) = &self.member {
            member.encode(&mut context).expect("a buffer in memory grows");
        }
        let change_type = self.kind.to_raft() as i32;
        let message = ChangeMessage {
            transition: 0,
            changes: vec![SingleMessage { change_type, node_id: self.member_id }],
            context: context.freeze(),
            kind: if self.kind as i32 == change_type { 0 } else { self.kind as i32 },
            request_id: self.request_id,
            learners_max: self.learners_max,
        };
        message.encode_to_vec().into()
    }

    /// # Errors
    /// If the bytes are not what [`ConfChange::encode`] writes.
    pub fn decode(bytes: &[u8]) -> Result<ConfChange, BadChange> {
        let message = ChangeMessage::decode(bytes).map_err(|e| BadChange(e.to_string()))?;
        let [single] = &message.changes[..] else {
            return Err(BadChange(format!("{} changes in one", message.changes.len())));
        };
        let kind = match (single.change_type, message.kind) {
            (0, 0) => Kind::AddVoter,
            (1, 0) => Kind::Remove,
            (2, 0) => Kind::AddLearner,
            (0, 3) => Kind::Update,
            (0, 4) => Kind::Promote,
            other => return Err(BadChange(format!("kind {other:?}"))),
        };
        let mut context = message.context.clone();
        if context.len() < 8 {
            return Err(BadChange("no cluster id".to_owned()));
        }
        let cluster_id = context.get_u64();
        let member = if context.is_empty() {
            None
        } else {
            Some(membershippb::Member::decode(context).map_err(|e| BadChange(e.to_string()))?)
        };
        let ChangeMessage { request_id, learners_max, .. } = message;
        Ok(ConfChange { request_id, kind, member_id: single.node_id, cluster_id, member, learners_max })
    }

    /// The change of voters and learners; `None` if there is none.
    pub(super) fn to_raft(&self) -> Option<eraftpb::ConfChangeV2> {
        if self.kind == Kind::Update {
            return None;
        }
        let mut change_type = self.kind.to_raft();
        if planted("learner-counted") && self.kind == Kind::AddLearner {
            change_type = eraftpb::ConfChangeType::AddNode;
        }
        let single = eraftpb::ConfChangeSingle { change_type, node_id: self.member_id, ..Default::default() };
        Some(eraftpb::ConfChangeV2 { changes: vec![single].into(), ..Default::default() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_survives_its_bytes_and_garbage_is_refused() {
        use Kind::*;
        for kind in [AddVoter, Remove, AddLearner, Update, Promote] {
            let change = ConfChange {
                request_id: 9,
                kind,
                member_id: u64::MAX,
                cluster_id: 7,
                member: Some(membershippb::Member { id: u64::MAX, ..Default::default() }),
                learners_max: 1,
            };
            let bytes = change.encode();
            assert_eq!(ConfChange::decode(&bytes).expect("it is one"), change);
            for end in 0..bytes.len() {
                drop(ConfChange::decode(&bytes[..end]));
            }
        }
        assert!(ConfChange::decode(b"\x12\x02\x08\x07").is_err());
        assert!(ConfChange::decode(&[0xff; 9]).is_err());
    }
}
