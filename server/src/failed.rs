// SPDX-License-Identifier: Apache-2.0
//! How a start that fails, and a run that ends by a failure, are told.
//!
//! Owns      the last line of the log, in etcd's words where it has any (BO-14), and the status that goes with it.
//! Holds     the cause is one sentence: in the line itself, or in its field `error`.
//! Never     decides that something failed.

use crate::{
    daemon::End,
    exit::ExitStatus,
    log::{Log, Value},
    member::{Failure, FailureKind, StartError},
};
use cairn_core::{boot::BootError, force::ForceRefused, replica::log::LogError, state::Fatal};
use cairn_engine::Error as EngineError;

/// The process ends, for a reason that etcd has no words for.
pub fn failed(log: &Log, status: ExitStatus, text: &str) -> End {
    log.fatal(text, &[("exit-status", (status as u8).into())]);
    End::Status(status)
}

/// The configuration cannot be served.
pub fn not_configured(log: &Log, text: &str) -> End {
    log.warn("failed to verify flags", &fields(ExitStatus::Refused, text));
    End::Status(ExitStatus::Refused)
}

/// The member did not start. etcd says so whatever the cause.
pub fn not_started(log: &Log, status: ExitStatus, text: &str) -> End {
    log.fatal("discovery failed", &fields(status, text));
    End::Status(status)
}

fn fields(status: ExitStatus, text: &str) -> [(&'static str, Value); 2] {
    [("error", text.into()), ("exit-status", (status as u8).into())]
}

/// How the process ends for a start that failed.
pub fn status_of(error: &StartError) -> ExitStatus {
    match error {
        StartError::MadeByEtcd(_) => ExitStatus::DataForeign,
        StartError::InUse(_) => ExitStatus::DataInUse,
        StartError::Access { .. } => ExitStatus::DataUnreadable,
        StartError::Keys(_)
        | StartError::Boot(
            BootError::IdZero
            | BootError::IdTwice(_)
            | BootError::Force(ForceRefused::Removed(_) | ForceRefused::Change { .. })
            | BootError::State(Fatal::NewerCluster { .. }),
        ) => ExitStatus::Refused,
        StartError::Boot(
            BootError::Engine(error)
            | BootError::LogDamaged(error)
            | BootError::Log(LogError::Engine(error))
            | BootError::Force(ForceRefused::Log(LogError::Engine(error)))
            | BootError::State(Fatal::Engine(error)),
        ) => status_of_engine(error),
        StartError::Boot(_) | StartError::Diverged { .. } => ExitStatus::DataDamaged,
        StartError::Ended(Failure { kind, .. }) => status_of_failure(*kind),
        StartError::Again(_) => ExitStatus::Failed,
    }
}

/// The same of a member that ended by itself.
pub fn status_of_failure(kind: FailureKind) -> ExitStatus {
    match kind {
        FailureKind::DiskFull => ExitStatus::DiskFull,
        FailureKind::Damaged | FailureKind::StoreDamaged => ExitStatus::DataDamaged,
        FailureKind::Other => ExitStatus::Failed,
    }
}

fn status_of_engine(error: &EngineError) -> ExitStatus {
    match error {
        full if full.is_full() => ExitStatus::DiskFull,
        EngineError::Corrupt(_) => ExitStatus::DataDamaged,
        EngineError::Io(_) => ExitStatus::DataUnreadable,
        EngineError::Locked { .. } => ExitStatus::DataInUse,
        EngineError::Format(_) => ExitStatus::DataForeign,
        _ => ExitStatus::Failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cairn_engine::Corruption;
    use std::path::{Path, PathBuf};

    // rule: SD-8
    #[test]
    fn a_full_disk_and_a_damaged_file_have_their_statuses_at_start_and_later() {
        let file = PathBuf::from("d/f");
        let full = EngineError::NoSpace { file: file.clone() };
        let poisoned = EngineError::Poisoned { file: file.clone(), full: true };
        let damaged = EngineError::from(Corruption::new(Path::new("d/f"), "checksum"));
        let other = EngineError::Poisoned { file, full: false };
        for (error, status) in [
            (full, ExitStatus::DiskFull),
            (poisoned, ExitStatus::DiskFull),
            (damaged, ExitStatus::DataDamaged),
            (other, ExitStatus::Failed),
        ] {
            for boot in [
                BootError::Engine(error.clone()),
                BootError::Log(LogError::Engine(error.clone())),
                BootError::State(Fatal::Engine(error.clone())),
            ] {
                assert_eq!(status_of(&StartError::Boot(boot)), status, "{error}");
            }
            assert_eq!(status_of(&StartError::Ended(error.clone().into())), status, "{error}");
            assert_eq!(status_of_failure(Failure::from(LogError::Engine(error)).kind), status);
        }
    }
}
