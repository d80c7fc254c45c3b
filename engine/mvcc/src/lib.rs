// SPDX-License-Identifier: Apache-2.0
//! Revisions, the key index, transactions, compaction, watch history, hashes: etcd's data model over
//! the engine's trees.
//!
//! Owns      what a revision is, what each key was at each revision, and what a request does to both.
//! Holds     1. the same requests in the same order give the same answers, hashes and `live_bytes`,
//!              whenever checkpoints, purges and restarts happen in between;
//!           2. a request that is refused has written nothing;
//!           3. the stored form of a key-value pair is the protobuf message `mvccpb.KeyValue`, so that
//!              it is sent as it is stored.
//! Never     reads a clock or a random source, knows Raft, or sees a protobuf type.

mod batch;
mod cell;
mod counts;
mod hash;
mod hist;
mod history;
mod holds;
mod index;
mod inspect;
mod kv;
mod load;
mod meta;
#[cfg(feature = "mutants")]
pub mod mutants;
#[cfg(not(feature = "mutants"))]
mod mutants;
mod ops;
mod outcome;
mod purge;
mod range;
mod read;
mod store;
mod stream;
mod trees;
mod txn;
mod varint;

pub use batch::Batch;
pub use counts::Counts;
pub use hash::{HASHED_STORE_BYTES_MAX, HASHES_MAX, HashDone, HashScan};
pub use history::{HistoryBudget, HistoryDone};
pub use holds::RevisionHold;
pub use inspect::{Change, ContentCheck, Stored};
pub use kv::KvRef;
pub use load::{LoadError, Loader};
pub use ops::{
    Compare, CompareResult, CompareTarget, DeleteOp, KeyRange, Op, PutOp, RangeEnd, RangeOp, SortOrder,
    SortTarget, TxnOp,
};
pub use outcome::{
    Deferred, DeleteDone, Event, EventKind, OpDone, OpError, PutDone, RangeDone, Revision, RevisionEvents,
    TxnDone,
};
pub use purge::{PurgeBudget, PurgeProgress};
pub use read::Reader;
pub use store::Store;
pub use stream::{RangeChunk, RangeStream, RangeTotals};
pub use trees::{SCHEMA, SmallTree};
