// SPDX-License-Identifier: Apache-2.0
//! A new data directory: made beside its name, and named once all of it is there.
//!
//! Owns      `member.partial` in the directory that was named, which becomes `member` in the end.
//! Holds     1. a directory that has a member is refused before anything is written;
//!           2. `member` is there only if it is whole and durable; a command that failed leaves nothing.
//! Never     touches what it did not make.

use std::fs::{self, DirBuilder};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use cairn_engine::InstallId;
use cairn_engine::wal::WalOptions;

use crate::commands::vfs;
use crate::outcome::{Failure, Outcome};

/// Says to the daemon whose directory this is. It has to be there before the log is, whose files have names of the
/// form that etcd's have.
const MARK: &str = "CAIRN";

/// What a member has is its owner's alone.
const DIR_MODE: u32 = 0o700;

pub struct Target {
    dir: PathBuf,
    partial: PathBuf,
    made_dir: bool,
    done: bool,
}

impl Target {
    /// Begins a data directory in `dir`, which is made if it is missing.
    pub fn begin(dir: &Path) -> Outcome<Target> {
        let member = dir.join("member");
        if member.exists() {
            return Err(Failure::Unable(format!(
                "{} has a member already: name a directory that has none",
                dir.display()
            )));
        }
        let made_dir = !dir.exists();
        let vfs = vfs();
        vfs.create_dir(dir).map_err(|e| Failure::io("make", dir, &e))?;
        let partial = dir.join("member.partial");
        let target = Target { dir: dir.to_path_buf(), partial, made_dir, done: false };
        if let Err(error) = DirBuilder::new().mode(DIR_MODE).create(&target.partial) {
            let shown = target.partial.display().to_string();
            let failure = match error.kind() {
                ErrorKind::AlreadyExists => Failure::Unable(format!(
                    "{shown} is there: another command is at work, or was cut short; remove it if none is"
                )),
                _ => Failure::io("make", &target.partial, &error),
            };
            // It is not ours to remove.
            std::mem::forget(target);
            return Err(failure);
        }
        target.mark()?;
        Ok(target)
    }

    fn mark(&self) -> Outcome<()> {
        let path = self.partial.join(MARK);
        let made = fs::File::create_new(&path).and_then(|file| file.sync_all());
        made.and_then(|()| vfs().sync_dir(&self.partial)).map_err(|e| Failure::io("make", &path, &e))
    }

    /// Where the store is to be made.
    pub fn store(&self) -> &Path {
        &self.partial
    }

    /// Where the log is to be made.
    pub fn log(&self) -> PathBuf {
        self.partial.join("wal")
    }

    /// Names what was made.
    pub fn finish(mut self) -> Outcome<()> {
        let (vfs, member) = (vfs(), self.dir.join("member"));
        let named = vfs.sync_dir(&self.partial).and_then(|()| vfs.rename(&self.partial, &member));
        named.and_then(|()| vfs.sync_dir(&self.dir)).map_err(|e| Failure::io("name", &member, &e))?;
        self.done = true;
        Ok(())
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        if self.done {
            return;
        }
        // The failure that led here is told; another one to tidy up behind it would hide it.
        fs::remove_dir_all(&self.partial).ok();
        if self.made_dir {
            fs::remove_dir(&self.dir).ok();
        }
    }
}

/// A random number from the system.
pub fn random() -> Outcome<u64> {
    let path = Path::new("/dev/urandom");
    let mut bytes = [0; 8];
    let read = fs::File::open(path).and_then(|mut file| file.read_exact(&mut bytes));
    read.map_err(|e| Failure::io("read", path, &e))?;
    Ok(u64::from_le_bytes(bytes))
}

/// A number for a new filling of a directory.
pub fn install() -> Outcome<InstallId> {
    random().map(InstallId)
}

/// Options of a new log of a member.
pub fn wal_options(member_id: u64) -> Outcome<WalOptions> {
    Ok(WalOptions::new(vfs(), member_id, random()?))
}
