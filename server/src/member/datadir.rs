// SPDX-License-Identifier: Apache-2.0
//! The data directory: where a member's files are, and whose it is.
//!
//! Owns      the names below the data directory, and the lock on it.
//! Holds     1. a directory that etcd made is refused before anything in it is touched;
//!           2. one process at a time: a second one is told at once (DD-4 is etcd's: it waits for ever).
//! Never     opens a store or a log.

use super::config::{MemberConfig, StartError};
use cairn_engine::io::{FileLock, Vfs};
use std::{
    io::ErrorKind,
    path::{Path, PathBuf},
};

/// Says whose directory this is, and is locked as long as a member runs in it. The store has a lock of its
/// own; the log is made before the store is.
const MARK: &str = "CAIRN";

/// See the module.
#[derive(Debug)]
pub(super) struct DataDir {
    pub member: PathBuf,
    pub wal: PathBuf,
    /// Held as long as the member runs.
    _lock: Box<dyn FileLock>,
}

impl DataDir {
    /// Refuses a directory that etcd made, for those who write beside the member before it starts.
    pub fn check_owner(config: &MemberConfig) -> Result<(), StartError> {
        let member = config.data_dir.join("member");
        let wal = config.wal_dir.clone().unwrap_or_else(|| member.join("wal"));
        refuse_etcd(&*config.vfs, &config.data_dir, &member, &wal)
    }

    /// Makes what is missing and takes the lock.
    pub fn take(config: &MemberConfig) -> Result<DataDir, StartError> {
        let vfs = &*config.vfs;
        let member = config.data_dir.join("member");
        let wal = config.wal_dir.clone().unwrap_or_else(|| member.join("wal"));
        refuse_etcd(vfs, &config.data_dir, &member, &wal)?;
        for dir in [&config.data_dir, &member] {
            vfs.create_dir(dir).map_err(|source| StartError::Access { dir: dir.clone(), source })?;
        }
        let lock = vfs.lock(&member.join(MARK)).map_err(|source| match source.kind() {
            ErrorKind::WouldBlock => StartError::InUse(config.data_dir.clone()),
            _ => StartError::Access { dir: config.data_dir.clone(), source },
        })?;
        vfs.sync_dir(&member).map_err(|source| StartError::Access { dir: member.clone(), source })?;
        Ok(DataDir { member, wal, _lock: lock })
    }
}

/// etcd keeps `member/snap/db`, and log files with the same form of name as ours. Only ours have the mark,
/// which is there, and durable, before the first of them.
fn refuse_etcd(vfs: &dyn Vfs, data_dir: &Path, member: &Path, wal: &Path) -> Result<(), StartError> {
    let access = |dir: &Path, source| StartError::Access { dir: dir.to_path_buf(), source };
    let exists = |path: &Path| vfs.exists(path).map_err(|e| access(path, e));
    if exists(&member.join(MARK))? {
        return Ok(());
    }
    if exists(&member.join("snap").join("db"))? {
        return Err(StartError::MadeByEtcd(data_dir.to_path_buf()));
    }
    for dir in [member.join("wal"), wal.to_path_buf()] {
        if exists(&dir)? && vfs.list(&dir).map_err(|e| access(&dir, e))?.iter().any(|f| is_etcd_wal(f)) {
            return Err(StartError::MadeByEtcd(data_dir.to_path_buf()));
        }
    }
    Ok(())
}

fn is_etcd_wal(path: &Path) -> bool {
    let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
    let Some((seq, index)) = name.strip_suffix(".wal").and_then(|stem| stem.split_once('-')) else {
        return false;
    };
    let hex16 = |part: &str| part.len() == 16 && part.bytes().all(|b| b.is_ascii_hexdigit());
    hex16(seq) && hex16(index)
}
