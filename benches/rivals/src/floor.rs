// SPDX-License-Identifier: Apache-2.0
//! Floors: the least that durable commits, and reads of memory, cost on this machine at this moment.
//!
//! Owns      the file that commits are appended to, and the memory that is read.
//! Holds     1. a commit is append, checksum and `fdatasync`, and nothing else;
//!           2. the file is written before and synced, so that no commit waits for the file system's journal:
//!              nothing that is durable costs less;
//!           3. memory is read by chance, each address known only after the read before it.
//! Never     is measured while a store works.

use std::fs::File;
use std::hint::black_box;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Instant;

use crate::settings::{BATCH, Settings};
use crate::store::Answer;
use crate::work::{Rng, Values, key};

/// Commits go round in a file of this size, or of one commit if that is larger.
const FILE_BYTES: u64 = 64 << 20;
const BLOCK: usize = 4096;

pub struct Floor {
    file: File,
    commit: Vec<u8>,
    commits: u64,
    at: u64,
    file_bytes: u64,
    memory: Vec<u64>,
    reads: u64,
}

impl Floor {
    /// A floor of the sizes of `settings`, with its file in `dir`.
    pub fn new(dir: &Path, settings: &Settings) -> Answer<Floor> {
        let values = Values::new(settings.value_bytes as usize);
        let mut commit = Vec::new();
        for revision in 1..=BATCH {
            commit.extend_from_slice(&key(revision));
            commit.extend_from_slice(values.of(revision));
        }
        commit.resize(commit.len().next_multiple_of(BLOCK), 0);
        let path = dir.join("floor");
        let file = File::create(&path)?;
        let file_bytes = FILE_BYTES.max(2 * commit.len() as u64);
        let zeros = vec![0; 1 << 20];
        for at in (0..file_bytes).step_by(zeros.len()) {
            file.write_all_at(&zeros, at)?;
        }
        file.sync_all()?;
        let mut rng = Rng(3);
        let (reads, memory_bytes) = settings.floor_reads();
        let mut memory: Vec<u64> = (0..memory_bytes / 8).collect();
        // Sattolo's shuffle: one cycle through all of it, however often it is followed.
        for last in (1..memory.len()).rev() {
            memory.swap(last, rng.below(last as u64) as usize);
        }
        Ok(Floor { file, commit, commits: settings.floor_commits(), at: 0, file_bytes, memory, reads })
    }

    /// Nanoseconds of a commit, divided by its values.
    pub fn write_ns(&mut self) -> Answer<f64> {
        let begin = Instant::now();
        for number in 0..self.commits {
            let sum = crc32fast::hash(&self.commit[8..]);
            self.commit[..8].copy_from_slice(&(u64::from(sum) ^ number).to_le_bytes());
            if self.at + self.commit.len() as u64 > self.file_bytes {
                self.at = 0;
            }
            self.file.write_all_at(&self.commit, self.at)?;
            self.file.sync_data()?;
            self.at += self.commit.len() as u64;
        }
        Ok(begin.elapsed().as_nanos() as f64 / (self.commits * BATCH) as f64)
    }

    /// Nanoseconds of a read.
    pub fn read_ns(&self) -> f64 {
        let begin = Instant::now();
        let mut at = 0;
        for _ in 0..self.reads {
            at = self.memory[at as usize];
        }
        black_box(at);
        begin.elapsed().as_nanos() as f64 / self.reads as f64
    }
}
