// SPDX-License-Identifier: Apache-2.0
//! Copies of a member's files, for commands that change what they work on.
//!
//! Owns      the proof that no member runs on them, and the copy of a file with its holes.
//! Holds     1. while a copy is made, no member can start on what is copied;
//!           2. what was never written, or given back, takes no room in the copy either;
//!           3. a copy is durable when it is named.
//! Never     opens what it copies for writing.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt as _};
use std::path::Path;

use crate::outcome::{Failure, Outcome};
use crate::progress::{Progress, Unit};

/// Whoever runs a member has these locked.
const LOCKS: [&str; 2] = ["CAIRN", "LOCK"];

const CHUNK_BYTES: usize = 1 << 20;
const BLOCK_BYTES: usize = 4096;

/// The locks of a member that does not run.
#[derive(Debug)]
pub struct AtRest {
    _held: Vec<File>,
}

impl AtRest {
    /// Makes sure that no member runs in `dir`, and none starts there meanwhile.
    pub fn of(dir: &Path) -> Outcome<AtRest> {
        let mut held = Vec::new();
        for name in LOCKS {
            let path = dir.join(name);
            let file = match File::open(&path) {
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                opened => opened.map_err(|e| Failure::io("open", &path, &e))?,
            };
            match file.try_lock_shared() {
                Ok(()) => held.push(file),
                Err(TryLockError::WouldBlock) => {
                    let dir = dir.display();
                    return Err(Failure::Unable(format!("a member runs on {dir}: stop it first")));
                }
                Err(TryLockError::Error(error)) => return Err(Failure::io("lock", &path, &error)),
            }
        }
        Ok(AtRest { _held: held })
    }
}

/// Copies a file; blocks of zeros become holes.
pub fn file(from: &Path, to: &Path) -> Outcome<()> {
    let mut source = File::open(from).map_err(|e| Failure::io("open", from, &e))?;
    let len = source.metadata().map_err(|e| Failure::io("measure", from, &e))?.len();
    let target = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(to)
        .map_err(|e| Failure::io("make", to, &e))?;
    target.set_len(len).map_err(|e| Failure::io("make", to, &e))?;
    let mut progress = Progress::new("copying", Unit::Bytes, len);
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut at = 0;
    loop {
        let read = fill(&mut source, &mut chunk).map_err(|e| Failure::io("read", from, &e))?;
        for (n, block) in chunk[..read].chunks(BLOCK_BYTES).enumerate() {
            if block.iter().any(|byte| *byte != 0) {
                let offset = at + (n * BLOCK_BYTES) as u64;
                target.write_all_at(block, offset).map_err(|e| Failure::io("write", to, &e))?;
            }
        }
        at += read as u64;
        progress.tick(read as u64);
        if read < chunk.len() {
            break;
        }
    }
    target.sync_all().map_err(|e| Failure::io("sync", to, &e))
}

/// Reads until `chunk` is full or the file ends.
fn fill(source: &mut File, chunk: &mut [u8]) -> std::io::Result<usize> {
    let mut filled = 0;
    while filled < chunk.len() {
        match source.read(&mut chunk[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
