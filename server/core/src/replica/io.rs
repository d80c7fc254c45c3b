// SPDX-License-Identifier: Apache-2.0
//! What a replica is told, and what it says is to be done.
//!
//! Owns      the inputs and the effects.
//! Holds     the host performs effects in their order: sync, send, apply, answer.
//! Never     does anything.

use super::{
    conf::ConfChange,
    log::{EntryKind, LogEntry, LogError},
    peer::PeerMessage,
};
use crate::Refusal;
use bytes::Bytes;

/// Something that the member is asked to do through the log. `W` is what the host keeps with it.
pub struct Proposal<W> {
    /// Unlike any other's, and part of the data.
    pub id: u64,
    pub kind: EntryKind,
    /// It is refused, and not handed on, by a member that does not lead.
    pub leader_only: bool,
    pub data: Bytes,
    pub carried: W,
}

/// What happened.
pub enum Input<W, R> {
    Tick,
    Propose(Vec<Proposal<W>>),
    /// Reads that want everything that was committed before now.
    Read(Vec<R>),
    /// The log is durable up to this batch.
    Durable {
        batch: u64,
    },
    /// The state has applied up to here.
    Applied {
        index: u64,
    },
    /// The state has applied a change of the membership, or refused it.
    ConfApplied {
        index: u64,
        change: Option<ConfChange>,
    },
    /// From a peer whose connection is known to be that member's.
    Received(Box<PeerMessage>),
    /// What was sent to this peer may not have come through.
    Unreachable {
        peer: u64,
    },
    /// The sending of a snapshot to this peer has ended; whether the peer has taken it.
    SnapshotEnded {
        peer: u64,
        installed: bool,
    },
    /// A whole snapshot is here, checked, of the state as of this entry.
    SnapshotReceived {
        index: u64,
        term: u64,
    },
    /// This voter is to lead.
    Transfer {
        to: u64,
    },
    /// So many ticks of the wait for a leader are passed over.
    FastForward {
        ticks: usize,
    },
    /// A write of our own log has been waiting for longer than an election timeout.
    LogHangs,
}

/// An entry to apply.
#[derive(Debug)]
pub struct Committed<W> {
    pub entry: LogEntry,
    /// What its proposer kept, if that was this member.
    pub carried: Option<W>,
}

/// Who leads, as this member sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Leadership {
    pub term: u64,
    /// 0 if none is known.
    pub leader: u64,
    pub leads: bool,
    /// This member is the only one, so what it has applied is all that anyone can have seen.
    pub alone: bool,
}

/// What is to be done, in this order: sync, send, apply, answer.
pub struct Effects<W, R> {
    /// Something was appended: the log is to be synced.
    pub sync: bool,
    pub messages: Vec<PeerMessage>,
    pub committed: Vec<Committed<W>>,
    /// These reads may be answered once this index is applied.
    pub reads: Vec<(u64, Vec<R>)>,
    pub refused: Vec<(W, Refusal)>,
    pub refused_reads: Vec<(R, Refusal)>,
    /// Rounds of reads that got no answer in time, and were asked again.
    pub slow_reads: u64,
    /// It changed.
    pub leadership: Option<Leadership>,
    /// These peers are so far behind that they need a snapshot: one each is to be sent.
    pub snapshots: Vec<u64>,
    /// The snapshot that was received is to take the place of the store. The replica does nothing more: it is
    /// to be made anew over the new store.
    pub install: bool,
    /// Messages that nobody who follows the protocol sends: from whom, and why they were refused.
    pub misbehaved: Vec<(u64, &'static str)>,
    /// This member is not one of the cluster any more: it is to stop once its peers had time to hear of it.
    pub removed: bool,
    /// The member is to stop for this reason, and to step the replica no more.
    pub failed: Option<Stopped>,
}

/// Why a replica cannot go on.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Stopped {
    /// The log takes no more, or cannot be read.
    #[error("{0}")]
    Log(#[from] LogError),
    #[error(
        "the leader knows of {commit} entries that this member had, and its log ends at {last}: its disk lost \
         them; remove the member and add it anew with an empty data directory"
    )]
    EntriesLost { commit: u64, last: u64 },
}

impl<W, R> Default for Effects<W, R> {
    fn default() -> Self {
        Effects {
            sync: false,
            messages: Vec::new(),
            committed: Vec::new(),
            reads: Vec::new(),
            refused: Vec::new(),
            refused_reads: Vec::new(),
            slow_reads: 0,
            leadership: None,
            snapshots: Vec::new(),
            install: false,
            misbehaved: Vec::new(),
            removed: false,
            failed: None,
        }
    }
}
