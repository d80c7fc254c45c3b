// SPDX-License-Identifier: Apache-2.0
//! Answers, events and refusals.
//!
//! Owns      revisions, what each request answers with, and why one is refused.
//! Holds     a pair in an answer or an event is the bytes of its `mvccpb.KeyValue` message.
//! Never     words what a client sees: the border does.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use cairn_engine::AppendKey;

use crate::holds::RevisionHold;
use crate::ops::RangeOp;

/// The place of a change: the transaction it is in, and its number inside that.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Revision {
    pub main: i64,
    pub sub: i64,
}

impl Revision {
    pub const fn new(main: i64, sub: i64) -> Revision {
        Revision { main, sub }
    }

    /// After every change of `main`.
    pub(crate) const fn end_of(main: i64) -> Revision {
        Revision { main, sub: i64::MAX }
    }

    /// The key under which an append tree keeps this revision.
    pub(crate) fn to_key(self) -> AppendKey {
        let mut key = [0; 16];
        key[..8].copy_from_slice(&self.main.to_be_bytes());
        key[8..].copy_from_slice(&self.sub.to_be_bytes());
        key
    }

    /// The revision that a key of an append tree states; `None` if it is no such key.
    pub(crate) fn from_key(key: &[u8]) -> Option<Revision> {
        let (main, sub) = key.split_first_chunk::<8>()?;
        let sub: &[u8; 8] = sub.try_into().ok()?;
        let revision = Revision { main: i64::from_be_bytes(*main), sub: i64::from_be_bytes(*sub) };
        (revision.main >= 0 && revision.sub >= 0).then_some(revision)
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.main, self.sub)
    }
}

/// Why a request was refused. Nothing of it was written.
#[derive(Debug, Clone, thiserror::Error)]
pub enum OpError {
    /// A put that keeps the value or the lease of a key that does not exist.
    #[error("key not found")]
    KeyNotFound,
    /// A put with a lease that is not granted.
    #[error("requested lease not found")]
    LeaseNotFound,
    /// The revision is below the compact revision.
    #[error("required revision has been compacted")]
    Compacted,
    /// The revision is above the current one.
    #[error("required revision is a future revision")]
    FutureRevision,
    /// The engine failed. Of a batch with such an error nothing can be committed.
    #[error(transparent)]
    Engine(#[from] cairn_engine::Error),
}

/// What a range answers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RangeDone {
    /// The store's revision when the range was answered.
    pub revision: i64,
    pub kvs: Vec<Bytes>,
    /// All keys of the interval, whatever limit and filters say.
    pub count: i64,
    /// Whether the limit cut something off.
    pub more: bool,
}

/// A range of a transaction, to be answered later: what it reads is fixed, and held.
#[derive(Clone, Debug)]
pub struct Deferred {
    pub op: RangeOp,
    /// The newest change that the range sees.
    pub at: Revision,
    /// Revision for the answer's header.
    pub revision: i64,
    pub hold: RevisionHold,
}

/// What a put answers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PutDone {
    pub revision: i64,
    pub prev_kv: Option<Bytes>,
}

/// What a delete answers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DeleteDone {
    pub revision: i64,
    pub deleted: i64,
    pub prev_kvs: Vec<Bytes>,
}

/// What a transaction answers. Of a nested one the revision is not sent.
#[derive(Clone, Debug)]
pub struct TxnDone {
    pub revision: i64,
    pub succeeded: bool,
    pub responses: Vec<OpDone>,
}

/// The answer of one operation of a transaction.
#[derive(Clone, Debug)]
pub enum OpDone {
    Range(Deferred),
    Put(PutDone),
    Delete(DeleteDone),
    Txn(TxnDone),
}

/// What happened to a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EventKind {
    Put,
    Delete,
}

/// One change of one key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Event {
    pub kind: EventKind,
    pub key: Bytes,
    /// The pair as a message; of a delete only key and mod revision.
    pub kv: Bytes,
    /// Create revision of the key's generation.
    pub create: i64,
    /// Version that the key has, or had when it was deleted.
    pub version: i64,
    pub sub: i64,
    /// The revision of the same generation before this one; `None` where the key was created.
    pub prev: Option<Revision>,
}

/// All events of one revision, in the order of execution.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RevisionEvents {
    pub main: i64,
    pub events: Vec<Event>,
}

/// What a batch did, a revision each.
pub(crate) type Changes = Vec<Arc<RevisionEvents>>;
