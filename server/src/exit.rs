// SPDX-License-Identifier: Apache-2.0
//! How the process ends.
//!
//! Owns      the exit statuses and their meanings, as `--help` and the README list them.
//! Never     ends the process.

use cairn_engine::io::SIGBUS_EXIT_CODE;

/// Why the process ended by itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum ExitStatus {
    Done = 0,
    Refused = 1,
    Usage = 2,
    DataInUse = 3,
    DataUnreadable = 4,
    DataForeign = 5,
    DataDamaged = 6,
    DiskFull = 7,
    Listen = 8,
    Descriptors = 9,
    Failed = 10,
    /// From a signal handler, past everything else.
    PageGone = SIGBUS_EXIT_CODE as u8,
}

impl ExitStatus {
    pub const ALL: [ExitStatus; 12] = [
        ExitStatus::Done,
        ExitStatus::Refused,
        ExitStatus::Usage,
        ExitStatus::DataInUse,
        ExitStatus::DataUnreadable,
        ExitStatus::DataForeign,
        ExitStatus::DataDamaged,
        ExitStatus::DiskFull,
        ExitStatus::Listen,
        ExitStatus::Descriptors,
        ExitStatus::Failed,
        ExitStatus::PageGone,
    ];

    pub const fn meaning(self) -> &'static str {
        match self {
            ExitStatus::Done => "--help, --version, or a clean end",
            ExitStatus::Refused => "a configuration that cannot be served; the text names the flag",
            ExitStatus::Usage => "a flag that does not exist or cannot be read",
            ExitStatus::DataInUse => "the data directory is in use by another process",
            ExitStatus::DataUnreadable => "the data directory cannot be made, read or written",
            ExitStatus::DataForeign => "the data directory was made by etcd, or by a newer Cairn",
            ExitStatus::DataDamaged => {
                "a file in the data directory is damaged, or its data are not those of its peers; the text says which"
            }
            ExitStatus::DiskFull => "no space is left for the data directory",
            ExitStatus::Listen => "an address to listen on cannot be bound",
            ExitStatus::Descriptors => "the limit of open files is too low",
            ExitStatus::Failed => "the member stopped after a failure, such as a write that the disk refused",
            ExitStatus::PageGone => {
                "a page of the store that was there is gone: the disk failed, or the file was cut from outside"
            }
        }
    }
}
