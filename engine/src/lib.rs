// SPDX-License-Identifier: Apache-2.0
//! The storage engine of Cairn: pages, trees, the write-ahead log.
//!
//! Owns      the store ([`Db`]) and the log under it: bytes in, bytes out.
//! Holds     what each room states at the top of its file; invariants I1 to I6 at the top of `checkpoint.rs`.
//! Never     starts a thread, reads a clock, or knows Raft, revisions or requests.

mod checkpoint;
mod cursor;
mod db;
mod error;
pub mod failpoints;
mod fold;
pub mod format;
#[cfg(feature = "sim")]
pub mod fuzz;
mod holds;
pub mod inspect;
pub mod io;
mod maintain;
#[cfg(not(feature = "sim"))]
mod marks;
#[cfg(feature = "sim")]
pub mod marks;
#[cfg(not(feature = "mutants"))]
mod mutants;
#[cfg(feature = "mutants")]
pub mod mutants;
mod options;
mod overlay;
pub mod page;
mod recover;
mod schema;
mod scrub;
mod shrink;
#[cfg(feature = "sim")]
pub mod sim;
mod size;
pub mod snapshot;
mod space;
mod stats;
pub mod surgery;
mod sync;
pub mod tree;
mod treefile;
mod txn;
mod verified;
mod view;
pub mod wal;
mod writequeue;

pub use cursor::Cursor;
pub use db::{Db, Why};
pub use error::{BrokenTransfer, Corruption, Error, FormatMismatch, IoFailure, Result};
pub use fold::PurgeRequest;
pub use holds::{HOLD_ENTRIES_MAX, HoldStats, LONG_HOLD_NS, Lock, LockStats, Stopwatch};
pub use maintain::Verified;
pub use options::{Growth, Options, PageSourceKind};
pub use recover::Recovered;
pub use schema::{AppendKey, InstallId, Schema, TREES_MAX, TreeDef, TreeKind};
pub use scrub::{Damage, Scrub, Scrubbed};
pub use shrink::{Aim, Shrinking};
pub use stats::Stats;
pub use txn::WriteTxn;
pub use view::{CommitMeta, OWNER_META_BYTES_MAX, Seq, Value, View};
