// SPDX-License-Identifier: Apache-2.0
//! Snapshots: one checkpoint as a stream of frames, and a new store from such a stream.
//!
//! Owns      the stream's format, the two ends of a transfer, and backup and restore, which are a transfer to and
//!           from a file.
//! Holds     1. a stream is of one checkpoint whose pages stay as they are while it is read, or it ends with an
//!              error;
//!           2. a page is checked before it is sent, when it comes, and, from the roots, when all are there;
//!           3. a store that is received has its name only once it is whole and durable; no live file is patched;
//!           4. memory is one frame, and one bit for each page of the file.
//! Never     starts a thread or opens a connection: its owner carries the bytes.

mod copy;
pub mod format;
mod receive;
mod send;

pub use copy::{
    BackupHead, Copied, Phase, RestoreLog, RestoreTo, Step, backup, clone_store, read_head, restore,
};
pub use receive::{Installed, Received, Receiver};
pub(crate) use send::Pins;
pub use send::{Position, Snapshot, SnapshotLimits, Stream};
