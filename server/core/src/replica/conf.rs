// SPDX-License-Identifier: Apache-2.0
//! Changes of the membership as they travel in the log.
//!
//! Owns      the bytes of raft's `ConfChangeV2`, written and read with our own messages, and the record of
//!           the member that a change brings along.
//! Holds     decoding is total: bytes from the log or a peer give an error, never a panic.
//! Never     decides whether a change is allowed: the state does, at apply.

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
}

/// What happens to one member.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    AddVoter = 0,
    Remove = 1,
    AddLearner = 2,
}

/// A change of the membership.
#[derive(Clone, PartialEq, Debug)]
pub struct ConfChange {
    pub kind: Kind,
    pub member_id: u64,
    /// The cluster's id, in the changes that a cluster begins with; else 0.
    pub cluster_id: u64,
    /// What is to be recorded of the member; without it, what is known stays.
    pub member: Option<membershippb::Member>,
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
        let change = SingleMessage { change_type: self.kind as i32, node_id: self.member_id };
        let message = ChangeMessage { transition: 0, changes: vec![change], context: context.freeze() };
        message.encode_to_vec().into()
    }

    /// # Errors
    /// If the bytes are not what [`ConfChange::encode`] writes.
    pub fn decode(bytes: &[u8]) -> Result<ConfChange, BadChange> {
        let message = ChangeMessage::decode(bytes).map_err(|e| BadChange(e.to_string()))?;
        let [single] = &message.changes[..] else {
            return Err(BadChange(format!("{} changes in one", message.changes.len())));
        };
        let kind = match single.change_type {
            0 => Kind::AddVoter,
            1 => Kind::Remove,
            2 => Kind::AddLearner,
            other => return Err(BadChange(format!("kind {other}"))),
        };
        let mut context = message.context;
        if context.len() < 8 {
            return Err(BadChange("no cluster id".to_owned()));
        }
        let cluster_id = context.get_u64();
        let member = if context.is_empty() {
            None
        } else {
            Some(membershippb::Member::decode(context).map_err(|e| BadChange(e.to_string()))?)
        };
        Ok(ConfChange { kind, member_id: single.node_id, cluster_id, member })
    }

    pub(super) fn to_raft(&self) -> eraftpb::ConfChangeV2 {
        let change_type = match self.kind {
            Kind::AddVoter => eraftpb::ConfChangeType::AddNode,
            Kind::Remove => eraftpb::ConfChangeType::RemoveNode,
            Kind::AddLearner => eraftpb::ConfChangeType::AddLearnerNode,
        };
        let single = eraftpb::ConfChangeSingle { change_type, node_id: self.member_id, ..Default::default() };
        eraftpb::ConfChangeV2 { changes: vec![single].into(), ..Default::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_survives_its_bytes_and_garbage_is_refused() {
        let change = ConfChange {
            kind: Kind::AddLearner,
            member_id: u64::MAX,
            cluster_id: 7,
            member: Some(membershippb::Member { id: u64::MAX, ..Default::default() }),
        };
        let bytes = change.encode();
        assert_eq!(ConfChange::decode(&bytes).expect("it is one"), change);
        for end in 0..bytes.len() {
            drop(ConfChange::decode(&bytes[..end]));
        }
        assert!(ConfChange::decode(b"\x12\x02\x08\x07").is_err());
        assert!(ConfChange::decode(&[0xff; 9]).is_err());
    }
}
