// SPDX-License-Identifier: Apache-2.0
//! Failures of single calls.
//!
//! Owns      the kinds of failure that a simulated disk can be told to produce, and which calls each fits.
//! Holds     1. one armed failure happens once.
//! Never     fails a call that nobody armed.

/// What goes wrong at the chosen call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A read fails with EIO.
    Read,
    /// A write, or a change of length, fails with EIO and does nothing.
    Write,
    /// A write puts half of its bytes down and then fails with EIO.
    ShortWrite,
    /// A write, or a change of length, fails with ENOSPC and does nothing.
    NoSpace,
    /// A change of names fails with EIO and does nothing.
    Name,
    /// A sync fails. The cache keeps the new bytes and takes them for clean: reads show them, later syncs
    /// succeed, and the disk does not have them (ext4, XFS). Names are journaled and stay dirty, as with
    /// `SyncOnce`: where a journal cannot be written, the file system goes read-only.
    SyncKeepsCache,
    /// A sync fails, and the cache goes back to what the disk has (Btrfs).
    SyncRevertsCache,
    /// A sync fails and says so once; the bytes stay dirty, and a second sync would succeed.
    SyncOnce,
}

/// The calls that a fault can hit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Call {
    Read,
    Write,
    Resize,
    Sync,
    Name,
}

impl Fault {
    /// All of them, for loops over every failure.
    pub const ALL: [Fault; 8] = [
        Fault::Read,
        Fault::Write,
        Fault::ShortWrite,
        Fault::NoSpace,
        Fault::Name,
        Fault::SyncKeepsCache,
        Fault::SyncRevertsCache,
        Fault::SyncOnce,
    ];

    pub(super) fn fits(self, call: Call) -> bool {
        match self {
            Fault::Read => call == Call::Read,
            Fault::ShortWrite => call == Call::Write,
            Fault::Write | Fault::NoSpace => matches!(call, Call::Write | Call::Resize),
            Fault::Name => call == Call::Name,
            Fault::SyncKeepsCache | Fault::SyncRevertsCache | Fault::SyncOnce => call == Call::Sync,
        }
    }
}
